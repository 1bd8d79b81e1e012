//! The database, as request handlers see it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use diesel_async::AsyncPgConnection;

use super::{
    ConnectError, Connection, Connector, DbError, Lsn, Pool, Reader, Standing, Written, ask,
    link::Link,
    reader::{Length, Readers},
    recent::RecentWrites,
    replica::{self, Replica, Watched},
};
use crate::config::DatabaseSettings;
use crate::metrics::Metrics;

/// The database. Cloning shares its connections.
#[derive(Clone)]
pub struct Database(Arc<Inner>);

struct Inner {
    is_migrated: AtomicBool,
    metrics: Metrics,
    writes: Pool,
    primary: Readers,
    replica: Option<Replica>,
    recent: RecentWrites,
}

impl Database {
    /// Prepares the connections; each is made when the first request needs it. `metrics` is told how the ones to write
    /// with do, and the replica.
    ///
    /// # Errors
    /// [`ConnectError::CaFile`].
    pub fn open(settings: &DatabaseSettings, metrics: Metrics) -> Result<Self, ConnectError> {
        let limit = Some(settings.statement_timeout());
        let link = Link::new(Connector::new(settings, limit)?);
        let replica = match &settings.replica_url {
            Some(url) => {
                let link = Link::new(Connector::to_replica(settings, url, limit)?);
                let readers = Readers::new(link, settings);
                let max_lag = settings.replica_max_lag();
                Some(Replica::new(readers, max_lag, metrics.clone()))
            }
            None => None,
        };
        let writes = Pool::new(&link, settings.pool_size, settings);
        metrics.watch_pool({
            let writes = writes.clone();
            move || writes.connections()
        });
        Ok(Self(Arc::new(Inner {
            is_migrated: AtomicBool::new(false),
            metrics,
            writes,
            primary: Readers::new(link, settings),
            replica,
            recent: RecentWrites::default(),
        })))
    }

    /// From now on connections are handed out: the schema is in place. Needs a tokio runtime: the replica is watched
    /// from now on, until the last clone of this is dropped.
    pub fn mark_migrated(&self) {
        if self.0.replica.is_some() {
            // The replica has the schema once it has everything up to now.
            self.0.recent.note_unknown();
            tokio::spawn(replica::watch(Arc::downgrade(&self.0)));
        }
        self.0.is_migrated.store(true, Ordering::Release);
    }

    fn check_migrated(&self) -> Result<(), DbError> {
        if self.0.is_migrated.load(Ordering::Acquire) {
            Ok(())
        } else {
            Err(DbError::NotMigrated)
        }
    }

    /// A connection of one's own to the server that accepts writes, waited for at most
    /// `database.connect_timeout_seconds`.
    ///
    /// # Errors
    /// [`DbError::NotMigrated`] until [`Self::mark_migrated`]; [`DbError::Unreachable`], at once where that is known;
    /// [`DbError::NoConnection`].
    pub async fn connection(&self) -> Result<Connection, DbError> {
        self.check_migrated()?;
        let started = Instant::now();
        let got = self.0.writes.get().await;
        self.0.metrics.pool_wait(started.elapsed());
        got
    }

    /// A connection for reads of one row by its key. Anything that may take longer belongs to [`Self::page_reader`] or
    /// [`Self::search_reader`], or it holds others up. It leads to the replica if that has `at_least`, what
    /// [`Self::newest_write`] said for this read.
    ///
    /// # Errors
    /// As [`Self::connection`].
    pub async fn reader(&self, at_least: Option<Lsn>) -> Result<Reader, DbError> {
        self.read(Length::Point, at_least).await
    }

    /// As [`Self::reader`], for reads of one page in the order of an index.
    ///
    /// # Errors
    /// As [`Self::connection`].
    pub async fn page_reader(&self, at_least: Option<Lsn>) -> Result<Reader, DbError> {
        self.read(Length::Page, at_least).await
    }

    /// As [`Self::reader`], for reads whose cost depends on the data.
    ///
    /// # Errors
    /// As [`Self::connection`].
    pub async fn search_reader(&self, at_least: Option<Lsn>) -> Result<Reader, DbError> {
        self.read(Length::Search, at_least).await
    }

    async fn read(&self, length: Length, at_least: Option<Lsn>) -> Result<Reader, DbError> {
        self.check_migrated()?;
        if let Some(replica) = &self.0.replica
            && let Some(reader) = replica.reader(length, at_least).await
        {
            return Ok(reader);
        }
        self.0.primary.get(length).await
    }

    /// Remembers that something was written, so that no read that asks for one of `keys` is older. To be called after
    /// the commit, with the connection that was used; before the answer, and before caches are told.
    pub async fn note_write(&self, connection: &mut AsyncPgConnection, keys: &[Written]) {
        if self.0.replica.is_none() {
            return;
        }
        match ask::newest(connection).await {
            Ok(position) => self.0.recent.note(keys, position),
            Err(_) => self.0.recent.note_unknown(),
        }
    }

    /// What a read must have seen that concerns `keys`: the caller's session, the row, the list.
    pub fn newest_write(&self, keys: &[Written]) -> Option<Lsn> {
        self.0.replica.as_ref()?;
        self.0.recent.newest(keys)
    }

    /// Asks the server that accepts writes the smallest question there is.
    ///
    /// # Errors
    /// As [`Self::connection`], or [`DbError::NoConnection`] when no answer came within `limit`.
    pub async fn check(&self, limit: Duration) -> Result<(), DbError> {
        self.check_migrated()?;
        let ask = async {
            let reader = self.0.primary.get(Length::Point).await?;
            ask::ping(reader.connection()).await
        };
        match tokio::time::timeout(limit, ask).await {
            Ok(outcome) => outcome,
            Err(_) => Err(DbError::NoConnection(limit)),
        }
    }

    /// How the replica does; `None`: there is none.
    pub fn replica(&self) -> Option<Standing> {
        self.0.replica.as_ref().map(Replica::standing)
    }
}

impl Watched for Inner {
    fn primary(&self) -> &Readers {
        &self.primary
    }
    fn replica(&self) -> Option<&Replica> {
        self.replica.as_ref()
    }
    fn writes(&self) -> &RecentWrites {
        &self.recent
    }
}
