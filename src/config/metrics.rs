//! `[metrics]`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{Key, Shape};

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "metrics.listen",
        shape: Shape::Words("an address and a port, such as \"127.0.0.1:9464\""),
        meaning: "where `/metrics` is served beside the API; not set: nowhere",
    },
    Key {
        name: "metrics.public",
        shape: Shape::Flag,
        meaning: "whether `http.listen` serves `/metrics` as well, to everybody who can reach the API",
    },
];

/// `[metrics]`: who may read what the server counts.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsSettings {
    /// Where a listener of its own serves `/metrics`, for a scraper on the same host or network; port 0 takes a free
    /// one, which the log names. Not set: there is none.
    pub listen: Option<SocketAddr>,
    /// Whether the API's own listener serves `/metrics` too. Otherwise that path answers 404 there, also to whoever
    /// comes through a load balancer.
    pub public: bool,
}
