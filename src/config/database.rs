//! `[database]`.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{ConfigError, HttpSettings, Key, ReplicaUrl, Shape};
use crate::appliance::Secret;

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "database.host",
        shape: Shape::Words(
            "a host name, an IP address, several of them separated by commas, or the absolute path of a Unix socket's folder",
        ),
        meaning: "where Postgres is; of several hosts the one that accepts writes is used, also after a failover",
    },
    Key {
        name: "database.port",
        shape: Shape::Whole("a port", 1, 65535),
        meaning: "its TCP port, or the number in the Unix socket's name",
    },
    Key {
        name: "database.name",
        shape: Shape::Words("the name of a database, such as \"drawbridge\""),
        meaning: "the database",
    },
    Key {
        name: "database.user",
        shape: Shape::Words("the name of a database role, such as \"drawbridge\""),
        meaning: "the role to log in as",
    },
    Key {
        name: "database.password_file",
        shape: Shape::Words("the path of a file that holds the password and nothing else"),
        meaning: "the file with the password; the systemd credential `database-password` wins, and no key holds it",
    },
    Key {
        name: "database.ca_file",
        shape: Shape::Words("the path of a PEM file with the certificates to trust"),
        meaning: "set: TLS with full verification; not set: no TLS",
    },
    Key {
        name: "database.pool_size",
        shape: Shape::Whole("a number of connections", 1, 100),
        meaning: "connections to write with at most, and half as many for searches; two to four per core of the database host is enough",
    },
    Key {
        name: "database.read_connections",
        shape: Shape::Whole("a number of connections", 1, 16),
        meaning: "connections that all reads of single rows share, and as many again for pages of lists; more than one where a core of the database host is not enough for them",
    },
    Key {
        name: "database.replica_url",
        shape: Shape::Words("`postgres://host:port/name`, without user and password"),
        meaning: "a streaming replica for reads; user, password and `ca_file` are the primary's. A session reads what it wrote",
    },
    Key {
        name: "database.replica_max_lag_seconds",
        shape: Shape::Whole("whole seconds", 1, 3600),
        meaning: "reads go to the primary while the replica is further behind",
    },
    Key {
        name: "database.connect_timeout_seconds",
        shape: Shape::Whole("whole seconds", 1, 60),
        meaning: "how long connecting may take, and a request wait for a free connection before it is answered 503",
    },
    Key {
        name: "database.statement_timeout_seconds",
        shape: Shape::Whole("whole seconds", 1, 299),
        meaning: "Postgres ends a statement after this long; below `http.request_timeout_seconds`",
    },
    Key {
        name: "database.start_timeout_seconds",
        shape: Shape::Whole("whole seconds", 1, 3600),
        meaning: "how long `serve` and `migrate` wait for a database before they give up with status 1",
    },
];

/// `[database]`: where the data is.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatabaseSettings {
    /// Host name, IP address, several of them separated by commas, or (starting with `/`) the folder of a Unix socket.
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
    /// Connections that all point reads share, 1 to 16; pages of lists share as many of their own.
    pub read_connections: usize,
    /// A streaming replica for reads. Not set: all reads go to the primary.
    pub replica_url: Option<ReplicaUrl>,
    /// Reads go to the primary while the replica is further behind. Seconds, 1 to 3600.
    pub replica_max_lag_seconds: u64,
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
    pub password: Option<Secret>,
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
            // With more, each round trip carries fewer requests: on two cores, a seventh more processor time for a read.
            read_connections: 1,
            replica_url: None,
            replica_max_lag_seconds: 10,
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
    /// [`Self::replica_max_lag_seconds`] as a duration.
    pub fn replica_max_lag(&self) -> Duration {
        Duration::from_secs(self.replica_max_lag_seconds)
    }
    /// The hosts of [`Self::host`], one at least.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.host.split(',')
    }
    /// `host:port/name`, for messages.
    pub fn address(&self) -> String {
        format!("{}:{}/{}", self.host, self.port, self.name)
    }
}

impl DatabaseSettings {
    /// What neither types nor ranges can say.
    pub(super) fn check(&self, http: &HttpSettings) -> Result<(), ConfigError> {
        if self.statement_timeout_seconds >= http.request_timeout_seconds {
            return Err(ConfigError::key(
                "database.statement_timeout_seconds",
                format!(
                    "{} is not below http.request_timeout_seconds, which is {}",
                    self.statement_timeout_seconds, http.request_timeout_seconds
                ),
            ));
        }
        for (key, value) in [
            ("database.host", &self.host),
            ("database.name", &self.name),
            ("database.user", &self.user),
        ] {
            if value.is_empty() || value.contains('\0') {
                return Err(ConfigError::key(
                    key,
                    "the value is empty or has a NUL byte",
                ));
            }
        }
        if self.host.contains(',')
            && self
                .hosts()
                .any(|host| host.is_empty() || host.starts_with('/') || host.trim() != host)
        {
            return Err(ConfigError::key(
                "database.host",
                "of several hosts, one is empty, a path, or has blanks around it",
            ));
        }
        if self.is_unix_socket() && self.ca_file.is_some() {
            return Err(ConfigError::key(
                "database.ca_file",
                "there is no TLS on a Unix socket, which database.host names; leave one of them out",
            ));
        }
        Ok(())
    }
}
