//! Connections that one request has for itself: for writes, transactions, and reads that may take long.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
    time::{Duration, Instant},
};

use bb8::{ManageConnection, PooledConnection};
use diesel_async::AsyncPgConnection;
use tokio::runtime::Handle;

use super::{DbError, link::Link, session::Session};
use crate::config::DatabaseSettings;
use crate::metrics::PoolConnections;

/// A bounded number of connections to one server, made when they are needed. Cloning shares them.
#[derive(Clone)]
pub struct Pool {
    pool: bb8::Pool<Manager>,
    link: Arc<Link>,
    limit: Duration,
    statement_limit: Duration,
}

struct Manager(Arc<Link>);

impl ManageConnection for Manager {
    type Connection = Session;
    type Error = DbError;

    async fn connect(&self) -> Result<Session, DbError> {
        self.0.connect().await
    }

    // A session that ended while idle is dropped instead of handed out, without a round trip to ask it.
    async fn is_valid(&self, session: &mut Session) -> Result<(), DbError> {
        if session.is_usable() {
            Ok(())
        } else {
            Err(DbError::Unreachable)
        }
    }

    fn has_broken(&self, session: &mut Session) -> bool {
        !session.is_usable() || session.is_in_transaction()
    }
}

impl Pool {
    /// At most `size` connections; the first is made when the first request needs it.
    pub(super) fn new(link: &Arc<Link>, size: u32, settings: &DatabaseSettings) -> Self {
        let pool = bb8::Pool::builder()
            .max_size(size)
            .connection_timeout(settings.connect_timeout())
            .test_on_check_out(true)
            // The link does that, once for all.
            .retry_connection(false)
            .build_unchecked(Manager(Arc::clone(link)));
        Self {
            pool,
            link: Arc::clone(link),
            limit: settings.connect_timeout(),
            statement_limit: settings.statement_timeout(),
        }
    }

    /// A connection: an idle one, a new one, or one that somebody gives back within `database.connect_timeout_seconds`.
    ///
    /// # Errors
    /// [`DbError::Unreachable`] as soon as that is known, [`DbError::NoConnection`].
    pub(super) async fn get(&self) -> Result<Connection, DbError> {
        tokio::select! {
            biased;
            got = self.pool.get_owned() => match got {
                Ok(pooled) => Ok(Connection {
                    pooled: Some(pooled),
                    pool: self.clone(),
                    since: Instant::now(),
                }),
                Err(_) => Err(DbError::NoConnection(self.limit)),
            },
            () = self.link.goes_down() => Err(DbError::Unreachable),
        }
    }

    /// What its connections do.
    pub(super) fn connections(&self) -> PoolConnections {
        let state = self.pool.state();
        PoolConnections {
            idle: state.idle_connections,
            busy: state.connections.saturating_sub(state.idle_connections),
        }
    }
}

/// One checked-out connection. It goes back to the pool on drop, unless its state is not known for certain: a statement
/// still runs or a transaction is open, because the request was given up in the middle; the server may have cut a
/// statement short; the server refuses writes, or ended the session.
pub struct Connection {
    /// Some until it is dropped.
    pooled: Option<PooledConnection<'static, Manager>>,
    pool: Pool,
    since: Instant,
}

impl Deref for Connection {
    type Target = AsyncPgConnection;
    fn deref(&self) -> &AsyncPgConnection {
        match &self.pooled {
            Some(pooled) => pooled.shared(),
            None => unreachable!("it is taken out on drop only"),
        }
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut AsyncPgConnection {
        match &mut self.pooled {
            Some(pooled) => pooled.exclusive(),
            None => unreachable!("it is taken out on drop only"),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some(session) = self.pooled.take() else {
            return;
        };
        // Held that long, a statement on it may have been cut by Postgres' own limit.
        if self.since.elapsed() >= self.pool.statement_limit {
            session.spend();
        }
        if session.is_busy()
            && session.is_usable()
            && let Ok(runtime) = Handle::try_current()
        {
            let pool = self.pool.clone();
            runtime.spawn(async move { pool.wind_up(session).await });
        } else if session.is_busy() {
            session.spend();
        }
    }
}

impl Pool {
    /// Ends what an abandoned session runs. Until that has ended the session keeps its place in the pool: clients that
    /// come and go must not leave the server with more sessions than the pool may have.
    async fn wind_up(&self, session: PooledConnection<'static, Manager>) {
        let connector = self.link.connector();
        connector.cancel(session.shared().cancel_token()).await;
        // Past the server's own limit the connection itself is lost.
        let limit = self.statement_limit + self.limit;
        let _ = tokio::time::timeout(limit, session.settle()).await;
        session.spend();
    }
}
