//! One connection: bounded, and over TLS where a certificate to trust is named.

use std::{path::Path, sync::Arc, time::Duration};

use diesel::ConnectionError;
use diesel_async::AsyncPgConnection;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio_postgres::{NoTls, config::SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::DatabaseSettings;

/// Makes connections to the one database the configuration names.
#[derive(Clone)]
pub struct Connector {
    config: tokio_postgres::Config,
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
    /// Address, TLS, password or database are not what they should be, or nobody answers.
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
    /// Reads the certificates and prepares connections whose statements Postgres ends after `statement_timeout`
    /// (`None`: never, for migrations).
    ///
    /// # Errors
    /// [`ConnectError::CaFile`].
    pub fn new(
        settings: &DatabaseSettings,
        statement_timeout: Option<Duration>,
    ) -> Result<Self, ConnectError> {
        let statement_timeout = statement_timeout.unwrap_or_default();
        let mut config = tokio_postgres::Config::new();
        config
            .host(&settings.host)
            .port(settings.port)
            .dbname(&settings.name)
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
            config.password(password.reveal());
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
            tls,
            limit: settings.connect_timeout(),
            address: settings.address(),
        })
    }

    /// Connects, logs in, and returns within `database.connect_timeout_seconds`.
    ///
    /// # Errors
    /// [`ConnectError`]; its text and causes show no password.
    pub async fn connect(&self) -> Result<AsyncPgConnection, ConnectError> {
        match tokio::time::timeout(self.limit, self.connect_unbounded()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ConnectError::TimedOut {
                address: self.address.clone(),
                limit: self.limit,
            }),
        }
    }

    async fn connect_unbounded(&self) -> Result<AsyncPgConnection, ConnectError> {
        let refused = |source| ConnectError::Refused {
            address: self.address.clone(),
            source,
        };
        let connection = match &self.tls {
            Some(tls) => {
                let (client, connection) =
                    self.config.connect(tls.clone()).await.map_err(refused)?;
                AsyncPgConnection::try_from_client_and_connection(client, connection).await
            }
            None => {
                let (client, connection) = self.config.connect(NoTls).await.map_err(refused)?;
                AsyncPgConnection::try_from_client_and_connection(client, connection).await
            }
        };
        connection.map_err(|source| ConnectError::Setup {
            address: self.address.clone(),
            source,
        })
    }
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
