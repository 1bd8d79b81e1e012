//! `[cache]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Key, Shape};

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
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            seconds: 60,
            entries: 10_000,
            size_bytes: 32 << 20,
        }
    }
}

impl CacheSettings {
    /// [`Self::seconds`] as a duration.
    pub fn lifetime(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}
