//! Accepts connections: as many as there is room for, and never in a spin.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use poem::{Addr, Endpoint, Response, web::RemoteAddr};
use tokio::{
    io::DuplexStream,
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    connection::{self, Shared},
    door::Door,
};
use crate::metrics::Metrics;

/// Connections beyond `http.max_connections` that are still accepted, for one answer each: a 503, or how the server is if
/// that is asked. Whoever stands in front learns at once that it is full and not dead. Beyond these, connections wait in
/// the kernel's queue; each of these ends within `http.header_timeout_seconds` and its request's time.
const CROWD: usize = 64;

/// Without files there are no connections, and whoever asks again at once has none either: the processor would burn.
const BACK_OFF: Duration = Duration::from_millis(50);

/// The same complaint is repeated at most this often.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// Connections of the process with itself: the watchdog's questions go the way that requests go.
pub type Inside = mpsc::Receiver<DuplexStream>;

/// Accepts and serves.
pub struct Acceptor<E> {
    listener: TcpListener,
    shared: Arc<Shared<E>>,
    places: Arc<Semaphore>,
    door: watch::Receiver<Door>,
    inside: Inside,
    metrics: Metrics,
    complained: Option<Instant>,
}

impl<E: Endpoint<Output = Response> + 'static> Acceptor<E> {
    /// Of at most `max_connections` (`http.max_connections`) at once.
    pub fn new(
        listener: TcpListener,
        shared: Shared<E>,
        max_connections: usize,
        door: watch::Receiver<Door>,
        inside: Inside,
        metrics: Metrics,
    ) -> Self {
        Self {
            listener,
            shared: Arc::new(shared),
            places: Arc::new(Semaphore::new(max_connections + CROWD)),
            door,
            inside,
            metrics,
            complained: None,
        }
    }

    /// Serves until the door is [`Door::Ending`] and all connections have ended. Dropped, it cuts them.
    pub async fn run(mut self) {
        let mut connections = JoinSet::new();
        let mut door = self.door.clone();
        // An error means that nobody can move the door any more: it stays as it is.
        drop(door.wait_for(|door| *door >= Door::Open).await);
        loop {
            tokio::select! {
                biased;
                _ = door.wait_for(|door| *door >= Door::Closed) => break,
                Some(_) = connections.join_next() => {}
                Some(io) = self.inside.recv() => {
                    let peer = SocketAddr::from((IpAddr::from(Ipv4Addr::LOCALHOST), 0));
                    self.serve(&mut connections, io, peer, None, false);
                }
                (stream, peer, place) = next(&self.listener, &self.places, &mut self.complained) => {
                    // Small answers would wait for the acknowledgement of the one before. It fails on a dead connection
                    // only.
                    drop(stream.set_nodelay(true));
                    let is_crowded = self.places.available_permits() < CROWD;
                    if is_crowded {
                        let what = "as many connections as http.max_connections allows; further ones are answered 503";
                        complain(&mut self.complained, what);
                    }
                    self.serve(&mut connections, stream, peer, Some(place), is_crowded);
                }
            }
        }
        drop(self.listener);
        drop(door.wait_for(|door| *door == Door::Ending).await);
        while connections.join_next().await.is_some() {}
    }

    fn serve(
        &self,
        connections: &mut JoinSet<()>,
        io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        peer: SocketAddr,
        place: Option<OwnedSemaphorePermit>,
        is_crowded: bool,
    ) {
        let peer = RemoteAddr(Addr::from(peer));
        let held = place.map(|place| (place, self.metrics.connection()));
        let served =
            connection::serve(self.shared.clone(), io, peer, is_crowded, self.door.clone());
        connections.spawn(async move {
            served.await;
            drop(held);
        });
    }
}

/// The next connection, once there is a place for it.
async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    complained: &mut Option<Instant>,
) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    // Nobody closes the semaphore.
    let Ok(place) = places.clone().acquire_owned().await else {
        return std::future::pending().await;
    };
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, place),
            // That connection is gone; the next one may be well.
            Err(error) if is_of_one_connection(&error) => {}
            // EMFILE, ENFILE, ENOBUFS, ENOMEM: it gets better when something ends.
            Err(error) => {
                complain(complained, &format!("cannot accept connections: {error}"));
                sleep(BACK_OFF).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

fn complain(complained: &mut Option<Instant>, what: &str) {
    if complained.is_none_or(|at| at.elapsed() >= COMPLAINT_INTERVAL) {
        tracing::warn!("{what}");
        *complained = Some(Instant::now());
    }
}
