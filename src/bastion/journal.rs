//! A host's journal, entry by entry: `journalctl -o json` over there, read here, and gone on with after a lost session
//! exactly behind the last entry that arrived.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::sync::mpsc;

use super::exec::command_line;
use super::reconnect::{Patience, reconnect};
use super::{Access, Session, SshError};
use crate::appliance::Role;

/// The longest line that is taken. journald cuts what programs write at 48 KiB; entries sent to it as such may be longer.
const LONGEST_LINE: u64 = 16 << 20;
/// Of what journalctl complains, the end is kept.
const COMPLAINT: usize = 4096;
/// The fields that a line of text shows; all others stay on the host.
const SHOWN: &str = "MESSAGE,SYSLOG_IDENTIFIER,_SYSTEMD_UNIT,_TRANSPORT,_COMM";

/// What is wanted of a journal.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Only entries of this time and later.
    pub since: Option<OffsetDateTime>,
    /// Only so many, the newest; all of them without.
    pub newest: Option<u32>,
    /// Only entries of this unit; a name or a pattern, as `journalctl --unit` takes it.
    pub unit: Option<String>,
    /// Go on with what is written from now on.
    pub is_following: bool,
    /// With all fields, not only those of [`Entry::line`].
    pub is_whole: bool,
}

/// The place of an entry in its journal, as journalctl wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub struct Cursor(String);

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Entry {
    /// Where it stands.
    #[serde(rename = "__CURSOR")]
    pub cursor: Cursor,
    /// When it arrived at journald, microseconds since 1970.
    #[serde(rename = "__REALTIME_TIMESTAMP", deserialize_with = "number")]
    pub microseconds: u64,
    /// All other fields, as they came.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// Why a journal ended early.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// No way to the host, or none any more.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// journalctl said no.
    #[error("journalctl on {host} ended with status {status}: {said}")]
    Refused {
        /// The host.
        host: Role,
        /// Its exit status.
        status: u32,
        /// The end of its complaint.
        said: String,
    },
    /// What came is no entry of a journal.
    #[error("{host} sent something that is no journal entry ({reason}): {text}")]
    NotAnEntry {
        /// The host.
        host: Role,
        /// What is wrong with it.
        reason: String,
        /// Its beginning.
        text: String,
    },
}

/// What a host's journal has to tell.
#[derive(Debug)]
pub enum News {
    /// The next entry.
    Entry(Box<Entry>),
    /// The session is lost, and is being made again.
    Lost,
    /// It goes on.
    Back,
}

impl TryFrom<String> for Cursor {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"=;".contains(&byte);
        if text.is_empty() || text.len() > 512 || !text.bytes().all(plain) {
            return Err("its __CURSOR is not one");
        }
        Ok(Self(text))
    }
}

/// journalctl writes numbers as strings.
fn number<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let text = String::deserialize(from)?;
    text.parse()
        .map_err(|_| serde::de::Error::custom("its __REALTIME_TIMESTAMP is no number"))
}

impl Entry {
    /// Reads a line of `journalctl -o json`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(line: &str) -> Result<Self, String> {
        serde_json::from_str(line).map_err(|error| error.to_string())
    }

    /// A field as text. journalctl writes what is no clean text as an array of bytes, and a field that an entry has
    /// several times as an array of those.
    #[must_use]
    pub fn text(&self, field: &str) -> Option<String> {
        text(self.fields.get(field)?)
    }

    /// Who wrote it: unit, else program, else how it came (`kernel`).
    #[must_use]
    pub fn source(&self) -> String {
        let known = ["_SYSTEMD_UNIT", "SYSLOG_IDENTIFIER", "_COMM", "_TRANSPORT"];
        let found = known.iter().find_map(|field| self.text(field));
        found.unwrap_or_else(|| "?".to_owned())
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => {
            let byte = |item: &Value| item.as_u64().and_then(|byte| u8::try_from(byte).ok());
            let bytes: Option<Vec<u8>> = items.iter().map(byte).collect();
            match bytes {
                Some(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
                None => Some(items.iter().filter_map(text).collect::<Vec<_>>().join("\n")),
            }
        }
        _ => None,
    }
}

impl Query {
    /// The command for a host's shell; after `seen`, the rest of what it began.
    #[must_use]
    pub fn command(&self, seen: Option<&Cursor>) -> String {
        let mut words = vec!["journalctl".to_owned()];
        words.extend(["--quiet", "--no-pager", "--all", "--output=json"].map(str::to_owned));
        if !self.is_whole {
            words.push(format!("--output-fields={SHOWN}"));
        }
        if let Some(unit) = &self.unit {
            words.push(format!("--unit={unit}"));
        }
        if self.is_following {
            words.push("--follow".to_owned());
        }
        match (seen, self.newest, self.since) {
            // Following, journalctl would leave out all but the newest ten.
            (Some(cursor), ..) => {
                words.push(format!("--after-cursor={}", cursor.0));
                words.push("--lines=all".to_owned());
            }
            (None, newest, since) => {
                if let Some(since) = since {
                    words.push(format!("--since=@{}", since.unix_timestamp()));
                }
                let lines = newest.map_or("all".to_owned(), |lines| lines.to_string());
                words.push(format!("--lines={lines}"));
            }
        }
        command_line(&words)
    }
}

/// Sends a host's entries, oldest first, until its journal is at its end; never if it is followed. Ends quietly when
/// nobody listens any more. A session that is lost is made again with `patience`, the first one is not.
///
/// # Errors
/// [`JournalError`].
pub async fn read(
    access: &Access,
    host: Role,
    query: &Query,
    patience: Patience,
    news: mpsc::Sender<News>,
) -> Result<(), JournalError> {
    let mut session = access.connect(host).await?;
    let mut seen = None;
    let mut is_back = false;
    loop {
        let before = seen.clone();
        let ended = read_once(&session, query, &mut seen, is_back, &news).await;
        session.close().await;
        match ended {
            Err(JournalError::Ssh(error)) if error.is_passing() => {}
            ended => return ended.map(|_| ()),
        }
        // Once for a loss; a host that is lost again before it said anything is still lost.
        if (!is_back || before != seen) && news.send(News::Lost).await.is_err() {
            return Ok(());
        }
        is_back = true;
        session = reconnect(access, host, patience).await?;
    }
}

async fn read_once(
    session: &Session,
    query: &Query,
    seen: &mut Option<Cursor>,
    is_back: bool,
    news: &mpsc::Sender<News>,
) -> Result<(), JournalError> {
    let host = session.host();
    let command = query.command(seen.as_ref());
    let (stdout, lines) = tokio::io::duplex(64 * 1024);
    let (stderr, complaint) = tokio::io::duplex(COMPLAINT);
    let run = session.run(&command, tokio::io::empty(), stdout, stderr);
    let take = async {
        if is_back && news.send(News::Back).await.is_err() {
            return Ok::<_, JournalError>(true);
        }
        let mut lines = BufReader::new(lines);
        while let Some(line) = next_line(&mut lines, host).await? {
            let entry = Entry::parse(&line).map_err(|reason| JournalError::NotAnEntry {
                host,
                reason,
                text: line.chars().take(120).collect(),
            })?;
            let cursor = entry.cursor.clone();
            if news.send(News::Entry(Box::new(entry))).await.is_err() {
                return Ok(true);
            }
            *seen = Some(cursor);
        }
        Ok(false)
    };
    let work = async { tokio::join!(run, last(complaint)) };
    tokio::pin!(work, take);
    // The reader ends after the command, with its output; or before it, for a reason of its own.
    let (ended, taken) = tokio::select! {
        ended = &mut work => (Some(ended), take.await),
        taken = &mut take => match taken {
            Ok(false) => (Some(work.await), taken),
            _ => (None, taken),
        },
    };
    taken?;
    match ended {
        None => Ok(()),
        Some((status, said)) => match status? {
            0 => Ok(()),
            status => Err(JournalError::Refused { host, status, said }),
        },
    }
}

/// The next whole line; what stands after the last newline is part of an entry that was cut off.
async fn next_line(
    lines: &mut (impl AsyncBufRead + Unpin),
    host: Role,
) -> Result<Option<String>, JournalError> {
    let mut line = Vec::new();
    let read = lines.take(LONGEST_LINE).read_until(b'\n', &mut line).await;
    let is_whole = line.pop() == Some(b'\n');
    match read {
        Ok(read) if read as u64 == LONGEST_LINE && !is_whole => Err(JournalError::NotAnEntry {
            host,
            reason: format!("longer than {} MiB", LONGEST_LINE >> 20),
            text: String::from_utf8_lossy(&line[..120]).into_owned(),
        }),
        Ok(_) if is_whole => Ok(Some(String::from_utf8_lossy(&line).into_owned())),
        _ => Ok(None),
    }
}

/// The last line of what comes.
async fn last(mut complaint: impl AsyncRead + Unpin) -> String {
    let (mut kept, mut chunk) = (Vec::new(), [0; 1024]);
    while let Ok(read @ 1..) = complaint.read(&mut chunk).await {
        kept.extend_from_slice(&chunk[..read]);
        let excess = kept.len().saturating_sub(COMPLAINT);
        kept.drain(..excess);
    }
    let text = String::from_utf8_lossy(&kept);
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.unwrap_or("no word of why").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURSOR: &str = "s=0b3c;i=1a2;b=77;m=9;t=64;x=ff";

    fn entry(message: &str) -> Entry {
        let line = format!(
            r#"{{"__CURSOR":"{CURSOR}","__REALTIME_TIMESTAMP":"1700000000000001","__MONOTONIC_TIMESTAMP":"9","MESSAGE":{message},"_SYSTEMD_UNIT":"drawbridge-api.service"}}"#
        );
        Entry::parse(&line).unwrap()
    }

    #[test]
    fn a_message_is_text_bytes_several_or_missing() {
        for (json, text) in [
            (r#""plain""#, Some("plain")),
            ("[27,91,50,74]", Some("\u{1b}[2J")),
            ("[255,65]", Some("\u{fffd}A")),
            (r#"["one",[116,119,111]]"#, Some("one\ntwo")),
            ("null", None),
        ] {
            assert_eq!(entry(json).text("MESSAGE").as_deref(), text, "{json}");
        }
        assert_eq!(entry("null").microseconds, 1_700_000_000_000_001);
        assert_eq!(entry("null").source(), "drawbridge-api.service");
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        for line in [
            "",
            "[]",
            "-- No entries --",
            r#"{"MESSAGE":"x"}"#,
            r#"{"__CURSOR":"a b","__REALTIME_TIMESTAMP":"1"}"#,
            r#"{"__CURSOR":"s=1","__REALTIME_TIMESTAMP":"soon"}"#,
        ] {
            assert!(Entry::parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn the_command_is_quoted_and_goes_on_behind_the_last_entry() {
        let query = Query {
            since: Some(OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap()),
            newest: Some(5),
            unit: Some("it's*".into()),
            is_following: true,
            is_whole: true,
        };
        let begun = "journalctl --quiet --no-pager --all --output=json '--unit=it'\\''s*' --follow";
        assert_eq!(
            query.command(None),
            format!("{begun} --since=@1700000000 --lines=5")
        );
        let cursor = Cursor(CURSOR.into());
        assert_eq!(
            query.command(Some(&cursor)),
            format!("{begun} '--after-cursor={CURSOR}' --lines=all")
        );
        let plain = Query::default().command(None);
        assert!(plain.contains("--output-fields=MESSAGE,"), "{plain}");
        assert!(plain.ends_with("--lines=all"), "{plain}");
    }
}
