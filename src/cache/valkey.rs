//! Answers that several processes share, in Valkey (or Redis, 6.2 or newer).
//!
//! The rule of `cache.rs` holds across processes, because each generation is a word kept in Valkey:
//!
//! - An answer carries the words it was loaded under, its scope's *generation* and the *epoch* of all, and is used only
//!   while both stand. Words are never used twice, so one that Valkey has lost (evicted, restarted, flushed) takes its
//!   answers with it.
//! - A write sets a new generation before it is acknowledged.
//! - What cannot be reached cannot be told of a write. So the epoch lives for [`LEASE`] and every process renews it while
//!   Valkey answers in time; a write that Valkey cannot be told of is acknowledged only when Valkey was away for longer
//!   than that. An outage ends the epoch, and whatever was kept before it, by Valkey's own clock: also for a process that
//!   noticed nothing.
//! - Each new connection begins with a new epoch, for a Valkey that came back with an older state of its own.
//!
//! What it cannot hold: if one process alone is cut off from Valkey, the others may use what that one has written over,
//! until it is back or the answer's time is over.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use poem::http::HeaderValue;
use redis::{Pipeline, Script};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    Entry, Key, Scope,
    kept::Stamp,
    link::{LEASE, LIMIT, Link, State, Trouble, milliseconds, token},
};
use crate::config::CacheSettings;

/// How long a generation is remembered that nobody asks for; when it is forgotten, what it marked is loaded anew.
const GENERATION: Duration = Duration::from_secs(3600);

/// Over the lease: the attempts to reach Valkey that a stop of just that long leaves room for.
const SLACK: Duration = Duration::from_millis(300);

/// The words there are, and new ones for those that are missing.
const BEGIN: &str = "
    local epoch = redis.call('GET', KEYS[1])
    if not epoch then epoch = ARGV[1]; redis.call('SET', KEYS[1], epoch, 'PX', ARGV[2]) end
    local generation = redis.call('GET', KEYS[2])
    if not generation then generation = ARGV[1]; redis.call('SET', KEYS[2], generation, 'PX', ARGV[3]) end
    return {epoch, generation}";

/// Keeps an answer if the words it was loaded under still stand.
const PUT: &str = "
    if redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('GET', KEYS[2]) == ARGV[2] then
        redis.call('SET', KEYS[3], ARGV[3], 'PX', ARGV[4])
    end";

/// What Valkey has of a key.
pub(super) enum Look {
    Kept(Entry),
    /// Nothing; what is loaded now is to be kept under this.
    Nothing(Stamp),
}

/// The shared answers.
pub(super) struct Valkey {
    link: Link,
    lifetime: Duration,
    /// Stands in the names of answers: servers of another version have other ones.
    version: String,
    begin: Script,
    put: Script,
}

const EPOCH: &str = "drawbridge:epoch";

impl Valkey {
    /// `version` changes with the shape of the answers.
    pub(super) fn open(client: redis::Client, settings: &CacheSettings, version: &str) -> Self {
        Self {
            link: Link::open(client, EPOCH.to_owned()),
            lifetime: settings.lifetime(),
            version: digest(version),
            begin: Script::new(BEGIN),
            put: Script::new(PUT),
        }
    }

    /// Whether it answers.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.link.state(), State::Up(_))
    }

    /// What there is under `key`.
    pub(super) async fn look(&self, key: &Key) -> Result<Look, Trouble> {
        let State::Up(connection) = self.link.state() else {
            return Err(Trouble::Away);
        };
        let (generation, answer) = (self.generation(key.scope), self.answer(key));
        let look = redis::cmd("MGET")
            .arg(EPOCH)
            .arg(&generation)
            .arg(&answer)
            .to_owned();
        let mut channel = connection.channel();
        let asked = look.query_async::<[Option<Bytes>; 3]>(&mut channel);
        let [epoch, number, found] = self.link.ask(&connection, asked).await?;
        if let (Some(epoch), Some(number)) = (epoch.as_deref(), number.as_deref())
            && let (Some(epoch), Some(number)) = (word(epoch), word(number))
        {
            let stamp = Stamp(epoch, number);
            return Ok(match found.and_then(|text| read(stamp, text)) {
                Some(entry) => Look::Kept(entry),
                None => Look::Nothing(stamp),
            });
        }
        let mut begin = self.begin.key(EPOCH);
        begin
            .key(&generation)
            .arg(token())
            .arg(milliseconds(LEASE))
            .arg(milliseconds(GENERATION));
        let asked = begin.invoke_async::<[Bytes; 2]>(&mut channel);
        let [epoch, number] = self.link.ask(&connection, asked).await?;
        match (word(&epoch), word(&number)) {
            (Some(epoch), Some(number)) => Ok(Look::Nothing(Stamp(epoch, number))),
            // Somebody else's keys.
            _ => Err(Trouble::Away),
        }
    }

    /// Keeps what was loaded under `stamp`. If that fails, it is not kept.
    pub(super) async fn put(&self, key: &Key, stamp: Stamp, entry: &Entry) {
        let State::Up(connection) = self.link.state() else {
            return;
        };
        let mut put = self.put.key(EPOCH);
        put.key(self.generation(key.scope))
            .key(self.answer(key))
            .arg(stamp.0.to_be_bytes().to_vec())
            .arg(stamp.1.to_be_bytes().to_vec())
            .arg(write(stamp, entry))
            .arg(milliseconds(self.lifetime));
        let mut channel = connection.channel();
        let asked = put.invoke_async::<()>(&mut channel);
        if let Err(trouble) = self.link.ask(&connection, asked).await {
            tracing::debug!("an answer was not kept: {trouble}");
        }
    }

    /// Nothing loaded before now is used after this returns. See above for what it waits.
    pub(super) async fn invalidate(&self, scopes: &[Scope]) {
        let mut changes = self.link.changes();
        let mut has_knocked = false;
        // Only a Valkey that takes the epoch and refuses the rest lets it come to this.
        let limit = Instant::now() + 2 * (LEASE + SLACK);
        while Instant::now() < limit {
            let state = changes.borrow_and_update().clone();
            match state {
                State::Up(connection) => {
                    let mut set = redis::pipe();
                    for scope in scopes {
                        self.renew(&mut set, *scope);
                    }
                    let mut channel = connection.channel();
                    let asked = set.query_async::<()>(&mut channel);
                    if self.link.ask(&connection, asked).await.is_ok() {
                        return;
                    }
                    // The keeper says so next.
                    let _ = timeout(LIMIT, changes.changed()).await;
                }
                State::Down(since) => {
                    let end = since + LEASE + SLACK;
                    if Instant::now() < end {
                        let _ = timeout_at(end, changes.changed()).await;
                    } else if !has_knocked {
                        // It may be back: the others would use it by now.
                        has_knocked = true;
                        self.link.knock();
                        let _ = timeout(2 * LIMIT, changes.changed()).await;
                    } else {
                        return;
                    }
                }
            }
        }
    }

    fn renew(&self, pipeline: &mut Pipeline, scope: Scope) {
        pipeline
            .cmd("SET")
            .arg(self.generation(scope))
            .arg(token())
            .arg("PX")
            .arg(milliseconds(GENERATION))
            .ignore();
    }

    fn generation(&self, scope: Scope) -> String {
        match scope.id {
            Some(id) => format!("drawbridge:generation:{}:{id}", scope.resource),
            None => format!("drawbridge:generation:{}", scope.resource),
        }
    }

    fn answer(&self, key: &Key) -> String {
        let (version, resource) = (&self.version, key.scope.resource);
        match (key.scope.id, &key.page) {
            (Some(id), None) => format!("drawbridge:answer:{version}:{resource}:{id}"),
            (_, page) => format!(
                "drawbridge:answer:{version}:{resource}?{}",
                page.as_deref().unwrap_or_default()
            ),
        }
    }
}

/// 64 bits of the text's SHA-256, in hexadecimal.
fn digest(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let bytes = digest.as_ref().iter().take(8);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

fn word(bytes: &[u8]) -> Option<u128> {
    bytes.try_into().ok().map(u128::from_be_bytes)
}

/// Both words, then each header with its length before it, then the body.
fn write(stamp: Stamp, entry: &Entry) -> Vec<u8> {
    let mut text = BytesMut::with_capacity(64 + entry.body.len());
    text.put_u128(stamp.0);
    text.put_u128(stamp.1);
    for header in [&entry.etag, &entry.link] {
        // A header longer than 64 KiB no client takes.
        let bytes = header.as_ref().map_or(&[][..], HeaderValue::as_bytes);
        let (length, bytes) = match u16::try_from(bytes.len()) {
            Ok(length) => (length, bytes),
            Err(_) => (0, &[][..]),
        };
        text.put_u16(length);
        text.put_slice(bytes);
    }
    text.put_slice(&entry.body);
    text.to_vec()
}

/// The answer in `text`, if it was written under `stamp`.
fn read(stamp: Stamp, mut text: Bytes) -> Option<Entry> {
    let mut take = |length: usize| (length <= text.len()).then(|| text.split_to(length));
    if word(&take(16)?)? != stamp.0 || word(&take(16)?)? != stamp.1 {
        return None;
    }
    let mut header = || {
        let length = u16::from_be_bytes(take(2)?.as_ref().try_into().ok()?);
        let bytes = take(length.into())?;
        match bytes.is_empty() {
            true => Some(None),
            false => HeaderValue::from_maybe_shared(bytes).ok().map(Some),
        }
    };
    let (etag, link) = (header()?, header()?);
    Some(Entry {
        body: text,
        etag,
        link,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_it_was_written_and_only_under_its_words() {
        let stamp = Stamp(7, u128::MAX);
        for etag in [None, Some(HeaderValue::from_static("\"1\""))] {
            let entry = Entry {
                body: Bytes::from_static(b"{}"),
                etag,
                link: Some(HeaderValue::from_static("</items>; rel=\"next\"")),
            };
            let text = Bytes::from(write(stamp, &entry));
            assert_eq!(read(stamp, text.clone()), Some(entry));
            assert_eq!(read(Stamp(8, stamp.1), text.clone()), None);
            assert_eq!(read(Stamp(7, 0), text.clone()), None);
            for end in 0..60.min(text.len() - 2) {
                assert_eq!(read(stamp, text.slice(..end)), None, "{end}");
            }
        }
    }
}
