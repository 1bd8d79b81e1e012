//! An HTTP client that keeps its connection.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// Longer than a restart takes on a busy machine: a connection that waits for the next process is not a failure.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// One connection, for one request after the other.
pub struct Client(BufReader<TcpStream>);

/// A whole answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// From the status line to the empty line.
    pub head: String,
    pub body: Vec<u8>,
    /// The server closes the connection after it.
    pub is_last: bool,
}

impl Client {
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a request as it is and reads its answer to the end; anything less is an error.
    pub fn ask(&mut self, request: &[u8]) -> io::Result<Reply> {
        self.0.get_mut().write_all(request)?;
        let mut head = String::new();
        let (mut length, mut is_last) = (0, false);
        loop {
            let begin = head.len();
            if self.0.read_line(&mut head)? == 0 {
                let seen = format!("the connection ended after {head:?}");
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, seen));
            }
            let line = head[begin..].trim();
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':') {
                if name.eq_ignore_ascii_case("content-length") {
                    length = value.trim().parse().map_err(io::Error::other)?;
                }
                is_last |= name.eq_ignore_ascii_case("connection") && value.trim() == "close";
            }
        }
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("not an answer: {head:?}")))?;
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok(Reply {
            status,
            head,
            body,
            is_last,
        })
    }
}

/// A GET that leaves the connection open.
pub fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").into_bytes()
}

/// A POST of JSON that leaves the connection open; `headers` are whole lines with their ends.
pub fn post(path: &str, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
    .into_bytes()
}
