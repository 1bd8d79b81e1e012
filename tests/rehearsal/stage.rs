//! A rehearsal as a child process, with folders of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::repository;

/// A copy of `terraform/` to break, and a work folder.
pub struct Stage {
    folder: TempDir,
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
        for entry in fs::read_dir(repository().join("terraform")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_file() && !name.contains("tfstate") {
                fs::copy(&path, copy.join(name)).unwrap();
            }
        }
        Self { folder }
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
            .stdin(Stdio::null());
        if !arguments.contains(&"--port") {
            // The default one may be in use by anybody.
            command.args(["--port", "0"]);
        }
        command
    }

    /// Runs it to its end and looks for what it left behind.
    pub fn rehearse(&self) -> Ended {
        let ended = Ended::from(self.command(&["--exit", "--json"]).output().unwrap());
        self.assert_nothing_is_left();
        ended
    }

    /// No process, no loop device, no file.
    pub fn assert_nothing_is_left(&self) {
        assert_eq!(
            processes_of(&self.work_dir()),
            Vec::<String>::new(),
            "processes are left"
        );
        assert!(
            !self.work_dir().exists(),
            "{} is left",
            self.work_dir().display()
        );
        let devices = Command::new("losetup")
            .args(["--list", "--noheadings", "--output", "BACK-FILE"])
            .output()
            .unwrap();
        let devices = String::from_utf8_lossy(&devices.stdout).into_owned();
        // A volume in use by a rehearsal beside this one is that one's.
        let running = rehearsals_running();
        assert!(
            running || !devices.contains("/run/drawbridge-"),
            "loop devices are left: {devices}"
        );
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            report: serde_json::from_slice(&output.stdout).unwrap_or(Value::Null),
            said: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ended {
    /// Whether the proof of this name held; fails if it was not tried.
    pub fn held(&self, name: &str) -> bool {
        let proof = self.proofs().into_iter().find(|(proof, ..)| proof == name);
        proof
            .unwrap_or_else(|| panic!("no proof is called {name:?}:\n{}", self.said))
            .1
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
    let name = format!(" {} ", work_dir.display());
    processes()
        .filter(|process| {
            fs::read_to_string(process.join("mountinfo")).is_ok_and(|mounts| mounts.contains(&name))
        })
        .map(|process| command_line(&process))
        .collect()
}

/// Process id, on this machine, of the one inside the rehearsal whose command line contains `part`.
pub fn find_process(work_dir: &Path, part: &str) -> Option<i32> {
    let name = format!(" {} ", work_dir.display());
    processes()
        .filter(|process| {
            fs::read_to_string(process.join("mountinfo")).is_ok_and(|mounts| mounts.contains(&name))
        })
        .find(|process| command_line(process).contains(part))
        .and_then(|process| process.file_name()?.to_str()?.parse().ok())
}

fn rehearsals_running() -> bool {
    processes().any(|process| command_line(&process).contains("--inside"))
}

fn processes() -> impl Iterator<Item = PathBuf> {
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
}

fn command_line(process: &Path) -> String {
    fs::read_to_string(process.join("cmdline"))
        .unwrap_or_default()
        .replace('\0', " ")
}
