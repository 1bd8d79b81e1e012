//! `[http]`.

use std::{net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Key, Shape};

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
}
