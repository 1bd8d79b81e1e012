//! The address of a replica, as a URL without a secret in it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tokio_postgres::config::Host;

/// Where the replica is: `postgres://host:port/name`. User and password are those of the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaUrl {
    /// Host name or IP address.
    pub host: String,
    /// TCP port, 5432 if the URL names none.
    pub port: u16,
    /// Database.
    pub name: String,
}

impl FromStr for ReplicaUrl {
    type Err = &'static str;

    // No text quotes the value: a password in it would end up in a log.
    fn from_str(text: &str) -> Result<Self, &'static str> {
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err("the value does not begin with postgres://");
        }
        if text.contains(['?', '#']) {
            return Err(
                "the URL has parameters; the other keys of [database] hold for the replica as well",
            );
        }
        let config = tokio_postgres::Config::from_str(text).map_err(|_| "the value is no URL")?;
        if config.get_password().is_some() || config.get_user().is_some() {
            return Err(
                "the URL names a user or a password; those of the primary are used (database.user, database.password_file)",
            );
        }
        let [Host::Tcp(host)] = config.get_hosts() else {
            return Err("the URL does not name one host");
        };
        let port = config.get_ports().first().copied().unwrap_or(5432);
        match config.get_dbname() {
            Some(name) if !name.is_empty() && !host.is_empty() && port > 0 => Ok(Self {
                host: host.clone(),
                port,
                name: name.to_owned(),
            }),
            _ => Err("the URL has no host, no database, or port 0"),
        }
    }
}

impl fmt::Display for ReplicaUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://{}:{}/{}", self.host, self.port, self.name)
    }
}

impl Serialize for ReplicaUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ReplicaUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_host_port_and_database_and_no_login() {
        let parsed: ReplicaUrl = "postgres://replica.example:6432/drawbridge"
            .parse()
            .unwrap();
        assert_eq!(
            parsed.to_string(),
            "postgres://replica.example:6432/drawbridge"
        );
        let parsed: ReplicaUrl = "postgresql://10.0.0.9/drawbridge".parse().unwrap();
        assert_eq!((parsed.port, parsed.host.as_str()), (5432, "10.0.0.9"));
        for refused in [
            "",
            "replica.example",
            "http://replica.example/drawbridge",
            "postgres://replica.example",
            "postgres:///drawbridge",
            "postgres://replica.example:0/drawbridge",
            "postgres://replica.example:70000/drawbridge",
            "postgres://one,two/drawbridge",
            "postgres://drawbridge@replica.example/drawbridge",
            "postgres://drawbridge:planted-secret@replica.example/drawbridge",
            "postgres://replica.example/drawbridge?password=planted-secret",
        ] {
            let error = refused.parse::<ReplicaUrl>().unwrap_err();
            assert!(!error.contains("planted-secret"), "{refused}: {error}");
        }
    }
}
