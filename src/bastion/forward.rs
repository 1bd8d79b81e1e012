//! Local ports that lead to a port of a host: each connection to one becomes a channel of one session.
//!
//! What ends well ends well on both sides, a half-closed connection stays half open, and what was cut is reset here, so
//! that nobody takes a part for the whole. Towards the host that cannot be promised: sshd ends the far connection as if it
//! had been closed. The same holds for a server there that resets its connection, which sshd tells as an end.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use russh::client::Msg;
use russh::{Channel, ChannelMsg};
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::reconnect::{Patience, reconnect};
use super::{Access, Session, SshError};

/// As many connections at once; further ones wait to be accepted. Each takes a descriptor, and 1024 are usual.
const MOST_CONNECTIONS: usize = 512;
/// Read from a local connection at once: what most SSH servers take as one packet.
const CHUNK: usize = 32 * 1024;
/// After an error of the machine, such as too many open files, before the next connection is accepted.
const RECOVERY: Duration = Duration::from_millis(200);
/// For the goodbye to a channel. It is queued behind what is under way; a session that is being lost takes none.
const GOODBYE_LIMIT: Duration = Duration::from_secs(5);

/// Where connections come out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name or address as the host sees it.
    pub address: String,
    /// TCP port.
    pub port: u16,
}

/// How patient a tunnel is.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// With a session that was lost.
    pub reconnect: Patience,
    /// With a new connection while there is no session.
    pub waiting: Duration,
    /// With a local reader that takes nothing although something is there. The SSH library holds all channels of the
    /// session up for it, and sshd ends a session that does not answer for two minutes.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            reconnect: Patience::default(),
            waiting: Duration::from_secs(60),
            stall: Duration::from_secs(90),
        }
    }
}

/// What happens to a tunnel, for people.
#[derive(Debug)]
pub enum Event {
    /// The session is gone, and with it the connections under way; new ones wait.
    Lost,
    /// There is a session again.
    Back {
        /// For how long there was none.
        after: Duration,
    },
    /// The host did not connect one connection to the target.
    Refused(SshError),
    /// A connection was reset because its reader took nothing for [`Limits::stall`].
    Stalled,
}

/// Listens on `port` of this machine's loopback addresses, of both where there is IPv6; 0 is any free port.
///
/// # Errors
/// When the port cannot be had, on either address: a client that tries the other one first would meet a stranger.
pub async fn listen(port: u16) -> std::io::Result<Vec<TcpListener>> {
    let mut attempts = 10;
    loop {
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let chosen = first.local_addr()?.port();
        match TcpListener::bind((Ipv6Addr::LOCALHOST, chosen)).await {
            Ok(second) => return Ok(vec![first, second]),
            // Whoever asked for any port gets another one.
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                attempts -= 1;
                if port != 0 || attempts == 0 {
                    return Err(error);
                }
            }
            // This machine has no IPv6.
            Err(_) => return Ok(vec![first]),
        }
    }
}

/// The addresses that are listened on.
///
/// # Errors
/// When the system does not say.
pub fn addresses(listeners: &[TcpListener]) -> std::io::Result<Vec<SocketAddr>> {
    listeners.iter().map(TcpListener::local_addr).collect()
}

/// Forwards what is accepted on `listeners` to `target` by `session`, and by others like it once it is lost, until `stop`
/// answers. Connections under way are reset then.
///
/// # Errors
/// Why there is no session any more, after [`Limits::reconnect`].
pub async fn serve(
    access: &Access,
    session: Session,
    listeners: Vec<TcpListener>,
    target: &Target,
    limits: Limits,
    tell: &(impl Fn(Event) + Sync),
    stop: impl Future<Output = ()>,
) -> Result<(), SshError> {
    let host = session.host();
    let (sessions, current) = watch::channel(Some(Arc::new(session)));
    let (events, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut doors = JoinSet::new();
    for listener in listeners {
        let door = Door {
            current: current.clone(),
            target: target.clone(),
            limits,
            events: events.clone(),
            room: Arc::clone(&room),
        };
        doors.spawn(door.accept(listener));
    }
    let keep = async {
        loop {
            let session = sessions.borrow().clone();
            if let Some(session) = session {
                session.lost().await;
            }
            let since = Instant::now();
            sessions.send_replace(None);
            tell(Event::Lost);
            let session = reconnect(access, host, limits.reconnect).await?;
            sessions.send_replace(Some(Arc::new(session)));
            tell(Event::Back {
                after: since.elapsed(),
            });
        }
    };
    let hear = async {
        while let Some(event) = heard.recv().await {
            tell(event);
        }
    };
    let ended = tokio::select! {
        ended = keep => ended,
        () = hear => Ok(()),
        () = stop => Ok(()),
    };
    doors.shutdown().await;
    if let Some(session) = sessions.send_replace(None).and_then(Arc::into_inner) {
        session.close().await;
    }
    ended
}

/// One listening socket and what a connection of it needs.
struct Door {
    current: watch::Receiver<Option<Arc<Session>>>,
    target: Target,
    limits: Limits,
    events: tokio::sync::mpsc::UnboundedSender<Event>,
    room: Arc<Semaphore>,
}

impl Door {
    async fn accept(self, listener: TcpListener) {
        let door = Arc::new(self);
        // Dropped with this future, and all connections with it.
        let mut connections = JoinSet::new();
        loop {
            let Ok(permit) = Arc::clone(&door.room).acquire_owned().await else {
                return;
            };
            while connections.try_join_next().is_some() {}
            match listener.accept().await {
                Ok((stream, _)) => {
                    let door = Arc::clone(&door);
                    connections.spawn(async move {
                        door.serve(stream).await;
                        drop(permit);
                    });
                }
                Err(_) => sleep(RECOVERY).await,
            }
        }
    }

    async fn serve(&self, mut stream: TcpStream) {
        // From here on dropping it resets it, also when this task or the whole process is ended.
        if stream.set_zero_linger().is_err() || stream.set_nodelay(true).is_err() {
            return;
        }
        let mut current = self.current.clone();
        let session = timeout(self.limits.waiting, current.wait_for(Option::is_some)).await;
        let Some(session) = session.ok().and_then(|found| found.ok()?.clone()) else {
            return;
        };
        let gone = async {
            let is_other = |now: &Option<Arc<Session>>| match now {
                Some(now) => !Arc::ptr_eq(now, &session),
                None => true,
            };
            // An error is the end of the whole tunnel.
            let _ = current.wait_for(is_other).await;
        };
        let opened = session.forward(&self.target.address, self.target.port);
        let channel = match opened.await {
            Ok(channel) => channel,
            Err(error) => {
                // A session that is lost is told once, not for each connection.
                if !session.handle.is_closed() {
                    let _ = self.events.send(Event::Refused(error));
                }
                return;
            }
        };
        let ended = tokio::select! {
            ended = pass(&mut stream, channel, self.limits.stall) => ended,
            () = gone => Ended::Cut,
        };
        match ended {
            Ended::Whole => {
                // What has been written still has to arrive, so no reset now.
                let _ = SockRef::from(&stream).set_linger(None);
            }
            Ended::Cut => {}
            Ended::Stalled => {
                let _ = self.events.send(Event::Stalled);
            }
        }
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// Both sides said that they were done, or the far one was gone with all it had said passed on.
    Whole,
    /// Something is missing, on one way or the other.
    Cut,
    /// The local reader was too slow.
    Stalled,
}

/// Passes on both ways until both are done. At most two chunks and what russh queues for a channel are held in memory.
async fn pass(local: &mut TcpStream, channel: Channel<Msg>, stall: Duration) -> Ended {
    let (mut incoming, outgoing) = channel.split();
    let (mut reader, mut writer) = local.split();
    let up = async {
        loop {
            let mut chunk = vec![0; CHUNK];
            match reader.read(&mut chunk).await {
                Ok(0) => return outgoing.eof().await.is_ok(),
                Ok(read) => chunk.truncate(read),
                Err(_) => return false,
            }
            if outgoing.data_bytes(chunk).await.is_err() {
                return false;
            }
        }
    };
    let down = async {
        let mut is_complete = false;
        loop {
            match incoming.wait().await {
                Some(ChannelMsg::Data { data }) => {
                    let mut rest = data.as_ref();
                    while !rest.is_empty() {
                        match timeout(stall, writer.write(rest)).await {
                            Ok(Ok(written @ 1..)) => rest = &rest[written..],
                            Ok(_) => return Ended::Cut,
                            Err(_) => return Ended::Stalled,
                        }
                    }
                }
                Some(ChannelMsg::Eof) => {
                    is_complete = true;
                    if writer.shutdown().await.is_err() {
                        return Ended::Cut;
                    }
                }
                // A channel that closes without an end before, and a session that is lost.
                Some(ChannelMsg::Close) | None if !is_complete => return Ended::Cut,
                Some(ChannelMsg::Close) | None => return Ended::Whole,
                Some(_) => {}
            }
        }
    };
    tokio::pin!(up, down);
    let ended = tokio::select! {
        ended = &mut down => ended,
        is_sent = &mut up => match is_sent {
            true => down.await,
            false => Ended::Cut,
        },
    };
    // Without it the far side would go on sending.
    let _ = timeout(GOODBYE_LIMIT, outgoing.close()).await;
    ended
}
