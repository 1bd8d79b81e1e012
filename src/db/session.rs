//! One session with Postgres, and what is known of it without asking it.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::Poll,
};

use diesel::{
    ConnectionResult,
    connection::{Instrumentation, InstrumentationEvent},
};
use diesel_async::pooled_connection::PoolableConnection;
use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use tokio_postgres::{Socket, tls::TlsStream};

use super::ends_session;

/// A logged-in session. Dropping it ends it, once what it runs has ended.
pub struct Session {
    connection: AsyncPgConnection,
    health: Arc<Health>,
}

#[derive(Debug, Default)]
struct Health {
    /// Whether nobody may use it any more: its connection has ended, or it refuses writes.
    is_spent: AtomicBool,
    /// Statements sent and not answered.
    running: AtomicU32,
}

impl Session {
    pub(super) async fn new<S>(
        client: tokio_postgres::Client,
        connection: tokio_postgres::Connection<Socket, S>,
    ) -> ConnectionResult<Self>
    where
        S: TlsStream + Unpin + Send + 'static,
    {
        let health = Arc::<Health>::default();
        tokio::spawn(drive(connection, Arc::clone(&health)));
        let mut connection = AsyncPgConnection::try_from(client).await?;
        connection.set_instrumentation(Watch(Arc::clone(&health)));
        Ok(Self { connection, health })
    }

    /// For statements that may be sent while others are on their way: reads, each by itself.
    pub fn shared(&self) -> &AsyncPgConnection {
        &self.connection
    }

    /// For anything else.
    pub fn exclusive(&mut self) -> &mut AsyncPgConnection {
        &mut self.connection
    }

    /// For somebody who needs nothing but the connection.
    pub fn into_connection(self) -> AsyncPgConnection {
        self.connection
    }

    /// Whether it may be used.
    pub fn is_usable(&self) -> bool {
        !self.health.is_spent.load(Ordering::Acquire)
    }

    /// From now on nobody uses it any more.
    pub(super) fn spend(&self) {
        self.health.is_spent.store(true, Ordering::Release);
    }

    /// Whether a statement was sent whose answer nobody waited for. Of a session that one user has at a time: on a shared one,
    /// statements are always on their way.
    pub(super) fn is_busy(&self) -> bool {
        self.health.running.load(Ordering::Acquire) > 0
    }

    /// Whether a transaction is open, or its end unknown.
    pub(super) fn is_in_transaction(&mut self) -> bool {
        PoolableConnection::is_broken(&mut self.connection)
    }

    /// Returns once everything that was sent before has been answered.
    pub(super) async fn settle(&self) {
        // An error is an end as well.
        let _ = (&mut self.shared()).batch_execute("").await;
    }
}

/// Counts statements, and reads their errors: Postgres says that it ends a session before it does, and whoever comes in
/// between must not get it.
struct Watch(Arc<Health>);

impl Instrumentation for Watch {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        match event {
            InstrumentationEvent::StartQuery { .. } => {
                self.0.running.fetch_add(1, Ordering::AcqRel);
            }
            InstrumentationEvent::FinishQuery { error, .. } => {
                self.0.running.fetch_sub(1, Ordering::AcqRel);
                if error.is_some_and(ends_session) {
                    self.0.is_spent.store(true, Ordering::Release);
                }
            }
            _ => {}
        }
    }
}

/// Moves the session's bytes until it ends. Postgres (14 and newer) says by itself when a running session begins to
/// refuse writes, as one does whose server hands its role over: what it reads may be old soon, so it is spent as well.
async fn drive<S>(mut connection: tokio_postgres::Connection<Socket, S>, health: Arc<Health>)
where
    S: TlsStream + Unpin + Send + 'static,
{
    let was_read_only = is_read_only(&connection);
    let end = poll_fn(|context| {
        loop {
            match connection.poll_message(context) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(error)),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => break,
            }
        }
        if !was_read_only && is_read_only(&connection) {
            health.is_spent.store(true, Ordering::Release);
        }
        Poll::Pending
    });
    let end = end.await;
    health.is_spent.store(true, Ordering::Release);
    if let Some(error) = end {
        tracing::debug!("a session with the database ended: {error}");
    }
}

fn is_read_only<S>(connection: &tokio_postgres::Connection<Socket, S>) -> bool
where
    S: TlsStream + Unpin,
{
    connection.parameter("default_transaction_read_only") == Some("on")
}
