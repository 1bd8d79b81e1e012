//! The replica: what it has, and whether reads may go there.

use std::{
    collections::VecDeque,
    sync::{
        Weak,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::time::timeout;
use tracing::{info, warn};

use super::{
    DbError, Lsn, Reader, ask,
    reader::{Length, Readers},
    recent::RecentWrites,
};
use crate::metrics::Metrics;

/// Between two looks at what the replica has. It bounds how long a session's reads stay away from a replica that has
/// had its write for long.
const INTERVAL: Duration = Duration::from_millis(500);

/// For one look at one server; a server that takes longer is as good as away.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// How reads can use the replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Standing {
    /// It cannot be reached, or is no replica (any more).
    Gone = 0,
    /// What it has is older than `database.replica_max_lag_seconds`.
    Behind = 1,
    /// Reads go there.
    Follows = 2,
}

pub(super) struct Replica {
    readers: Readers,
    standing: AtomicU8,
    /// An [`Lsn`].
    replayed: AtomicU64,
    max_lag: Duration,
    metrics: Metrics,
}

impl Replica {
    pub fn new(readers: Readers, max_lag: Duration, metrics: Metrics) -> Self {
        Self {
            readers,
            standing: AtomicU8::new(Standing::Gone as u8),
            replayed: AtomicU64::new(0),
            max_lag,
            metrics,
        }
    }

    pub fn standing(&self) -> Standing {
        match self.standing.load(Ordering::Acquire) {
            2 => Standing::Follows,
            1 => Standing::Behind,
            _ => Standing::Gone,
        }
    }

    /// A connection to it, if it has `at_least` and can be reached.
    pub async fn reader(&self, length: Length, at_least: Option<Lsn>) -> Option<Reader> {
        let has_it = at_least.is_none_or(|at| at.0 <= self.replayed.load(Ordering::Acquire));
        if !has_it || self.standing() != Standing::Follows {
            return None;
        }
        self.readers.get(length).await.ok()
    }

    fn set(&self, standing: Standing, why: &str) {
        let before = self.standing();
        if before == standing {
            return;
        }
        self.standing.store(standing as u8, Ordering::Release);
        let address = self.readers.address();
        match standing {
            Standing::Follows => info!("reads go to the replica at {address}"),
            _ => warn!("reads go to the primary: the replica at {address} {why}"),
        }
    }
}

/// What is behind the watcher's back: it ends when this is gone.
pub(super) trait Watched: Send + Sync + 'static {
    fn primary(&self) -> &Readers;
    fn replica(&self) -> Option<&Replica>;
    fn writes(&self) -> &RecentWrites;
}

/// Looks at both servers again and again, until `watched` is gone.
pub(super) async fn watch<W: Watched>(watched: Weak<W>) {
    let mut history = History::default();
    loop {
        let Some(watched) = watched.upgrade() else {
            return;
        };
        look(&*watched, &mut history).await;
        drop(watched);
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn look<W: Watched>(watched: &W, history: &mut History) {
    let Some(replica) = watched.replica() else {
        return;
    };
    // The primary first, so that a replica that keeps up is never seen to be behind.
    let writes = watched.writes();
    let is_unknown = writes.is_unknown();
    let looked_at = Instant::now();
    let newest = bounded(async {
        let reader = watched.primary().get(Length::Point).await?;
        ask::newest(reader.connection()).await
    })
    .await;
    if let Ok(newest) = newest {
        history.wrote(newest, looked_at, replica.max_lag);
        if is_unknown {
            writes.learn(newest);
        }
    }
    let replayed = bounded(async {
        let reader = replica.readers.get(Length::Point).await?;
        ask::replayed(reader.connection()).await
    })
    .await;
    match replayed {
        Ok(Some(replayed)) => {
            let lag = history.replayed(replayed, Instant::now());
            writes.forget(replayed);
            replica.replayed.store(replayed.0, Ordering::Release);
            let lag_bytes = newest.map(|newest| newest.0.saturating_sub(replayed.0));
            replica.metrics.replica_lag(lag_bytes.ok());
            if lag > replica.max_lag {
                replica.set(Standing::Behind, "is too far behind");
            } else {
                replica.set(Standing::Follows, "");
            }
        }
        outcome => {
            replica.metrics.replica_lag(None);
            let why = match outcome {
                Ok(_) => "is no replica",
                Err(_) => "cannot be reached",
            };
            replica.set(Standing::Gone, why);
        }
    }
}

async fn bounded<T>(look: impl Future<Output = Result<T, DbError>>) -> Result<T, DbError> {
    timeout(LOOK_LIMIT, look)
        .await
        .unwrap_or(Err(DbError::NoConnection(LOOK_LIMIT)))
}

/// When the primary's log ended where: what the replica's position means in time, with one clock.
#[derive(Debug)]
struct History {
    ends: VecDeque<(Instant, Lsn)>,
    /// The replica has everything from before this moment.
    has_all_before: Instant,
}

impl Default for History {
    fn default() -> Self {
        Self {
            ends: VecDeque::new(),
            has_all_before: Instant::now(),
        }
    }
}

impl History {
    fn wrote(&mut self, end: Lsn, at: Instant, max_lag: Duration) {
        // Nobody asks how far behind it is beyond that; without the later ends it is taken to be further behind until
        // it has the ones that are kept.
        let enough = max_lag.as_millis() / INTERVAL.as_millis() + 2;
        if (self.ends.len() as u128) < enough {
            self.ends.push_back((at, end));
        }
    }

    /// How old at most is, at `now`, what the replica has.
    fn replayed(&mut self, replayed: Lsn, now: Instant) -> Duration {
        while let Some((at, end)) = self.ends.front()
            && *end <= replayed
        {
            self.has_all_before = *at;
            self.ends.pop_front();
        }
        now.duration_since(self.has_all_before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_as_old_as_the_oldest_end_it_has_not_replayed() {
        let mut history = History::default();
        let second = Duration::from_secs(1);
        let limit = second * 10;
        let begin = Instant::now();
        history.wrote(Lsn(10), begin, limit);
        assert_eq!(history.replayed(Lsn(10), begin), Duration::ZERO);
        for count in 1..=3 {
            history.wrote(Lsn(10 + u64::from(count)), begin + second * count, limit);
        }
        let now = begin + second * 3;
        assert_eq!(history.replayed(Lsn(10), now), second * 3);
        assert_eq!(history.replayed(Lsn(12), now), second);
        assert_eq!(history.replayed(Lsn(13), now), Duration::ZERO);
        // Without news of the primary it grows older.
        assert_eq!(history.replayed(Lsn(13), now + second), second);
        for _ in 0..1000 {
            history.wrote(Lsn(20), now, limit);
        }
        assert!(history.ends.len() < 100);
    }
}
