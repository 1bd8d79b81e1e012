//! The API as a client meets it: under its own name, at one address, over TLS if it has a certificate.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use super::authority::Authority;
use super::namespaces;

/// The API answers in milliseconds, on a starved machine in seconds.
const LIMIT: Duration = Duration::from_secs(60);

/// One entrance of the API.
pub struct Site {
    base: String,
    at: SocketAddr,
    namespace: Option<&'static str>,
    agent: ureq::Agent,
}

/// What came back.
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Where a redirect leads.
    pub location: Option<String>,
    /// The body.
    pub body: String,
}

impl Site {
    /// The site at `base` (no slash at the end), looked for at the address `at` whatever its name says, from a namespace
    /// or from this machine itself. Only certificates of `authority` count.
    ///
    /// # Errors
    /// If the authority's certificate is none.
    pub fn new(
        namespace: Option<&'static str>,
        base: String,
        at: SocketAddr,
        authority: &Authority,
    ) -> Result<Site> {
        let certificate = Certificate::from_pem(authority.certificate().as_bytes())
            .context("the authority's certificate cannot be read")?;
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(vec![certificate])))
            .build();
        let config = Config::builder()
            .timeout_global(Some(LIMIT))
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            // A connection belongs to the namespace it was made in, and a new one proves more.
            .max_idle_connections(0)
            .tls_config(tls)
            .build();
        Ok(Site {
            base,
            at,
            namespace,
            agent: ureq::Agent::with_parts(config, DefaultConnector::default(), Fixed(at)),
        })
    }

    /// Where it is, with no slash at the end.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// GET.
    ///
    /// # Errors
    /// No answer; for HTTPS also when the certificate is not the authority's or for another name.
    pub fn answer(&self, path: &str) -> Result<Answer> {
        self.here(|| self.ask(path, None, None))
    }

    /// The body that GET finds.
    ///
    /// # Errors
    /// No answer, or another status than 200, with the beginning of the body.
    pub fn get(&self, path: &str) -> Result<String> {
        let answer = self.answer(path)?;
        self.expect(path, answer, 200)
    }

    /// The body with which POST answers that something was created.
    ///
    /// # Errors
    /// No answer, or another status than 201, with the beginning of the body.
    pub fn post(&self, path: &str, json: &str) -> Result<String> {
        let answer = self.answer_to_post(path, json, None)?;
        self.expect(path, answer, 201)
    }

    /// The body with which POST answers the owner of `token` that something was created.
    ///
    /// # Errors
    /// As [`Site::post`].
    pub fn post_as(&self, token: &str, path: &str, json: &str) -> Result<String> {
        let answer = self.answer_to_post(path, json, Some(token))?;
        self.expect(path, answer, 201)
    }

    /// POST, as the owner of `token` if there is one.
    ///
    /// # Errors
    /// As [`Site::answer`].
    pub fn answer_to_post(&self, path: &str, json: &str, token: Option<&str>) -> Result<Answer> {
        self.here(|| self.ask(path, Some(json), token))
    }

    /// What a client gets that speaks TLS 1.1 at best.
    ///
    /// # Errors
    /// If the handshake goes on.
    pub fn refuses_tls_1_1(&self) -> Result<String> {
        self.here(|| greet_with_tls_1_1(self.at))
    }

    fn here<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        match self.namespace {
            Some(namespace) => namespaces::inside(namespace, work)?,
            None => work(),
        }
    }

    fn ask(&self, path: &str, json: Option<&str>, token: Option<&str>) -> Result<Answer> {
        let url = format!("{}{path}", self.base);
        let result = match json {
            None => self.agent.get(&url).call(),
            Some(body) => {
                let mut request = self.agent.post(&url).content_type("application/json");
                if let Some(token) = token {
                    request = request.header("authorization", format!("Bearer {token}"));
                }
                request.send(body)
            }
        };
        let mut response =
            result.with_context(|| format!("no answer from {url} at {}", self.at))?;
        let location = response.headers().get("location");
        Ok(Answer {
            status: response.status().as_u16(),
            location: location.and_then(|text| Some(text.to_str().ok()?.to_owned())),
            body: response
                .body_mut()
                .read_to_string()
                .with_context(|| format!("the answer of {url} breaks off"))?,
        })
    }

    fn expect(&self, path: &str, answer: Answer, wanted: u16) -> Result<String> {
        let Answer { status, body, .. } = answer;
        let beginning: String = body.chars().take(200).collect();
        ensure!(
            status == wanted,
            "{}{path} answers {status} instead of {wanted}: {beginning}",
            self.base
        );
        Ok(body)
    }
}

/// Every name leads to one address.
#[derive(Debug)]
struct Fixed(SocketAddr);

impl Resolver for Fixed {
    fn resolve(
        &self,
        _uri: &Uri,
        _config: &Config,
        _timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        addresses.push(self.0);
        Ok(addresses)
    }
}

/// A ClientHello of TLS 1.1 (RFC 4346), with cipher suites and a curve that a server of that age takes. No library at
/// hand would still send it.
fn tls_1_1_hello() -> Vec<u8> {
    let suites: [u8; 8] = [0xc0, 0x09, 0xc0, 0x0a, 0xc0, 0x13, 0x00, 0x2f];
    let curves = [0x00, 0x0a, 0x00, 0x04, 0x00, 0x02, 0x00, 0x17];
    let body = [
        &[0x03, 0x02][..],
        &[0x5a; 32],
        &[0],
        &[0, suites.len() as u8],
        &suites,
        &[1, 0],
        &[0, curves.len() as u8],
        &curves,
    ]
    .concat();
    let length = body.len() as u8;
    [
        &[0x16, 0x03, 0x01, 0, length + 4, 0x01, 0, 0, length][..],
        &body,
    ]
    .concat()
}

fn greet_with_tls_1_1(at: SocketAddr) -> Result<String> {
    /// Record type of an alert, and the description `protocol_version`.
    const ALERT: u8 = 21;
    const PROTOCOL_VERSION: u8 = 70;
    let mut stream =
        TcpStream::connect_timeout(&at, LIMIT).with_context(|| format!("no connection to {at}"))?;
    stream
        .set_read_timeout(Some(LIMIT))
        .context("cannot set a time limit")?;
    stream
        .write_all(&tls_1_1_hello())
        .context("cannot send a greeting")?;
    let mut answer = [0; 7];
    stream
        .read_exact(&mut answer)
        .with_context(|| format!("{at} answers a greeting of TLS 1.1 with nothing"))?;
    match answer {
        [ALERT, .., PROTOCOL_VERSION] => Ok("refused for its protocol version".to_owned()),
        [ALERT, .., reason] => bail!("{at} refuses a greeting of TLS 1.1, but for reason {reason}"),
        _ => bail!("{at} goes on with a client that speaks TLS 1.1 at best"),
    }
}
