//! The configuration of `drawbridge-host`: read once, checked once, then passed on as typed values.
//!
//! Later sources win: defaults, the TOML file, `DRAWBRIDGE_*` environment variables (`__` between levels:
//! `DRAWBRIDGE_HTTP__LISTEN`), systemd credentials. A key nobody knows is an error in every source. The database
//! password is no key at all: it comes from a file, because files and environment dumps get copied around.

mod auth;
mod cache;
mod database;
mod error;
mod http;
mod key;
mod log;
mod metrics;
mod password;
mod replica;

pub use auth::AuthSettings;
pub use cache::CacheSettings;
pub use database::DatabaseSettings;
pub use error::ConfigError;
pub use http::HttpSettings;
pub use key::{Key, Shape, reference};
pub use log::{LogFormat, LogSettings};
pub use metrics::MetricsSettings;
pub use replica::ReplicaUrl;

use std::path::{Path, PathBuf};

use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
use serde::{Deserialize, Serialize};

/// Read when neither `--config` nor `DRAWBRIDGE_CONFIG` names a file; it may be missing.
pub const DEFAULT_PATH: &str = "/etc/drawbridge/config.toml";

/// The credential that holds the database password, a file in systemd's `$CREDENTIALS_DIRECTORY`.
pub const PASSWORD_CREDENTIAL: &str = "database-password";

/// The credential that holds the password of `cache.valkey_url`.
pub const VALKEY_PASSWORD_CREDENTIAL: &str = "valkey-password";

/// The whole configuration.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Who may do what, and how they sign in.
    pub auth: AuthSettings,
    /// How HTTP is served.
    pub http: HttpSettings,
    /// Where the data is.
    pub database: DatabaseSettings,
    /// Answers that are used again.
    pub cache: CacheSettings,
    /// What is logged, and how.
    pub log: LogSettings,
    /// Who may read what the server counts.
    pub metrics: MetricsSettings,
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
        config.database.password = password::find(
            "systemd credential database-password",
            credentials.map(|folder| folder.join(PASSWORD_CREDENTIAL)),
            "database.password_file",
            config.database.password_file.as_deref(),
        )?;
        config.cache.valkey_password = password::find(
            "systemd credential valkey-password",
            credentials.map(|folder| folder.join(VALKEY_PASSWORD_CREDENTIAL)),
            "cache.valkey_password_file",
            config.cache.valkey_password_file.as_deref(),
        )?;
        config.check()?;
        Ok(config)
    }

    /// What the types alone cannot say.
    fn check(&self) -> Result<(), ConfigError> {
        key::check_ranges(self)?;
        self.http.check()?;
        self.cache.valkey()?;
        self.database.check(&self.http)?;
        self.log.check()
    }
}

#[cfg(test)]
mod tests;
