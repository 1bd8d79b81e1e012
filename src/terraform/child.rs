//! One run of the terraform executable: lines out as they come, a time limit, Ctrl-C passed on.
//!
//! Terraform writes to files, not to pipes: a pipe breaks when this process is killed, and terraform would die by SIGPIPE
//! in the middle of an apply, possibly before its state knows what it made. It gets nothing else from us that it needs
//! after its start: plan and CLI configuration are read at once, and a killed process removes no temporary folder.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Change, TerraformError};
use crate::interrupt::Interrupt;

/// After SIGINT terraform finishes the requests under way and writes its state; the slowest delete seen takes under a
/// minute, and a terraform killed before that forgets what it did.
const GRACE: Duration = Duration::from_secs(120);

/// How often the files are read: soon enough for a person who watches.
const GLANCE: Duration = Duration::from_millis(50);

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
        let mut out = Tail::new(Line::Out).map_err(TerraformError::Scratch)?;
        let mut err = Tail::new(Line::Err).map_err(TerraformError::Scratch)?;
        let mut command = Command::new(self.binary);
        command
            .args(&self.arguments)
            .current_dir(self.directory)
            .stdin(Stdio::null())
            .stdout(out.writer().map_err(TerraformError::Scratch)?)
            .stderr(err.writer().map_err(TerraformError::Scratch)?)
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
                () = sleep(GLANCE) => {
                    for line in out.lines().into_iter().chain(err.lines()) {
                        if let Some(text) = each(line) {
                            last = text;
                        }
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
        // A provider may outlive terraform; what it still writes is nobody's concern.
        for line in out.rest().into_iter().chain(err.rest()) {
            each(line);
        }
        match stop {
            // A run that ended well in spite of the signal did its work; the caller sees the interrupt by itself.
            Some(_) if status.success() => Ok(status),
            Some(stopped) => Err(stopped),
            None => Ok(status),
        }
    }
}

/// A file without a name that terraform writes to and we read behind it: it goes with its last user, so that nothing is
/// left lying about, whoever is killed.
struct Tail {
    file: File,
    position: u64,
    begun: Vec<u8>,
    wrap: fn(String) -> Line,
}

impl Tail {
    fn new(wrap: fn(String) -> Line) -> io::Result<Self> {
        Ok(Self {
            file: tempfile::tempfile()?,
            position: 0,
            begun: Vec::new(),
            wrap,
        })
    }

    /// What to give the child. It shares the file's offset with us, so we read by position and never move it.
    fn writer(&self) -> io::Result<Stdio> {
        self.file.try_clone().map(Stdio::from)
    }

    /// The whole lines that have come since the last look.
    fn lines(&mut self) -> Vec<Line> {
        let mut buffer = [0; 8192];
        // Nobody else can truncate or remove a file without a name; an error is as good as nothing new.
        while let Ok(read @ 1..) = self.file.read_at(&mut buffer, self.position) {
            self.position += read as u64;
            self.begun.extend_from_slice(&buffer[..read]);
        }
        let end = self.begun.iter().rposition(|byte| *byte == b'\n');
        let whole: Vec<u8> = self.begun.drain(..end.map_or(0, |at| at + 1)).collect();
        whole
            .split_inclusive(|byte| *byte == b'\n')
            .map(|line| self.line(line))
            .collect()
    }

    /// The same, and a last line without an end.
    fn rest(&mut self) -> Vec<Line> {
        let mut lines = self.lines();
        if !self.begun.is_empty() {
            let last = std::mem::take(&mut self.begun);
            lines.push(self.line(&last));
        }
        lines
    }

    fn line(&self, bytes: &[u8]) -> Line {
        let text = String::from_utf8_lossy(bytes);
        (self.wrap)(text.trim_end_matches(['\n', '\r']).to_owned())
    }
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
    async fn every_line_is_handed_on_in_order_also_one_without_an_end() {
        let mut heard = Vec::new();
        let run = Run {
            binary: Path::new("/bin/sh"),
            directory: Path::new("/"),
            environment: &[],
            arguments: vec![
                "-c".into(),
                "printf half; sleep 0.2; echo; seq 3000; printf end".into(),
            ],
            limit: Duration::from_secs(10),
        };
        let never = Interrupt::never();
        let ended = run.follow(&never, |line| {
            if let Line::Out(text) = line {
                heard.push(text);
            }
            None
        });
        assert!(ended.await.unwrap().success());
        let numbers = (1..=3000).map(|number: u32| number.to_string());
        let wanted: Vec<_> = std::iter::once("half".to_owned())
            .chain(numbers)
            .chain(["end".to_owned()])
            .collect();
        assert_eq!(heard, wanted);
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
