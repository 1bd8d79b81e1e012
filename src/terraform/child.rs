//! One run of the terraform executable: lines out as they come, a time limit, Ctrl-C passed on.

use std::ffi::OsString;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::{Change, TerraformError};
use crate::interrupt::Interrupt;

/// After SIGINT terraform finishes the requests under way and writes its state; the slowest delete seen takes under a
/// minute, and a terraform killed before that forgets what it did.
const GRACE: Duration = Duration::from_secs(120);

/// After terraform has ended only a provider that outlives it can hold the pipes open.
const DRAIN: Duration = Duration::from_secs(2);

/// What to run, where, and for how long at most.
pub(super) struct Run<'a> {
    pub binary: &'a Path,
    pub directory: &'a Path,
    pub environment: &'a [(OsString, Change)],
    pub arguments: Vec<OsString>,
    pub limit: Duration,
}

/// A line terraform wrote.
pub(super) enum Line {
    Out(String),
    Err(String),
}

impl Run<'_> {
    /// The subcommand, for messages: `plan`, `state pull`.
    fn name(&self) -> String {
        let words: Vec<_> = self
            .arguments
            .iter()
            .map(|word| word.to_string_lossy())
            .collect();
        let words = words
            .iter()
            .take_while(|word| !word.starts_with('-'))
            .take(2);
        words.map(AsRef::as_ref).collect::<Vec<&str>>().join(" ")
    }

    /// Runs to the end and hands each line to `each`, which returns the text worth showing as the last line seen.
    pub async fn follow(
        &self,
        interrupt: &Interrupt,
        mut each: impl FnMut(Line) -> Option<String>,
    ) -> Result<ExitStatus, TerraformError> {
        let mut command = Command::new(self.binary);
        command
            .args(&self.arguments)
            .current_dir(self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // An own group: a Ctrl-C on the terminal reaches terraform once, through us, not twice (twice means
            // "drop everything" to terraform).
            .process_group(0);
        for (name, change) in self.environment {
            match change {
                Change::Set(value) => command.env(name, value),
                Change::Remove => command.env_remove(name),
            };
        }
        let spawned = command.spawn();
        let mut child = spawned.map_err(|source| TerraformError::Start {
            binary: self.binary.into(),
            source,
        })?;
        let (sender, mut lines) = mpsc::channel(64);
        if let Some(stdout) = child.stdout.take() {
            forward(stdout, Line::Out, sender.clone());
        }
        if let Some(stderr) = child.stderr.take() {
            forward(stderr, Line::Err, sender.clone());
        }
        drop(sender);

        let mut last = String::from("nothing");
        let mut signals = interrupt.count();
        let already = signals > 0;
        let mut deadline = Instant::now() + self.limit;
        let mut stop: Option<TerraformError> = None;
        if already {
            signal_group(&child, Signal::SIGINT);
            stop = Some(TerraformError::Interrupted {
                command: self.name(),
            });
            deadline = Instant::now() + GRACE;
        }
        let status = loop {
            tokio::select! {
                Some(line) = lines.recv() => {
                    if let Some(text) = each(line) {
                        last = text;
                    }
                }
                status = child.wait() => {
                    break status.map_err(|source| TerraformError::Start { binary: self.binary.into(), source })?;
                }
                () = interrupt.more_than(signals) => {
                    signals = interrupt.count();
                    signal_group(&child, Signal::SIGINT);
                    if stop.is_none() {
                        deadline = Instant::now() + GRACE;
                        stop = Some(TerraformError::Interrupted { command: self.name() });
                    }
                }
                () = sleep_until(deadline) => {
                    let first = stop.is_none();
                    signal_group(&child, if first { Signal::SIGINT } else { Signal::SIGKILL });
                    deadline = Instant::now() + GRACE;
                    if first {
                        let last = last.clone();
                        stop = Some(TerraformError::TookTooLong { command: self.name(), limit: self.limit, last });
                    }
                }
            }
        };
        let drained = timeout(DRAIN, async {
            while let Some(line) = lines.recv().await {
                each(line);
            }
        });
        // Lines held back by a surviving grandchild are nobody's concern any more.
        let _ = drained.await;
        match stop {
            // A run that ended well in spite of the signal did its work; the caller sees the interrupt by itself.
            Some(_) if status.success() => Ok(status),
            Some(stopped) => Err(stopped),
            None => Ok(status),
        }
    }
}

fn forward(
    stream: impl AsyncRead + Unpin + Send + 'static,
    wrap: fn(String) -> Line,
    sender: mpsc::Sender<Line>,
) {
    tokio::spawn(async move {
        let mut reader = BufReader::new(stream);
        let mut buffer = Vec::new();
        while let Ok(read) = reader.read_until(b'\n', &mut buffer).await {
            if read == 0 {
                break;
            }
            let line = String::from_utf8_lossy(&buffer)
                .trim_end_matches(['\n', '\r'])
                .to_owned();
            buffer.clear();
            if sender.send(wrap(line)).await.is_err() {
                break;
            }
        }
    });
}

// The child may have ended in between; then there is nobody left to tell.
fn signal_group(child: &Child, signal: Signal) {
    if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
        let _ = killpg(Pid::from_raw(id), signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(script: &str, limit: Duration) -> Result<ExitStatus, TerraformError> {
        let run = Run {
            binary: Path::new("/bin/sh"),
            directory: Path::new("/"),
            environment: &[],
            arguments: vec!["-c".into(), script.into()],
            limit,
        };
        let text = |line| match line {
            Line::Out(text) | Line::Err(text) => Some(text),
        };
        run.follow(&Interrupt::never(), text).await
    }

    #[tokio::test]
    async fn a_run_that_takes_too_long_is_stopped_and_its_last_line_is_kept() {
        let ended = run(
            "echo first; echo almost there >&2; sleep 30",
            Duration::from_millis(500),
        )
        .await;
        let Err(TerraformError::TookTooLong { last, .. }) = ended else {
            panic!("{ended:?}")
        };
        assert_eq!(last, "almost there");
    }

    #[tokio::test]
    async fn a_status_is_passed_on_and_a_missing_program_is_named() {
        let limit = Duration::from_secs(10);
        assert_eq!(run("exit 2", limit).await.unwrap().code(), Some(2));
        let run = Run {
            binary: Path::new("/nonexistent/terraform"),
            directory: Path::new("/"),
            environment: &[],
            arguments: vec![],
            limit,
        };
        let error = run.follow(&Interrupt::never(), |_| None).await.unwrap_err();
        assert!(
            error.to_string().contains("/nonexistent/terraform"),
            "{error}"
        );
    }
}
