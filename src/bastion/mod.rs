//! The way in: SSH through the bastion to the private hosts.
//!
//! The inner connection runs end to end inside a channel of the outer one, so the bastion sees neither keys nor text.

mod error;
mod escape;
pub mod exec;
pub mod forward;
pub mod host_keys;
mod identity;
pub mod journal;
mod passphrase;
pub mod reconnect;
pub mod record;
pub mod session;
pub mod shell;
pub mod ssh_config;
pub mod terminal;
mod transport;

pub use self::error::SshError;
pub use self::identity::Keyring;
pub use self::session::{Access, Login, Session};

use std::fmt;
use std::str::FromStr;

/// Where the bastion answers when it is not its public address and port 22: `HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Name or address; IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not HOST:PORT, e.g. 127.0.0.1:2222 or [::1]:2222");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let port = port
            .parse()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(wrong)?;
        let plain =
            |character: char| character.is_ascii_alphanumeric() || "-._:%".contains(character);
        if host.is_empty() || !host.chars().all(plain) {
            return Err(wrong());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(formatter, "[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Endpoint;

    #[test]
    fn an_endpoint_is_host_and_port() {
        let read = |text: &str| text.parse::<Endpoint>();
        assert_eq!(
            read("127.0.0.1:2222").unwrap().to_string(),
            "127.0.0.1:2222"
        );
        assert_eq!(read("[::1]:22").unwrap().host, "::1");
        for wrong in [
            "",
            "host",
            "host:",
            "host:0",
            ":22",
            "ho st:22",
            "host:99999",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
