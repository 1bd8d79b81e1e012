//! The configuration of `drawbridge-host`: read once, checked once, then passed on as typed values.
//!
//! Later sources win: defaults, the TOML file, `DRAWBRIDGE_*` environment variables (`__` between levels:
//! `DRAWBRIDGE_HTTP__LISTEN`), systemd credentials. A key nobody knows is an error in every source. The database
//! password is no key at all: it comes from a file, because files and environment dumps get copied around.

mod error;
mod password;

pub use error::ConfigError;
pub use password::Password;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
use serde::{Deserialize, Serialize};

/// Read when neither `--config` nor `DRAWBRIDGE_CONFIG` names a file; it may be missing.
pub const DEFAULT_PATH: &str = "/etc/drawbridge/config.toml";

/// The credential that holds the database password, a file in systemd's `$CREDENTIALS_DIRECTORY`.
pub const PASSWORD_CREDENTIAL: &str = "database-password";

/// Every key with the shape of its value, as error messages show it. A unit test keeps it equal to the types below.
const KEYS: &[(&str, &str)] = &[
    (
        "http.listen",
        "an address and a port, such as \"127.0.0.1:8000\"",
    ),
    (
        "http.request_timeout_seconds",
        "whole seconds from 1 to 300",
    ),
    ("http.body_limit_bytes", "bytes from 1024 to 16777216"),
    ("http.shutdown_delay_seconds", "whole seconds from 0 to 300"),
    ("http.shutdown_grace_seconds", "whole seconds from 1 to 300"),
    (
        "database.host",
        "a host name, an IP address, or the absolute path of a Unix socket's folder",
    ),
    ("database.port", "a port from 1 to 65535"),
    (
        "database.name",
        "the name of a database, such as \"drawbridge\"",
    ),
    (
        "database.user",
        "the name of a database role, such as \"drawbridge\"",
    ),
    (
        "database.password_file",
        "the path of a file that holds the password and nothing else",
    ),
    (
        "database.ca_file",
        "the path of a PEM file with the certificates to trust",
    ),
    (
        "database.pool_size",
        "a number of connections from 1 to 100",
    ),
    (
        "database.connect_timeout_seconds",
        "whole seconds from 1 to 60",
    ),
    (
        "database.statement_timeout_seconds",
        "whole seconds from 1, below http.request_timeout_seconds",
    ),
    (
        "database.start_timeout_seconds",
        "whole seconds from 1 to 3600",
    ),
    ("log.format", "\"json\" or \"text\""),
    (
        "log.filter",
        "a level or tracing directives, such as \"info\" or \"info,drawbridge=debug\"",
    ),
];

/// The whole configuration.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How HTTP is served.
    pub http: HttpSettings,
    /// Where the data is.
    pub database: DatabaseSettings,
    /// What is logged, and how.
    pub log: LogSettings,
}

/// `[http]`: how HTTP is served.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSettings {
    /// Address and port to listen on; port 0 takes a free one (the log line `listening` names it).
    pub listen: SocketAddr,
    /// How long a request may take, its body included, before the answer is 408 or 504. Seconds, 1 to 300.
    pub request_timeout_seconds: u64,
    /// The largest request body accepted; more is answered 413. Bytes, 1 KiB to 16 MiB.
    pub body_limit_bytes: usize,
    /// After SIGTERM: how long `/ready` answers 503 while requests are still accepted, so that a load balancer with
    /// other targets stops sending first. Seconds, 0 to 300; 0 suits a single backend, which nothing else can replace.
    pub shutdown_delay_seconds: u64,
    /// After that delay: how long requests under way may take to finish before they are cut. Seconds, 1 to 300.
    pub shutdown_grace_seconds: u64,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            request_timeout_seconds: 10,
            body_limit_bytes: 64 * 1024,
            shutdown_delay_seconds: 0,
            shutdown_grace_seconds: 20,
        }
    }
}

impl HttpSettings {
    /// [`Self::request_timeout_seconds`] as a duration.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.request_timeout_seconds)
    }
    /// [`Self::shutdown_delay_seconds`] as a duration.
    pub fn shutdown_delay(&self) -> Duration {
        Duration::from_secs(self.shutdown_delay_seconds)
    }
    /// [`Self::shutdown_grace_seconds`] as a duration.
    pub fn shutdown_grace(&self) -> Duration {
        Duration::from_secs(self.shutdown_grace_seconds)
    }
}

/// `[database]`: where the data is.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatabaseSettings {
    /// Host name, IP address, or (starting with `/`) the folder of a Unix socket.
    pub host: String,
    /// TCP port, or the number in the Unix socket's name.
    pub port: u16,
    /// Database.
    pub name: String,
    /// Role to log in as.
    pub user: String,
    /// File that holds the password; a systemd credential named `database-password` wins over it. Neither: no
    /// password is sent, which suits a Unix socket with peer authentication.
    pub password_file: Option<PathBuf>,
    /// PEM certificates to trust. Set: TLS is required, and the server's certificate must be for [`Self::host`]
    /// (`verify-full`). Not set: no TLS.
    pub ca_file: Option<PathBuf>,
    /// Connections kept at most, 1 to 100; two to four per core of the database host is enough.
    pub pool_size: u32,
    /// How long connecting may take, and how long a request waits for a free connection before the answer is 503.
    /// Seconds, 1 to 60.
    pub connect_timeout_seconds: u64,
    /// Postgres ends a statement after this long. Seconds; below [`HttpSettings::request_timeout_seconds`], because a
    /// request that is given up would otherwise leave its statement running on a connection that is handed out again.
    pub statement_timeout_seconds: u64,
    /// How long `serve` and `migrate` wait for a database that does not answer yet, or whose schema another process
    /// is migrating, before they give up with status 1. Seconds, 1 to 3600.
    pub start_timeout_seconds: u64,
    /// Filled from [`Self::password_file`] or the credential, never from a key.
    #[serde(skip)]
    pub password: Option<Password>,
}

impl Default for DatabaseSettings {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 5432,
            name: "drawbridge".to_owned(),
            user: "drawbridge".to_owned(),
            password_file: None,
            ca_file: None,
            pool_size: 8,
            connect_timeout_seconds: 3,
            statement_timeout_seconds: 5,
            start_timeout_seconds: 60,
            password: None,
        }
    }
}

impl DatabaseSettings {
    /// [`Self::connect_timeout_seconds`] as a duration.
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_secs(self.connect_timeout_seconds)
    }
    /// [`Self::statement_timeout_seconds`] as a duration.
    pub fn statement_timeout(&self) -> Duration {
        Duration::from_secs(self.statement_timeout_seconds)
    }
    /// [`Self::start_timeout_seconds`] as a duration.
    pub fn start_timeout(&self) -> Duration {
        Duration::from_secs(self.start_timeout_seconds)
    }
    /// Whether [`Self::host`] is the folder of a Unix socket.
    pub fn is_unix_socket(&self) -> bool {
        self.host.starts_with('/')
    }
    /// `host:port/name`, for messages.
    pub fn address(&self) -> String {
        format!("{}:{}/{}", self.host, self.port, self.name)
    }
}

/// `[log]`: what is logged, and how. Always to standard error.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// One JSON object per line, or text for people.
    pub format: LogFormat,
    /// `tracing` directives: a level (`info`), or levels per module (`info,drawbridge=debug`).
    pub filter: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            format: LogFormat::Json,
            filter: "info".to_owned(),
        }
    }
}

/// The shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// One line of text, for people.
    Text,
}

impl Config {
    /// Reads the configuration: `file` (must exist), or else [`DEFAULT_PATH`] (may be missing); then the process's
    /// environment; then the secrets.
    ///
    /// # Errors
    /// [`ConfigError`] names the key, where its value came from, the shape it should have, and never a value.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        Self::load_from(file, credentials.as_deref())
    }

    fn load_from(file: Option<&Path>, credentials: Option<&Path>) -> Result<Self, ConfigError> {
        if let Some(path) = file {
            // Figment's own text does not say how to name another one.
            std::fs::File::open(path).map_err(|source| ConfigError::File {
                path: path.to_owned(),
                source,
            })?;
        }
        let path = file.unwrap_or(Path::new(DEFAULT_PATH));
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        if file.is_some() || path.exists() {
            figment = figment.merge(Toml::file_exact(path));
        }
        figment = figment.merge(Env::prefixed("DRAWBRIDGE_").ignore(&["config"]).split("__"));
        let mut config: Self = figment.extract().map_err(ConfigError::from_figment)?;
        config.database.password = password::find(&config.database, credentials)?;
        config.check()?;
        Ok(config)
    }

    /// What the types alone cannot say.
    fn check(&self) -> Result<(), ConfigError> {
        let (http, database) = (&self.http, &self.database);
        in_range(
            "http.request_timeout_seconds",
            http.request_timeout_seconds,
            1,
            300,
        )?;
        in_range(
            "http.body_limit_bytes",
            http.body_limit_bytes as u64,
            1024,
            16 << 20,
        )?;
        in_range(
            "http.shutdown_delay_seconds",
            http.shutdown_delay_seconds,
            0,
            300,
        )?;
        in_range(
            "http.shutdown_grace_seconds",
            http.shutdown_grace_seconds,
            1,
            300,
        )?;
        in_range("database.port", database.port.into(), 1, 65535)?;
        in_range("database.pool_size", database.pool_size.into(), 1, 100)?;
        in_range(
            "database.connect_timeout_seconds",
            database.connect_timeout_seconds,
            1,
            60,
        )?;
        in_range(
            "database.statement_timeout_seconds",
            database.statement_timeout_seconds,
            1,
            300,
        )?;
        in_range(
            "database.start_timeout_seconds",
            database.start_timeout_seconds,
            1,
            3600,
        )?;
        if database.statement_timeout_seconds >= http.request_timeout_seconds {
            return Err(ConfigError::key(
                "database.statement_timeout_seconds",
                format!(
                    "{} is not below http.request_timeout_seconds, which is {}",
                    database.statement_timeout_seconds, http.request_timeout_seconds
                ),
            ));
        }
        for (key, value) in [
            ("database.host", &database.host),
            ("database.name", &database.name),
            ("database.user", &database.user),
        ] {
            if value.is_empty() || value.contains('\0') {
                return Err(ConfigError::key(
                    key,
                    "the value is empty or has a NUL byte",
                ));
            }
        }
        if database.is_unix_socket() && database.ca_file.is_some() {
            return Err(ConfigError::key(
                "database.ca_file",
                "there is no TLS on a Unix socket, which database.host names; leave one of them out",
            ));
        }
        crate::telemetry::parse_filter(&self.log.filter)
            .map(drop)
            .map_err(|error| ConfigError::key("log.filter", error))
    }
}

fn in_range(key: &'static str, value: u64, least: u64, most: u64) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::key(key, format!("{value} is out of range")))
}

/// The shape of the value of `key`, or of the keys below it.
fn shape_of(key: &str) -> Option<&'static str> {
    KEYS.iter()
        .find(|(name, _)| *name == key)
        .map(|(_, shape)| *shape)
}

#[cfg(test)]
mod tests;
