//! `ready`: the API answers that it reaches its database. Only then may the window close.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::wait_for_database::{self, Published};
use super::{StepError, api, seal};
use crate::appliance::API_PORT;
use crate::host::Host;
use crate::host::parameters::Parameters;
use crate::host::wait::{GaveUp, Look as Seen, until};

/// Migrations run before the API is ready.
const READY_LIMIT: Duration = Duration::from_secs(180);
/// This long the API may take before SSM is asked whether the password is still the one that was sealed.
const PATIENCE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Where the API says whether it is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyUrl {
    address: SocketAddr,
    path: String,
}

impl Default for ReadyUrl {
    fn default() -> Self {
        Self {
            address: (Ipv4Addr::LOCALHOST, API_PORT).into(),
            path: "/ready".into(),
        }
    }
}

impl fmt::Display for ReadyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.address, self.path)
    }
}

/// The text is not `http://ADDRESS:PORT/PATH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected http://ADDRESS:PORT/PATH with an IP address, e.g. http://127.0.0.1:8000/ready")]
pub struct InvalidReadyUrl;

impl FromStr for ReadyUrl {
    type Err = InvalidReadyUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix("http://").ok_or(InvalidReadyUrl)?;
        let (address, path) = rest.split_at(rest.find('/').ok_or(InvalidReadyUrl)?);
        let address = address.parse().map_err(|_| InvalidReadyUrl)?;
        // It becomes part of a request line.
        if path.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(Self {
                address,
                path: path.into(),
            })
        } else {
            Err(InvalidReadyUrl)
        }
    }
}

/// What it takes to look again at what the database published, and to seal it again.
pub struct Look<'a> {
    pub host: &'a Host,
    pub parameters: &'a Parameters,
    pub name: &'a str,
    pub database: Ipv4Addr,
}

/// Waits until the API answers 200.
pub async fn wait(url: &ReadyUrl) -> Result<(), StepError> {
    Ok(wait_for(url, READY_LIMIT).await?)
}

/// The same at first boot, where the database may have been interrupted after publishing: its next run sets and
/// publishes a new password, and what was sealed here before is then worthless.
pub async fn wait_and_heal(
    url: &ReadyUrl,
    look: Look<'_>,
    sealed: &Published,
) -> Result<(), StepError> {
    let mut sealed = sealed.clone();
    let rounds = READY_LIMIT.as_secs() / PATIENCE.as_secs();
    for _ in 1..rounds {
        if wait_for(url, PATIENCE).await.is_ok() {
            return Ok(());
        }
        match wait_for_database::look(look.parameters, look.name, look.database).await {
            Ok(published) if published != sealed => {
                tracing::warn!(
                    "the database has published anew; sealing again and restarting the API"
                );
                seal::seal(look.host, &published, look.database).await?;
                api::restart().await?;
                sealed = published;
            }
            _ => {}
        }
    }
    Ok(wait_for(url, PATIENCE).await?)
}

/// Waits until the API answers 200, for at most `limit`.
pub async fn wait_for(url: &ReadyUrl, limit: Duration) -> Result<(), GaveUp> {
    until(
        format!("{url} to answer 200"),
        limit,
        LONGEST_PAUSE,
        async || match timeout(ANSWER_LIMIT, status(url)).await {
            Ok(Ok(line)) if line.split(' ').nth(1) == Some("200") => Seen::Done(()),
            Ok(Ok(line)) => Seen::NotYet(format!("the answer {line:?}")),
            Ok(Err(error)) => Seen::NotYet(error.to_string()),
            Err(_) => Seen::NotYet("no answer in time".into()),
        },
    )
    .await
}

/// The status line of the answer. One line is all that is wanted, and the image needs no HTTP client for it.
async fn status(url: &ReadyUrl) -> std::io::Result<String> {
    let ReadyUrl { address, path } = url;
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer).await?;
    let text = String::from_utf8_lossy(&answer);
    Ok(text
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(80)
        .collect())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_ready_url_names_an_address_of_this_host_and_a_path() {
        assert_eq!(
            ReadyUrl::default().to_string(),
            "http://127.0.0.1:8000/ready"
        );
        let url = "http://[::1]:80/healthz?deep=1";
        assert_eq!(url.parse::<ReadyUrl>().unwrap().to_string(), url);
        for text in [
            "https://127.0.0.1:8000/ready",
            "http://127.0.0.1:8000",
            "http://localhost:8000/ready",
            "http://127.0.0.1/ready",
            "http://127.0.0.1:8000/a b",
            "http://127.0.0.1:8000/\r\nX: y",
        ] {
            assert_eq!(text.parse::<ReadyUrl>(), Err(InvalidReadyUrl), "{text}");
        }
    }

    #[tokio::test]
    async fn the_status_line_of_an_answer_is_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 512];
            let size = stream.read(&mut request).await.unwrap();
            assert!(request[..size].starts_with(b"GET /health HTTP/1.1\r\n"));
            let answer = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        });
        let url = ReadyUrl {
            address,
            path: "/health".into(),
        };
        assert_eq!(
            status(&url).await.unwrap(),
            "HTTP/1.1 503 Service Unavailable"
        );
    }
}
