//! Connections that all requests share: statements are sent as they come, and answered in that order.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{DbError, link::Link, session::Session};

/// A fixed number of shared connections to one server. Nobody waits for a free one, and a round trip carries the
/// statements of many requests; but a statement waits for those sent before it on the same connection, so each of them
/// must be short, and none may depend on another one: no transactions.
pub struct Lanes {
    link: Arc<Link>,
    lanes: Box<[Lane]>,
    next: AtomicUsize,
    limit: Duration,
}

#[derive(Default)]
struct Lane {
    session: RwLock<Option<Arc<Session>>>,
    /// Held by the one request that connects.
    turn: tokio::sync::Mutex<()>,
}

impl Lane {
    fn usable(&self) -> Option<Arc<Session>> {
        let session = self.session.read().unwrap_or_else(PoisonError::into_inner);
        session
            .as_ref()
            .filter(|session| session.is_usable())
            .cloned()
    }
}

impl Lanes {
    /// `count` connections, each made when the first request needs it; a request waits `limit` for that at most.
    pub(super) fn new(link: &Arc<Link>, count: usize, limit: Duration) -> Self {
        Self {
            link: Arc::clone(link),
            lanes: (0..count).map(|_| Lane::default()).collect(),
            next: AtomicUsize::new(0),
            limit,
        }
    }

    /// The next connection in turn.
    ///
    /// # Errors
    /// [`DbError::Unreachable`], at once where that is known; [`DbError::NoConnection`].
    pub(super) async fn get(&self) -> Result<Arc<Session>, DbError> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let lane = &self.lanes[turn % self.lanes.len()];
        match lane.usable() {
            Some(session) => Ok(session),
            None => self.connect(lane).await,
        }
    }

    /// One request connects; those that come meanwhile wait for the outcome, at most as long as it may take.
    async fn connect(&self, lane: &Lane) -> Result<Arc<Session>, DbError> {
        let connect = async {
            let _turn = tokio::select! {
                biased;
                () = self.link.goes_down() => return Err(DbError::Unreachable),
                turn = lane.turn.lock() => turn,
            };
            if let Some(session) = lane.usable() {
                return Ok(session);
            }
            let session = Arc::new(self.link.connect().await?);
            let mut place = lane.session.write().unwrap_or_else(PoisonError::into_inner);
            *place = Some(Arc::clone(&session));
            Ok(session)
        };
        tokio::time::timeout(self.limit, connect)
            .await
            .unwrap_or(Err(DbError::NoConnection(self.limit)))
    }
}
