//! What gets through: TCP connections made from inside a namespace.

use std::fmt;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use socket2::{Domain, Socket, Type};

use super::namespaces;

/// A connection that gets through takes under a millisecond here; this leaves room for a busy machine.
const CONNECT_LIMIT: Duration = Duration::from_millis(1500);

/// What became of a connection attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Something accepted it.
    Connected,
    /// The packet arrived, and nothing listens there.
    Refused,
    /// Nothing came back, as when a security group swallows it.
    Dropped,
    /// There is no way there.
    Unreachable,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Answer::Connected => "connected",
            Answer::Refused => "refused by the host itself",
            Answer::Dropped => "dropped",
            Answer::Unreachable => "unreachable",
        })
    }
}

/// One attempt: from an address (or the namespace's default one) to a target.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// Address to connect from, where the namespace has several.
    pub source: Option<Ipv4Addr>,
    /// Where to.
    pub target: SocketAddr,
}

/// Tries all attempts at once from one namespace; answers come in their order.
///
/// # Errors
/// If the namespace cannot be entered or a socket cannot be made.
pub fn connect_all(namespace: &str, attempts: &[Attempt]) -> Result<Vec<Answer>> {
    namespaces::inside(namespace, || {
        std::thread::scope(|scope| {
            let threads: Vec<_> = attempts
                .iter()
                .map(|attempt| scope.spawn(|| connect(attempt)))
                .collect();
            join(threads).into_iter().collect()
        })
    })?
}

/// Waits for all threads. A panic on one of them goes on here.
pub fn join<T>(threads: Vec<ScopedJoinHandle<'_, T>>) -> Vec<T> {
    threads.into_iter().map(join_one).collect()
}

/// Waits for a thread. A panic on it goes on here.
pub fn join_one<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Tries one connection.
///
/// # Errors
/// See [`connect_all`].
pub fn connect_once(namespace: &str, target: SocketAddr) -> Result<Answer> {
    let answers = connect_all(
        namespace,
        &[Attempt {
            source: None,
            target,
        }],
    )?;
    answers
        .into_iter()
        .next()
        .context("no answer to one attempt")
}

fn connect(attempt: &Attempt) -> Result<Answer> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).context("cannot make a socket")?;
    if let Some(source) = attempt.source {
        socket
            .bind(&SocketAddr::from((source, 0)).into())
            .with_context(|| format!("cannot bind to {source}"))?;
    }
    match socket.connect_timeout(&attempt.target.into(), CONNECT_LIMIT) {
        Ok(()) => Ok(Answer::Connected),
        Err(error) => match error.kind() {
            ErrorKind::ConnectionRefused => Ok(Answer::Refused),
            ErrorKind::TimedOut => Ok(Answer::Dropped),
            ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => Ok(Answer::Unreachable),
            _ => Err(error).with_context(|| format!("connecting to {}", attempt.target)),
        },
    }
}
