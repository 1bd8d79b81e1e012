//! The pool of connections that requests share.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bb8::ErrorSink;
use diesel::ConnectionError;
use diesel_async::{
    AsyncPgConnection,
    pooled_connection::{
        AsyncDieselConnectionManager, ManagerConfig, PoolError, PoolableConnection,
        RecyclingMethod,
        bb8::{Pool, PooledConnection},
    },
};

use super::{ConnectError, Connector, DbError};
use crate::config::DatabaseSettings;
use crate::error_chain::chain;
use crate::metrics::{Metrics, PoolConnections};

/// The same complaint is repeated at most this often: a database that is away fails every attempt of every request.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// One checked-out connection; it goes back to the pool on drop.
pub type Connection<'a> = PooledConnection<'a, AsyncPgConnection>;

/// The database, as request handlers see it. Cloning shares the pool.
#[derive(Clone)]
pub struct Database {
    pool: Pool<AsyncPgConnection>,
    is_migrated: Arc<AtomicBool>,
    limit: Duration,
    metrics: Metrics,
}

impl Database {
    /// Prepares the pool; connects when the first request needs it. `metrics` is told how the pool does.
    ///
    /// # Errors
    /// [`ConnectError::CaFile`].
    pub fn open(settings: &DatabaseSettings, metrics: Metrics) -> Result<Self, ConnectError> {
        let connector = Connector::new(settings, Some(settings.statement_timeout()))?;
        let mut manager = ManagerConfig::default();
        manager.custom_setup = Box::new(move |_| {
            let connector = connector.clone();
            Box::pin(async move {
                let connected = connector.connect().await;
                connected.map_err(|error| ConnectionError::BadConnection(chain(&error)))
            })
        });
        // A connection that died while idle is dropped instead of handed out, without a round trip to ask it.
        manager.recycling_method = RecyclingMethod::CustomFunction(Box::new(|connection| {
            let is_dead = PoolableConnection::is_broken(connection);
            Box::pin(async move {
                if is_dead {
                    return Err(diesel::result::Error::BrokenTransactionManager);
                }
                Ok(())
            })
        }));
        let pool = Pool::builder()
            .max_size(settings.pool_size)
            .connection_timeout(settings.connect_timeout())
            .test_on_check_out(true)
            .error_sink(Box::new(Complaints::default()))
            .build_unchecked(AsyncDieselConnectionManager::new_with_config("", manager));
        metrics.watch_pool({
            let pool = pool.clone();
            move || {
                let state = pool.state();
                PoolConnections {
                    idle: state.idle_connections,
                    busy: state.connections.saturating_sub(state.idle_connections),
                }
            }
        });
        Ok(Self {
            pool,
            is_migrated: Arc::new(AtomicBool::new(false)),
            limit: settings.connect_timeout(),
            metrics,
        })
    }

    /// From now on [`Self::connection`] hands out connections: the schema is in place.
    pub fn mark_migrated(&self) {
        self.is_migrated.store(true, Ordering::Release);
    }

    /// A connection, waited for at most `database.connect_timeout_seconds`.
    ///
    /// # Errors
    /// [`DbError::NotMigrated`] until [`Self::mark_migrated`], [`DbError::NoConnection`].
    pub async fn connection(&self) -> Result<Connection<'_>, DbError> {
        if !self.is_migrated.load(Ordering::Acquire) {
            return Err(DbError::NotMigrated);
        }
        let started = Instant::now();
        let got = self.pool.get().await;
        self.metrics.pool_wait(started.elapsed());
        got.map_err(|_| DbError::NoConnection(self.limit))
    }

    /// Asks the database the smallest question there is.
    ///
    /// # Errors
    /// As [`Self::connection`], or [`DbError::Interrupted`] when no answer came within `limit`.
    pub async fn check(&self, limit: Duration) -> Result<(), DbError> {
        let ask = async {
            let mut connection = self.connection().await?;
            super::ping::ping(&mut connection).await
        };
        match tokio::time::timeout(limit, ask).await {
            Ok(outcome) => outcome,
            Err(_) => Err(DbError::NoConnection(limit)),
        }
    }
}

/// Logs why the pool cannot connect, which its own error ("timed out") does not say.
#[derive(Debug, Clone, Default)]
struct Complaints(Arc<Mutex<Option<(String, Instant)>>>);

impl ErrorSink<PoolError> for Complaints {
    fn sink(&self, error: PoolError) {
        let text = match &error {
            PoolError::QueryError(_) => "a pooled connection had died and was dropped".to_owned(),
            PoolError::ConnectionError(error) => chain(error),
        };
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = last
            .as_ref()
            .is_none_or(|(said, at)| *said != text || at.elapsed() >= COMPLAINT_INTERVAL);
        if is_news {
            tracing::warn!("{text}");
            *last = Some((text, Instant::now()));
        }
    }

    fn boxed_clone(&self) -> Box<dyn ErrorSink<PoolError>> {
        Box::new(self.clone())
    }
}
