//! `drawbridge-host egress`: does this host reach the internet? Asked by `drawbridge nat close` through the bastion;
//! a minimal host has no curl and no nc.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Exit status of [`Reach::Reached`].
pub const REACHED: u8 = 0;
/// Exit status of [`Reach::CameToNothing`]; not 1 or 2, which also mean a broken program and wrong usage.
pub const CAME_TO_NOTHING: u8 = 3;
/// Exit status of [`Reach::Unknown`].
pub const UNKNOWN: u8 = 4;

/// Whether a connection came about.
#[derive(Debug)]
pub enum Reach {
    /// It was made, or the far side refused it, which takes a way there and back all the same.
    Reached(SocketAddr),
    /// There is no way, or nobody answered in time.
    CameToNothing(io::Error),
    /// The name was not resolved, so nothing was tried.
    Unknown(String),
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reached(address) => write!(f, "{address} is reached"),
            Self::CameToNothing(error) => write!(f, "the connection came to nothing: {error}"),
            Self::Unknown(reason) => f.write_str(reason),
        }
    }
}

impl Reach {
    /// The exit status of `drawbridge-host egress`.
    #[must_use]
    pub fn status(&self) -> u8 {
        match self {
            Self::Reached(_) => REACHED,
            Self::CameToNothing(_) => CAME_TO_NOTHING,
            Self::Unknown(_) => UNKNOWN,
        }
    }
}

/// Tries a TCP connection to `target` (`HOST:PORT`), for at most `limit` with the resolver's time; sends nothing.
#[must_use]
pub fn try_to_reach(target: &str, limit: Duration) -> Reach {
    let end = Instant::now() + limit;
    let addresses = match resolve(target, limit) {
        Ok(addresses) => addresses,
        Err(reason) => return Reach::Unknown(reason),
    };
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    for address in addresses {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(_) => return Reach::Reached(address),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return Reach::Reached(address);
            }
            Err(error) => last = error,
        }
    }
    Reach::CameToNothing(last)
}

// The system's resolver has no time limit; it gets a thread that is left behind if it never answers.
fn resolve(target: &str, limit: Duration) -> Result<Vec<SocketAddr>, String> {
    let (sender, receiver) = mpsc::channel();
    let name = target.to_owned();
    thread::spawn(move || {
        let _ = sender.send(name.to_socket_addrs().map(Iterator::collect::<Vec<_>>));
    });
    match receiver.recv_timeout(limit) {
        Ok(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
        Ok(Ok(_)) => Err(format!("{target} has no address")),
        Ok(Err(error)) => Err(format!("cannot resolve {target} (want HOST:PORT): {error}")),
        Err(_) => Err(format!(
            "the resolver did not answer for {target} within {} s",
            limit.as_secs()
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(500);

    #[test]
    fn a_listener_and_a_refusal_are_reached() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let reach = try_to_reach(&address, LIMIT);
        assert_eq!(reach.status(), REACHED);
        assert_eq!(reach.to_string(), format!("{address} is reached"));
        drop(listener);
        assert_eq!(try_to_reach(&address, LIMIT).status(), REACHED);
    }

    #[test]
    fn no_way_comes_to_nothing_in_time() {
        let start = Instant::now();
        // TCP has no way to a broadcast address, on any machine; 192.0.2.0/24 is answered by some networks' proxies.
        let reach = try_to_reach("255.255.255.255:443", LIMIT);
        assert_eq!(reach.status(), CAME_TO_NOTHING, "{reach:?}");
        assert!(
            reach
                .to_string()
                .starts_with("the connection came to nothing: "),
            "{reach}"
        );
        assert!(start.elapsed() < Duration::from_secs(3));
    }

    #[test]
    fn what_cannot_be_resolved_proves_nothing() {
        assert_eq!(
            try_to_reach("name.invalid:443", Duration::from_secs(8)).status(),
            UNKNOWN
        );
        assert_eq!(try_to_reach("127.0.0.1", LIMIT).status(), UNKNOWN);
    }
}
