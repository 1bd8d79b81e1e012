//! `[cache]`.

use std::{path::PathBuf, time::Duration};

use redis::{Client, ConnectionAddr, IntoConnectionInfo as _};
use serde::{Deserialize, Serialize};

use super::{ConfigError, Key, Shape};
use crate::appliance::Secret;

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "cache.seconds",
        shape: Shape::Whole("whole seconds", 0, 3600),
        meaning: "how long an answer to GET /items and /items/{id} may be used again; 0: never",
    },
    Key {
        name: "cache.entries",
        shape: Shape::Whole("a number of answers", 1, 1_000_000),
        meaning: "answers kept in this process at most",
    },
    Key {
        name: "cache.size_bytes",
        shape: Shape::Whole("bytes", 1 << 20, 4 << 30),
        meaning: "what they may take together at most",
    },
    Key {
        name: "cache.valkey_url",
        shape: Shape::Words(
            "\"valkey://host:port\", \"valkey://user@host:port/number\" or \"unix:///path\"",
        ),
        meaning: "set: answers are kept in this Valkey or Redis, which several API processes share; not set: in this process",
    },
    Key {
        name: "cache.valkey_password_file",
        shape: Shape::Words("the path of a file that holds the password and nothing else"),
        meaning: "the file with its password; the systemd credential `valkey-password` wins, and no key holds it",
    },
];

/// `[cache]`: answers that are used again.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct CacheSettings {
    /// How long an answer may be used again. A write through the API ends that at once; this bounds how long a change
    /// made behind the API's back stays unseen. Seconds, 0 to 3600; 0 switches the cache off.
    pub seconds: u64,
    /// Answers kept in this process at most, 1 to a million.
    pub entries: u64,
    /// What those may take together at most. Bytes, 1 MiB to 4 GiB.
    pub size_bytes: u64,
    /// A Valkey or Redis to keep the answers in, so that several processes share them. Its own `maxmemory` bounds them.
    pub valkey_url: Option<String>,
    /// File that holds its password; a systemd credential named `valkey-password` wins over it. Neither: no password.
    pub valkey_password_file: Option<PathBuf>,
    /// Filled from [`Self::valkey_password_file`] or the credential, never from a key.
    #[serde(skip)]
    pub valkey_password: Option<Secret>,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            seconds: 60,
            entries: 10_000,
            size_bytes: 32 << 20,
            valkey_url: None,
            valkey_password_file: None,
            valkey_password: None,
        }
    }
}

impl CacheSettings {
    /// [`Self::seconds`] as a duration.
    pub fn lifetime(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// The Valkey to use, not connected yet; `None`: none is named.
    ///
    /// # Errors
    /// [`ConfigError`], which does not show the URL: there may be a password in it.
    pub fn valkey(&self) -> Result<Option<Client>, ConfigError> {
        let Some(url) = &self.valkey_url else {
            return Ok(None);
        };
        let refuse = |problem| ConfigError::key("cache.valkey_url", problem);
        let info = url
            .as_str()
            .into_connection_info()
            .map_err(|_| refuse("this is no such URL"))?;
        let mut settings = info.redis_settings().clone();
        if settings.password().is_some() {
            return Err(refuse(
                "there is a password in it; name a file that holds it with cache.valkey_password_file",
            ));
        }
        if matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            return Err(refuse("TLS to Valkey is not supported"));
        }
        if let Some(password) = &self.valkey_password {
            settings = settings.set_password(password.expose());
        }
        Client::open(info.set_redis_settings(settings))
            .map(Some)
            .map_err(|_| refuse("this is no such URL"))
    }
}
