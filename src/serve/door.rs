//! The door that connections come through: whose listener it is, and whether it is open.

use std::io;

use listenfd::ListenFd;
use tokio::net::TcpListener;

/// What is done with connections. It only ever goes forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Door {
    /// Not accepted yet: they wait.
    Held,
    /// Accepted.
    Open,
    /// Accepted no more, and the listener is closed. Where systemd has it open too, further connections wait there for
    /// the next process.
    Closed,
    /// Those there are end after the request they are at.
    Ending,
}

/// The socket that whoever started this process has opened for it (systemd's socket units), if any. It stays open
/// there while this process is replaced, so that connections wait instead of being refused.
///
/// # Errors
/// What was passed is not one listening socket.
pub fn passed_listener() -> io::Result<Option<TcpListener>> {
    let mut passed = ListenFd::from_env();
    if passed.len() > 1 {
        return Err(io::Error::other(format!("{} sockets", passed.len())));
    }
    let Some(listener) = passed.take_tcp_listener(0)? else {
        return Ok(None);
    };
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener).map(Some)
}
