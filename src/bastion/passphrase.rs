//! Asks for a key's passphrase on the terminal, without showing it.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use russh::keys::{PrivateKey, decode_secret_key};
use zeroize::Zeroizing;

use super::SshError;
use super::terminal::Mode;
use crate::interrupt::Interrupt;
use crate::progress::{Progress, escape};

/// As ssh does.
const ATTEMPTS: usize = 3;

/// Somebody at a terminal.
#[derive(Debug)]
pub(super) struct Asker {
    progress: Progress,
    interrupt: Interrupt,
    /// Nobody is asked again in this run: not for the next host either.
    given_up: AtomicBool,
}

impl Asker {
    pub fn new(progress: &Progress, interrupt: &Interrupt) -> Self {
        Self {
            progress: progress.clone(),
            interrupt: interrupt.clone(),
            given_up: AtomicBool::new(false),
        }
    }

    /// Asks until the passphrase opens the key in `text`, three times at most. stdin and stdout may be anything: the
    /// terminal is asked itself.
    ///
    /// # Errors
    /// [`SshError::IdentityLocked`] without a terminal, after a Ctrl-C or an empty answer; [`SshError::WrongPassphrase`].
    pub async fn unlock(
        &self,
        path: &Path,
        text: Zeroizing<String>,
    ) -> Result<PrivateKey, SshError> {
        let locked = || SshError::IdentityLocked {
            path: path.to_owned(),
        };
        let wrong = || SshError::WrongPassphrase {
            path: path.to_owned(),
        };
        if self.given_up.load(Ordering::Relaxed) {
            return Err(wrong());
        }
        let terminal = File::options().read(true).write(true).open("/dev/tty");
        let terminal = terminal.map_err(|_| locked())?;
        self.progress.pause();
        // Goes with this future, so that a Ctrl-C gives the echo back while the thread below still waits for a line.
        let _silent = Mode::silent(terminal.try_clone().map_err(|_| locked())?);
        for _ in 0..ATTEMPTS {
            let (mut terminal, text) = (terminal.try_clone().map_err(|_| locked())?, text.clone());
            let question = format!("Passphrase of {}: ", escape(&path.display().to_string()));
            let answer = tokio::task::spawn_blocking(move || {
                write!(terminal, "{question}").ok()?;
                let mut line = Zeroizing::new(String::new());
                BufReader::new(terminal).read_line(&mut line).ok()?;
                let passphrase = line.trim_end_matches(['\n', '\r']);
                // Nothing typed, or Ctrl-D: whoever was asked does not know it.
                (!passphrase.is_empty()).then(|| decode_secret_key(&text, Some(passphrase)).ok())
            });
            let answer = tokio::select! {
                answer = answer => answer.ok().flatten(),
                () = self.interrupt.requested() => None,
            };
            match answer {
                None => return Err(locked()),
                Some(Some(key)) => {
                    self.progress.resume();
                    return Ok(key);
                }
                Some(None) => {}
            }
        }
        self.given_up.store(true, Ordering::Relaxed);
        Err(wrong())
    }
}
