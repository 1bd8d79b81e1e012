//! A rehearsal as a child process, with folders of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use drawbridge::rehearsal::memory_folder;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::provider::{self, Provider};
use crate::support::{copy_terraform, eventually, read_again, repository};

/// A rehearsal takes two minutes; several at once on a slow machine take ten times that.
const LIMIT: Duration = Duration::from_secs(3600);
/// One that is told to end needs a second.
const STOP_LIMIT: Duration = Duration::from_secs(240);

/// A copy of `terraform/` to break, and a work folder.
pub struct Stage {
    folder: TempDir,
    provider: Option<&'static Provider>,
}

/// How a rehearsal ended.
pub struct Ended {
    /// Exit status.
    pub code: Option<i32>,
    /// What it printed with `--json`; null if nothing.
    pub report: Value,
    /// What it said.
    pub said: String,
}

impl Stage {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("terraform");
        fs::create_dir(&copy).unwrap();
        copy_terraform(&copy);
        let provider = provider::light();
        provider.lock(&copy);
        Self {
            folder,
            provider: Some(provider),
        }
    }

    /// With the committed lock and the real package of the provider.
    pub fn as_shipped() -> Self {
        let mut stage = Self::new();
        stage.provider = None;
        copy_terraform(&stage.terraform());
        stage
    }

    /// The copy of `terraform/`.
    pub fn terraform(&self) -> PathBuf {
        self.folder.path().join("terraform")
    }

    /// Where the rehearsal keeps files for people.
    pub fn work_dir(&self) -> PathBuf {
        self.folder.path().join("work/rehearsal")
    }

    /// Replaces `old`, which must be there, in a file of the copy.
    pub fn edit(&self, file: &str, old: &str, new: &str) {
        let path = self.terraform().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(old), "{file} does not contain {old}");
        fs::write(&path, text.replace(old, new)).unwrap();
    }

    /// Adds to a file of the copy.
    pub fn append(&self, file: &str, more: &str) {
        let path = self.terraform().join(file);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text + more).unwrap();
    }

    /// `drawbridge rehearse` on the copy.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_drawbridge"));
        command
            .current_dir(repository())
            .args(["rehearse", "--terraform-dir"])
            .arg(self.terraform())
            .arg("--work-dir")
            .arg(self.work_dir())
            .args(arguments)
            // Less collecting of garbage by terraform and its providers: a fifth of their processor time.
            .env("GOGC", "400")
            .stdin(Stdio::null());
        if let Some(provider) = self.provider {
            provider.lead_to(&mut command);
        }
        if !arguments.contains(&"--port") {
            // The default one may be in use by anybody.
            command.args(["--port", "0"]);
        }
        command
    }

    /// Runs it to its end and looks for what it left behind.
    pub fn rehearse(&self) -> Ended {
        self.rehearse_with(&[])
    }

    /// The same with more arguments.
    pub fn rehearse_with(&self, arguments: &[&str]) -> Ended {
        let command = self.command(&[&["--exit", "--json"], arguments].concat());
        let ended = Rehearsal::start(command).end();
        self.assert_nothing_is_left();
        ended
    }

    /// Waits for the end of all its processes, however they are brought to it.
    pub fn assert_no_process_is_left(&self) {
        // The kernel takes its time with what it kills for us.
        eventually(STOP_LIMIT, "the end of every process", || {
            let left = processes_of(&self.work_dir());
            if left.is_empty() {
                Ok(())
            } else {
                Err(left.join("; "))
            }
        });
    }

    /// No process, no loop device, no file.
    pub fn assert_nothing_is_left(&self) {
        self.assert_no_process_is_left();
        assert!(
            !self.work_dir().exists(),
            "{} is left",
            self.work_dir().display()
        );
        eventually(STOP_LIMIT, "the end of every loop device", || {
            let left = self.devices();
            if left.is_empty() {
                Ok(())
            } else {
                Err(left.join("; "))
            }
        });
    }

    /// Files behind the loop devices of this rehearsal; those of one beside it are in another folder.
    pub fn devices(&self) -> Vec<String> {
        let list = Command::new("losetup")
            .args(["--list", "--noheadings", "--output", "BACK-FILE"])
            .output()
            .unwrap();
        let folder = memory_folder(&self.work_dir());
        let name = folder.file_name().unwrap().to_str().unwrap();
        let list = String::from_utf8(list.stdout).unwrap();
        list.lines()
            .filter(|file| file.contains(name))
            .map(str::to_owned)
            .collect()
    }
}

/// A rehearsal under way; it does not outlive the test.
pub struct Rehearsal {
    child: Child,
    output: File,
    errors: File,
}

impl Rehearsal {
    pub fn start(mut command: Command) -> Self {
        let (output, errors) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let child = command
            .stdout(output.try_clone().unwrap())
            .stderr(errors.try_clone().unwrap())
            .spawn()
            .unwrap();
        Self {
            child,
            output,
            errors,
        }
    }

    pub fn send(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Fails with what it said if it has ended.
    pub fn assert_under_way(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("it ended with {status}: {}", read_again(&mut self.errors));
        }
    }

    /// Waits for its end.
    pub fn end(mut self) -> Ended {
        let status = eventually(LIMIT, "the end of the rehearsal", || {
            let ended = self.child.try_wait().unwrap();
            ended.ok_or_else(|| read_again(&mut self.errors))
        });
        Ended {
            code: status.code(),
            report: serde_json::from_str(&read_again(&mut self.output)).unwrap_or(Value::Null),
            said: read_again(&mut self.errors),
        }
    }
}

impl Drop for Rehearsal {
    fn drop(&mut self) {
        // Asked first, so that it clears away what it made.
        if let Ok(None) = self.child.try_wait() {
            self.send(Signal::SIGTERM);
        }
        let deadline = Instant::now() + STOP_LIMIT;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > deadline {
                let _ = self.child.kill();
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Ended {
    /// Whether the proof of this name held, every time it was tried; fails if it was not.
    pub fn held(&self, name: &str) -> bool {
        let mut tried = self.proofs();
        tried.retain(|(proof, ..)| proof == name);
        assert!(
            !tried.is_empty(),
            "no proof is called {name:?}:\n{}",
            self.said
        );
        tried.iter().all(|(_, held, _)| *held)
    }

    /// What was seen for the proof of this name, which must have held.
    pub fn detail(&self, name: &str) -> String {
        assert!(self.held(name), "{name}");
        let mut tried = self.proofs().into_iter();
        let (_, _, detail) = tried.find(|(proof, ..)| proof == name).unwrap();
        detail
    }

    /// Name, outcome and detail of every proof.
    pub fn proofs(&self) -> Vec<(String, bool, String)> {
        let steps = self.report["steps"].as_array().into_iter().flatten();
        steps
            .flat_map(|step| step["proofs"].as_array().into_iter().flatten())
            .map(|proof| {
                (
                    proof["name"].as_str().unwrap().to_owned(),
                    proof["held"].as_bool().unwrap(),
                    proof["detail"].as_str().unwrap().to_owned(),
                )
            })
            .collect()
    }

    /// The one error text.
    pub fn error(&self) -> String {
        self.report["error"].as_str().unwrap_or_default().to_owned()
    }
}

/// Command lines of the processes that live inside the rehearsal with this work folder: its name is on their `/run`.
pub fn processes_of(work_dir: &Path) -> Vec<String> {
    inhabitants(work_dir)
        .map(|process| command_line(&process))
        .collect()
}

/// Process id, on this machine, of the one inside the rehearsal whose command line contains `part`.
pub fn find_process(work_dir: &Path, part: &str) -> Option<i32> {
    inhabitants(work_dir)
        .find(|process| command_line(process).contains(part))
        .and_then(|process| process.file_name()?.to_str()?.parse().ok())
}

fn inhabitants(work_dir: &Path) -> impl Iterator<Item = PathBuf> {
    let name = format!(" {} ", work_dir.display());
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .chars()
                .all(|c| c.is_ascii_digit())
        })
        .map(|entry| entry.path())
        .filter(move |process| {
            fs::read_to_string(process.join("mountinfo")).is_ok_and(|mounts| mounts.contains(&name))
        })
}

fn command_line(process: &Path) -> String {
    fs::read_to_string(process.join("cmdline"))
        .unwrap_or_default()
        .replace('\0', " ")
}
