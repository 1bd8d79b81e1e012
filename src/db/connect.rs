//! Making one connection: which of the hosts, bounded, and over TLS where a certificate to trust is named.

use std::{
    net::IpAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use diesel::ConnectionError;
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio_postgres::{
    CancelToken, NoTls,
    config::{SslMode, TargetSessionAttrs},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::session::Session;
use crate::config::{DatabaseSettings, ReplicaUrl};

/// Between two addresses that are tried side by side: long enough for a healthy one to log a session in, so that the
/// later ones hear nothing as long as the first works.
const HEAD_START: Duration = Duration::from_millis(250);

/// Makes connections to the one server the configuration names: of several hosts, the one that accepts writes.
#[derive(Clone)]
pub struct Connector {
    config: tokio_postgres::Config,
    hosts: Vec<String>,
    port: u16,
    /// The host that was right last time is asked first.
    favourite: Arc<AtomicUsize>,
    tls: Option<MakeRustlsConnect>,
    limit: Duration,
    address: String,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The certificates to trust cannot be used. Nothing was sent.
    #[error("configuration key database.ca_file: {problem} ({path})")]
    CaFile {
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The name has no address. Nothing was sent.
    #[error("cannot find the address of the database's host {host}")]
    Unknown {
        /// As configured.
        host: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Address, TLS, password or database are not what they should be, nobody answers, or it accepts no writes.
    #[error("cannot connect to the database at {address}")]
    Refused {
        /// `host:port/name`.
        address: String,
        /// The cause.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The database answers the connection and not its first questions.
    #[error("cannot set up the connection to the database at {address}")]
    Setup {
        /// `host:port/name`.
        address: String,
        /// The cause.
        #[source]
        source: ConnectionError,
    },
    /// Connecting, TLS and login together took too long.
    #[error("the database at {address} did not answer within {limit:?}")]
    TimedOut {
        /// `host:port/name`.
        address: String,
        /// `database.connect_timeout_seconds`.
        limit: Duration,
    },
}

impl Connector {
    /// Reads the certificates and prepares connections, to the host that accepts writes, whose statements Postgres
    /// ends after `statement_timeout` (`None`: never, for migrations).
    ///
    /// # Errors
    /// [`ConnectError::CaFile`].
    pub fn new(
        settings: &DatabaseSettings,
        statement_timeout: Option<Duration>,
    ) -> Result<Self, ConnectError> {
        let mut connector = Self::to_any(settings, statement_timeout)?;
        // Also with one host: its name can lead to a server that has become a standby since.
        connector
            .config
            .dbname(&settings.name)
            .target_session_attrs(TargetSessionAttrs::ReadWrite);
        Ok(connector)
    }

    /// As [`Self::new`], to the replica at `url`.
    ///
    /// # Errors
    /// [`ConnectError::CaFile`].
    pub(super) fn to_replica(
        settings: &DatabaseSettings,
        url: &ReplicaUrl,
        statement_timeout: Option<Duration>,
    ) -> Result<Self, ConnectError> {
        let mut connector = Self::to_any(settings, statement_timeout)?;
        connector.config.dbname(&url.name);
        connector.hosts = vec![url.host.clone()];
        connector.port = url.port;
        connector.address = format!("{}:{}/{}", url.host, url.port, url.name);
        Ok(connector)
    }

    fn to_any(
        settings: &DatabaseSettings,
        statement_timeout: Option<Duration>,
    ) -> Result<Self, ConnectError> {
        let statement_timeout = statement_timeout.unwrap_or_default();
        let mut config = tokio_postgres::Config::new();
        config
            .user(&settings.user)
            .application_name("drawbridge-host")
            .connect_timeout(settings.connect_timeout())
            // A peer that vanished without a word is noticed even while nothing is being sent.
            .keepalives_idle(Duration::from_secs(30))
            .tcp_user_timeout(settings.connect_timeout() + settings.statement_timeout())
            .options(format!(
                "-c statement_timeout={}",
                statement_timeout.as_millis()
            ));
        if let Some(password) = &settings.password {
            config.password(password.expose());
        }
        let tls = match &settings.ca_file {
            Some(path) => {
                config.ssl_mode(SslMode::Require);
                Some(MakeRustlsConnect::new(client_config(path)?))
            }
            None => {
                config.ssl_mode(SslMode::Disable);
                None
            }
        };
        Ok(Self {
            config,
            hosts: settings.hosts().map(str::to_owned).collect(),
            port: settings.port,
            favourite: Arc::default(),
            tls,
            limit: settings.connect_timeout(),
            address: settings.address(),
        })
    }

    /// `host:port/name`, for messages.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Connects, logs in, and returns within `database.connect_timeout_seconds`.
    ///
    /// Every call looks the names up anew. Addresses are tried one after the other, each with a small head start before
    /// the next, so that one that swallows everything costs that and not the whole time.
    ///
    /// # Errors
    /// [`ConnectError`]; its text and causes show no password.
    pub async fn connect(&self) -> Result<Session, ConnectError> {
        match tokio::time::timeout(self.limit, self.connect_unbounded()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ConnectError::TimedOut {
                address: self.address.clone(),
                limit: self.limit,
            }),
        }
    }

    async fn connect_unbounded(&self) -> Result<Session, ConnectError> {
        let count = self.hosts.len();
        let first = self.favourite.load(Ordering::Relaxed);
        let mut attempts: FuturesUnordered<_> = (0..count)
            .map(|offset| {
                let index = (first + offset) % count;
                let wait = HEAD_START * u32::try_from(offset).unwrap_or_default();
                async move {
                    tokio::time::sleep(wait).await;
                    let session = self.connect_to_host(&self.hosts[index]).await?;
                    self.favourite.store(index, Ordering::Relaxed);
                    Ok(session)
                }
            })
            .collect();
        first_success(&mut attempts).await
    }

    async fn connect_to_host(&self, host: &str) -> Result<Session, ConnectError> {
        if host.starts_with('/') {
            return self.connect_to_address(host, None).await;
        }
        let found = tokio::net::lookup_host((host, self.port)).await;
        let found = found.map_err(|source| ConnectError::Unknown {
            host: host.to_owned(),
            source,
        })?;
        let mut attempts: FuturesUnordered<_> = found
            .enumerate()
            .map(|(offset, address)| {
                let wait = HEAD_START * u32::try_from(offset).unwrap_or_default();
                async move {
                    tokio::time::sleep(wait).await;
                    self.connect_to_address(host, Some(address.ip())).await
                }
            })
            .collect();
        first_success(&mut attempts).await
    }

    /// The certificate must be for `host`, whichever of its addresses is used.
    async fn connect_to_address(
        &self,
        host: &str,
        address: Option<IpAddr>,
    ) -> Result<Session, ConnectError> {
        let shown = || match address {
            Some(address) if address.to_string() != host => {
                format!("{} ({host} is {address})", self.address)
            }
            _ if self.hosts.len() > 1 => format!("{} (host {host})", self.address),
            _ => self.address.clone(),
        };
        let mut config = self.config.clone();
        config.host(host).port(self.port);
        if let Some(address) = address {
            config.hostaddr(address);
        }
        let refused = |source| ConnectError::Refused {
            address: shown(),
            source,
        };
        let session = match &self.tls {
            Some(tls) => {
                let (client, connection) = config.connect(tls.clone()).await.map_err(refused)?;
                Session::new(client, connection).await
            }
            None => {
                let (client, connection) = config.connect(NoTls).await.map_err(refused)?;
                Session::new(client, connection).await
            }
        };
        session.map_err(|source| ConnectError::Setup {
            address: shown(),
            source,
        })
    }

    /// Asks the server to end what the session of this token runs; at most `database.connect_timeout_seconds`. Nothing
    /// comes of it if the server cannot be asked.
    pub(super) async fn cancel(&self, token: CancelToken) {
        let ask = match &self.tls {
            Some(tls) => token.cancel_query(tls.clone()).left_future(),
            None => token.cancel_query(NoTls).right_future(),
        };
        // The statement's own time limit ends it all the same.
        let _ = tokio::time::timeout(self.limit, ask).await;
    }
}

/// The first that succeeds, or the last error.
async fn first_success<F>(attempts: &mut FuturesUnordered<F>) -> Result<Session, ConnectError>
where
    F: Future<Output = Result<Session, ConnectError>>,
{
    let mut last = None;
    while let Some(outcome) = attempts.next().await {
        match outcome {
            Ok(session) => return Ok(session),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| ConnectError::Unknown {
        host: String::new(),
        source: std::io::Error::other("no address"),
    }))
}

/// Trusts the file's certificates and no others, the system's included.
fn client_config(path: &Path) -> Result<ClientConfig, ConnectError> {
    let refuse = |problem: String| ConnectError::CaFile {
        path: path.display().to_string(),
        problem,
    };
    let mut roots = RootCertStore::empty();
    for certificate in
        CertificateDer::pem_file_iter(path).map_err(|error| refuse(error.to_string()))?
    {
        let certificate = certificate.map_err(|error| refuse(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| refuse(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(refuse("holds no PEM certificate".to_owned()));
    }
    // The AWS SDK brings a second crypto provider into the process, so the choice must be said.
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| refuse(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}
