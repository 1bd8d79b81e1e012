//! What is known of an upload that has not ended: one file per role, system, account and region, so that a run that was
//! killed anywhere goes on from there.
//!
//! The first line says what the snapshot was begun with and is written in one step before EBS is asked, so that asking
//! again makes no second snapshot. Then come the snapshot's id and the number of each block that EBS has confirmed, one
//! a line as it happens. A line without its end was not finished, and counts for nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cloud::ebs::NewSnapshot;

/// The shape of the lines below.
const VERSION: u32 = 1;

/// Why an upload cannot be remembered.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another run is at it.
    #[error(
        "another `drawbridge image publish` uploads this role at the moment (it holds {}): wait until it has ended", file.display()
    )]
    Busy {
        /// The lock.
        file: PathBuf,
    },
    /// It was not written by this program, or the disk lost some of it.
    #[error(
        "{} is not what an unfinished upload leaves ({problem}): remove it, and the upload begins anew", file.display()
    )]
    Malformed {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The disk is full, the folder is not ours…
    #[error("cannot {doing} {} (see whose the folder is and that the disk is not full, and run this again)", file.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// The file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// What was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The name of the content.
    pub content: String,
    /// As EBS was or will be asked.
    pub new: NewSnapshot,
}

/// An upload that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// What it is of.
    pub begun: Begun,
    /// `snap-…`; none when the run ended before EBS answered.
    pub snapshot: Option<String>,
    /// The blocks that EBS has.
    pub confirmed: BTreeSet<u32>,
}

/// The file, held by this run alone.
#[derive(Debug)]
pub struct Journal {
    file: PathBuf,
    lines: Option<File>,
    // Given back when it is closed, also by a kill.
    _lock: File,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct First {
    version: u32,
    content: String,
    token: String,
    gib: u64,
    description: String,
    idle_minutes: u64,
    tags: BTreeMap<String, String>,
}

#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Line {
    Block(u32),
    Snapshot { snapshot: String },
}

impl Journal {
    /// Takes the file; it need not be there.
    ///
    /// # Errors
    /// [`JournalError::Busy`] while another run has it.
    pub fn take(file: PathBuf) -> Result<Self, JournalError> {
        let lock = file.with_extension("lock");
        let failed = |doing: &'static str, file: &Path| {
            let file = file.to_owned();
            move |source| JournalError::File {
                doing,
                file,
                source,
            }
        };
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).map_err(failed("make the folder", folder))?;
        }
        let held = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock)
            .map_err(failed("open", &lock))?;
        match held.try_lock() {
            Ok(()) => Ok(Self {
                file,
                lines: None,
                _lock: held,
            }),
            Err(TryLockError::WouldBlock) => Err(JournalError::Busy { file: lock }),
            Err(TryLockError::Error(source)) => Err(failed("lock", &lock)(source)),
        }
    }

    /// What the last run has left.
    ///
    /// # Errors
    /// [`JournalError::Malformed`] for something else than that.
    pub fn read(&self) -> Result<Option<Unfinished>, JournalError> {
        let text = match fs::read_to_string(&self.file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.failed("read", source)),
        };
        parse(&text)
            .map(Some)
            .map_err(|problem| JournalError::Malformed {
                file: self.file.clone(),
                problem,
            })
    }

    /// Begins anew, in one step: whoever kills this meanwhile leaves the old file or the new one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(&mut self, begun: &Begun) -> Result<(), JournalError> {
        let first = First {
            version: VERSION,
            content: begun.content.clone(),
            token: begun.new.token.clone(),
            gib: begun.new.gib,
            description: begun.new.description.clone(),
            idle_minutes: begun.new.idle.as_secs() / 60,
            tags: begun.new.tags.clone(),
        };
        self.lines = None;
        let draft = self.file.with_extension("new");
        let write = || {
            let mut file = File::create(&draft)?;
            writeln!(file, "{}", serde_json::to_string(&first)?)?;
            file.sync_all()?;
            fs::rename(&draft, &self.file)
        };
        write().map_err(|source| self.failed("write", source))
    }

    /// EBS has begun this snapshot.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn note_snapshot(&mut self, snapshot: &str) -> Result<(), JournalError> {
        self.append(&Line::Snapshot {
            snapshot: snapshot.to_owned(),
        })
    }

    /// EBS has this block.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn note_block(&mut self, block: u32) -> Result<(), JournalError> {
        self.append(&Line::Block(block))
    }

    /// The upload has ended.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn end(&mut self) -> Result<(), JournalError> {
        self.lines = None;
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.failed("remove", error))
            }
            _ => Ok(()),
        }
    }

    fn append(&mut self, line: &Line) -> Result<(), JournalError> {
        let mut file = match self.lines.take() {
            Some(file) => file,
            None => self
                .open_at_end()
                .map_err(|source| self.failed("open", source))?,
        };
        let put = serde_json::to_string(line)
            .map_err(io::Error::other)
            // In one piece: a kill leaves all of a line or none of it.
            .and_then(|text| file.write_all(format!("{text}\n").as_bytes()));
        put.map_err(|source| self.failed("write", source))?;
        self.lines = Some(file);
        Ok(())
    }

    /// Without what a power cut has left of a line.
    fn open_at_end(&self) -> io::Result<File> {
        let content = fs::read(&self.file)?;
        let whole = content.iter().rposition(|byte| *byte == b'\n');
        let file = OpenOptions::new().append(true).open(&self.file)?;
        file.set_len(whole.map_or(0, |end| end as u64 + 1))?;
        Ok(file)
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> JournalError {
        JournalError::File {
            doing,
            file: self.file.clone(),
            source,
        }
    }
}

fn parse(text: &str) -> Result<Unfinished, String> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut lines = whole.lines();
    let first = lines.next().unwrap_or_default();
    let first: First =
        serde_json::from_str(first).map_err(|error| format!("its first line: {error}"))?;
    if first.version != VERSION {
        return Err(format!("its version is {}, not {VERSION}", first.version));
    }
    let mut unfinished = Unfinished {
        begun: Begun {
            content: first.content,
            new: NewSnapshot {
                token: first.token,
                gib: first.gib,
                description: first.description,
                tags: first.tags,
                idle: Duration::from_secs(first.idle_minutes.saturating_mul(60)),
            },
        },
        snapshot: None,
        confirmed: BTreeSet::new(),
    };
    for (number, line) in lines.enumerate() {
        let line = serde_json::from_str(line).map_err(|_| format!("its line {}", number + 2))?;
        match line {
            Line::Block(block) if unfinished.snapshot.is_some() => {
                unfinished.confirmed.insert(block);
            }
            Line::Snapshot { snapshot } if unfinished.snapshot.is_none() => {
                unfinished.snapshot = Some(snapshot);
            }
            _ => return Err(format!("its line {}", number + 2)),
        }
    }
    Ok(unfinished)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(content: &str) -> Begun {
        Begun {
            content: content.to_owned(),
            new: NewSnapshot {
                token: "token".into(),
                gib: 2,
                description: "it".into(),
                tags: BTreeMap::from([("a".into(), "b".into())]),
                idle: Duration::from_secs(3600),
            },
        }
    }

    #[test]
    fn what_was_noted_is_read_by_the_next_run() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deeper/one.jsonl");
        let mut journal = Journal::take(file.clone()).unwrap();
        assert_eq!(journal.read().unwrap(), None);
        journal.begin(&begun("x")).unwrap();
        let read = journal.read().unwrap().unwrap();
        assert_eq!((&read.begun, &read.snapshot), (&begun("x"), &None));
        journal.note_snapshot("snap-1").unwrap();
        journal.note_block(7).unwrap();
        drop(journal);
        // Half a line, as a power cut leaves it.
        let mut torn = OpenOptions::new().append(true).open(&file).unwrap();
        torn.write_all(b"12").unwrap();
        let mut journal = Journal::take(file.clone()).unwrap();
        assert_eq!(
            journal.read().unwrap().unwrap().confirmed,
            BTreeSet::from([7])
        );
        journal.note_block(3).unwrap();
        let read = journal.read().unwrap().unwrap();
        assert_eq!(read.snapshot.as_deref(), Some("snap-1"));
        assert_eq!(read.confirmed, BTreeSet::from([3, 7]));
        journal.begin(&begun("y")).unwrap();
        assert!(journal.read().unwrap().unwrap().confirmed.is_empty());
        journal.end().unwrap();
        journal.end().unwrap();
        assert_eq!(journal.read().unwrap(), None);
    }

    #[test]
    fn two_runs_do_not_upload_the_same_role_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("one.jsonl");
        let first = Journal::take(file.clone()).unwrap();
        let busy = Journal::take(file.clone()).unwrap_err();
        assert!(matches!(busy, JournalError::Busy { .. }), "{busy}");
        drop(first);
        Journal::take(file).unwrap();
    }

    #[test]
    fn something_else_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("one.jsonl");
        let mut journal = Journal::take(file.clone()).unwrap();
        journal.begin(&begun("x")).unwrap();
        let good = fs::read_to_string(&file).unwrap();
        let wrong = [
            String::new(),
            "{}\n".into(),
            good.replace("\"version\":1", "\"version\":2"),
            format!("{good}7\n"),
            format!("{good}{{\"snapshot\":\"a\"}}\n{{\"snapshot\":\"b\"}}\n"),
            format!("{good}{{\"snapshot\":\"a\"}}\n\0\0\0\n"),
        ];
        for wrong in wrong {
            fs::write(&file, &wrong).unwrap();
            let said = journal.read().unwrap_err().to_string();
            assert!(
                said.contains("remove it") && said.contains("one.jsonl"),
                "{wrong}: {said}"
            );
        }
    }
}
