//! `[http]`.

use std::{net::SocketAddr, time::Duration};

use poem::http::Uri;
use serde::{Deserialize, Serialize};

use super::{ConfigError, Key, Shape};

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "http.listen",
        shape: Shape::Words("an address and a port, such as \"127.0.0.1:8000\""),
        meaning: "what to listen on; not used where systemd passes a listening socket",
    },
    Key {
        name: "http.request_timeout_seconds",
        shape: Shape::Whole("whole seconds", 1, 300),
        meaning: "how long a request may take, its body included, before it is answered 408 or 504",
    },
    Key {
        name: "http.body_limit_bytes",
        shape: Shape::Whole("bytes", 1024, 16 << 20),
        meaning: "the largest request body accepted; more is answered 413",
    },
    Key {
        name: "http.header_timeout_seconds",
        shape: Shape::Whole("whole seconds", 1, 300),
        meaning: "how long a request's head may take from its first byte to its last before the connection is cut",
    },
    Key {
        name: "http.keep_alive_seconds",
        shape: Shape::Whole("whole seconds", 1, 3600),
        meaning: "how long a connection may be idle; longer than the load balancer's idle timeout (60)",
    },
    Key {
        name: "http.write_timeout_seconds",
        shape: Shape::Whole("whole seconds", 1, 300),
        meaning: "how long a client may take nothing of its answer before the connection is cut",
    },
    Key {
        name: "http.max_connections",
        shape: Shape::Whole("a number of connections", 1, 60_000),
        meaning: "connections at once; a few more are answered 503, and the rest wait in the kernel's queue",
    },
    Key {
        name: "http.max_requests",
        shape: Shape::Whole("a number of requests", 1, 60_000),
        meaning: "requests handled at once; more are answered 503 right away, except `/health` and `/ready`",
    },
    Key {
        name: "http.cors_origins",
        shape: Shape::Words("a list of origins, such as [\"https://app.example.org\"]"),
        meaning: "pages of these origins may use the API from a browser",
    },
    Key {
        name: "http.trusted_proxies",
        shape: Shape::Whole("a number of proxies", 0, 10),
        meaning: "how many proxies stand in front, each adding to `X-Forwarded-For`; 0: the client is who connects",
    },
    Key {
        name: "http.shutdown_delay_seconds",
        shape: Shape::Whole("whole seconds", 0, 300),
        meaning: "after SIGTERM, how long `/ready` says no while requests are still taken",
    },
    Key {
        name: "http.shutdown_grace_seconds",
        shape: Shape::Whole("whole seconds", 1, 300),
        meaning: "then, how long requests under way may take",
    },
];

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
    /// How long a request's head may take, from its first byte to its last. Seconds, 1 to 300.
    pub header_timeout_seconds: u64,
    /// How long a connection may be idle between two requests, and before its first. Longer than the idle timeout of the
    /// load balancer in front (60 s is AWS's default): a connection must not end just as that sends a request on it.
    /// Seconds, 1 to 3600.
    pub keep_alive_seconds: u64,
    /// How long a client may take nothing of its answer. Seconds, 1 to 300.
    pub write_timeout_seconds: u64,
    /// Connections at once, 1 to 60000. Each takes a file descriptor and some 20 KiB.
    pub max_connections: usize,
    /// Requests handled at once, 1 to 60000; those beyond are answered 503 before they wait for anything. Most of them
    /// wait for one of the connections to the database (`database.pool_size`).
    pub max_requests: usize,
    /// Origins whose pages may use the API from a browser, each `scheme://host` or `scheme://host:port`. Empty: none.
    pub cors_origins: Vec<String>,
    /// How many proxies stand between client and server, each adding one address to `X-Forwarded-For`. 0 to 10; with 0
    /// the client is whoever connects, and the header is the client's own invention.
    pub trusted_proxies: usize,
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
            header_timeout_seconds: 10,
            keep_alive_seconds: 75,
            write_timeout_seconds: 30,
            max_connections: 4096,
            max_requests: 256,
            cors_origins: Vec::new(),
            trusted_proxies: 0,
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

    /// What neither types nor ranges can say.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        for origin in &self.cors_origins {
            if !is_origin(origin) {
                return Err(ConfigError::key(
                    "http.cors_origins",
                    format!("{origin:?} is no origin: it has no path, no * and no capitals"),
                ));
            }
        }
        Ok(())
    }
}

/// Whether browsers send `text` as an `Origin`.
fn is_origin(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else {
        return false;
    };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return false;
    };
    matches!(scheme, "http" | "https")
        && format!("{scheme}://{authority}") == text
        && !authority.as_str().contains(['@', '*'])
        && text == text.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_browser_would_send_is_an_origin() {
        for right in [
            "https://app.example.org",
            "http://localhost:3000",
            "http://[::1]:3000",
        ] {
            assert!(is_origin(right), "{right}");
        }
        for wrong in [
            "",
            "*",
            "null",
            "app.example.org",
            "https://app.example.org/",
            "https://App.example.org",
            "https://*.example.org",
            "https://me@example.org",
            "ftp://example.org",
            "https://a b",
        ] {
            assert!(!is_origin(wrong), "{wrong}");
        }
    }
}
