//! Whether a server can be reached: learnt once, known to everybody.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tracing::{info, warn};

use super::{ConnectError, Connector, DbError, session::Session};
use crate::error_chain::chain;

/// Between two attempts to reach a server that could not be reached. With the time an attempt takes, it is back in use
/// a second or so after it is back.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);

/// The same complaint is repeated at most this often: a database that is away fails every attempt.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// The way to one server. After a connection could not be made nobody waits for another one: a task of its own tries
/// until one can be made again, and until then every request for one is refused at once.
pub struct Link {
    connector: Connector,
    is_down: watch::Sender<bool>,
    complaint: Mutex<Option<(String, Instant)>>,
}

impl Link {
    pub(super) fn new(connector: Connector) -> Arc<Self> {
        Arc::new(Self {
            connector,
            is_down: watch::Sender::new(false),
            complaint: Mutex::default(),
        })
    }

    pub(super) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Returns when it is down.
    pub(super) async fn goes_down(&self) {
        // An error is impossible: the sender is borrowed.
        let _ = self.is_down.subscribe().wait_for(|is_down| *is_down).await;
    }

    /// A new session, within `database.connect_timeout_seconds`.
    ///
    /// # Errors
    /// [`DbError::Unreachable`], at once where that is known.
    pub(super) async fn connect(self: &Arc<Self>) -> Result<Session, DbError> {
        tokio::select! {
            biased;
            () = self.goes_down() => Err(DbError::Unreachable),
            connected = self.connector.connect() => connected.map_err(|error| {
                self.complain(&error);
                if !self.is_down.send_replace(true) {
                    tokio::spawn(probe(Arc::downgrade(self)));
                }
                DbError::Unreachable
            }),
        }
    }

    fn complain(&self, error: &ConnectError) {
        let text = chain(error);
        let mut last = self
            .complaint
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let is_news = last
            .as_ref()
            .is_none_or(|(said, at)| *said != text || at.elapsed() >= COMPLAINT_INTERVAL);
        if is_news {
            warn!("{text}");
            *last = Some((text, Instant::now()));
        }
    }
}

/// Ends with the first success, or with the last user of the link.
async fn probe(link: Weak<Link>) {
    loop {
        tokio::time::sleep(PROBE_INTERVAL).await;
        let Some(link) = link.upgrade() else { return };
        match link.connector.connect().await {
            Ok(_) => {
                info!("the database at {} answers again", link.connector.address());
                link.is_down.send_replace(false);
                return;
            }
            Err(error) => link.complain(&error),
        }
    }
}
