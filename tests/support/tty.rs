//! A real pseudo-terminal, with somebody in front of it who types and reads.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};

use super::eventually;

/// Far beyond what anything here takes.
const LIMIT: Duration = Duration::from_secs(120);

/// A terminal and what has been shown on it.
pub struct Tty {
    master: File,
    slave: File,
    shown: Arc<Mutex<String>>,
}

/// A program at a terminal; killed when dropped.
pub struct AtTty(Child);

impl Tty {
    /// A window of 100 columns and 30 rows.
    pub fn open() -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = File::options()
            .read(true)
            .write(true)
            // It must not become the test's own terminal.
            .custom_flags(i32::try_from(OpenptFlags::NOCTTY.bits()).unwrap())
            .open(OsStr::from_bytes(name.as_bytes()))
            .unwrap();
        let tty = Self {
            master: File::from(master),
            slave,
            shown: Arc::default(),
        };
        tty.resize(100, 30);
        let (mut master, shown) = (tty.master.try_clone().unwrap(), Arc::clone(&tty.shown));
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Ends with an error when nobody has the terminal any longer.
            while let Ok(read @ 1..) = master.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..read]).into_owned();
                shown.lock().unwrap().push_str(&text);
            }
        });
        tty
    }

    pub fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.master, size).unwrap();
    }

    /// Starts `command` with this as its controlling terminal and all three of its files.
    pub fn spawn(&self, command: &Command) -> AtTty {
        // It becomes the program itself, so that the child's id is the program's.
        let mut at_tty = Command::new("setsid");
        at_tty
            .arg("--ctty")
            .arg(command.get_program())
            .args(command.get_args());
        if let Some(folder) = command.get_current_dir() {
            at_tty.current_dir(folder);
        }
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => at_tty.env(name, value),
                None => at_tty.env_remove(name),
            };
        }
        let file = || Stdio::from(self.slave.try_clone().unwrap());
        at_tty.env("TERM", "vt220");
        at_tty.stdin(file()).stdout(file()).stderr(file());
        AtTty(at_tty.spawn().unwrap())
    }

    /// The end that programs have.
    pub fn end(&self) -> &File {
        &self.slave
    }

    /// What is typed at once.
    pub fn keys(&self, keys: &str) {
        (&self.master).write_all(keys.as_bytes()).unwrap();
    }

    /// Everything shown so far.
    pub fn shown(&self) -> String {
        self.shown.lock().unwrap().clone()
    }

    /// Waits until `text` is shown, after what was waited for before; forgets what was shown up to it.
    pub fn wait_for(&self, text: &str) {
        eventually(LIMIT, &format!("`{text}` on the terminal"), || {
            let mut shown = self.shown.lock().unwrap();
            match shown.find(text) {
                Some(place) => {
                    shown.drain(..place + text.len());
                    Ok(())
                }
                None => Err(shown.clone()),
            }
        });
    }

    /// The terminal's modes, as text to compare.
    pub fn modes(&self) -> String {
        let modes = tcgetattr(&self.slave).unwrap();
        format!(
            "{:?} {:?} {:?}",
            modes.input_modes, modes.output_modes, modes.local_modes
        )
    }

    /// Waits until the terminal's modes are, or are not, those of before.
    pub fn wait_for_modes(&self, before: &str, are: bool) {
        eventually(LIMIT, "the terminal's modes", || {
            let now = self.modes();
            if (now == before) == are {
                Ok(())
            } else {
                Err(now)
            }
        });
    }
}

impl AtTty {
    /// Sends a signal by name, e.g. `TERM`.
    pub fn signal(&self, name: &str) {
        let kill = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.0.id().to_string())
            .status();
        assert!(kill.unwrap().success());
    }

    /// Waits for its end.
    pub fn wait(mut self) -> ExitStatus {
        eventually(LIMIT, "the program's end", || {
            self.0
                .try_wait()
                .unwrap()
                .ok_or_else(|| "running".to_owned())
        })
    }
}

impl Drop for AtTty {
    fn drop(&mut self) {
        // Fails only if it has ended already, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
