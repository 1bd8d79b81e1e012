//! What gets through: TCP connections and HTTP requests made from inside a namespace.

use std::fmt;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Socket, Type};

use super::namespaces;

/// A connection that gets through takes under a millisecond here; this leaves room for a busy machine.
const CONNECT_LIMIT: Duration = Duration::from_millis(1500);
/// The API answers in milliseconds.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

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
    threads
        .into_iter()
        .map(|thread| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
        .collect()
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

/// Sends an HTTP request, from a namespace or as the machine itself, and returns the body, if the status is `wanted`.
///
/// # Errors
/// No connection, or another status, with the beginning of the body.
pub fn request(
    namespace: Option<&str>,
    url: &str,
    json: Option<&str>,
    wanted: u16,
) -> Result<String> {
    match namespace {
        Some(namespace) => namespaces::inside(namespace, || request_here(url, json, wanted))?,
        None => request_here(url, json, wanted),
    }
}

fn request_here(url: &str, json: Option<&str>, wanted: u16) -> Result<String> {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(REQUEST_LIMIT))
        .http_status_as_error(false)
        .proxy(None)
        .max_redirects(0);
    let agent: ureq::Agent = config.build().into();
    let result = match json {
        None => agent.get(url).call(),
        Some(body) => agent.post(url).content_type("application/json").send(body),
    };
    let mut response = result.with_context(|| format!("no answer from {url}"))?;
    let status = response.status().as_u16();
    let body = response
        .body_mut()
        .read_to_string()
        .with_context(|| format!("the answer of {url} breaks off"))?;
    let beginning: String = body.chars().take(200).collect();
    ensure!(
        status == wanted,
        "{url} answers {status} instead of {wanted}: {beginning}"
    );
    Ok(body)
}
