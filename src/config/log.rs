//! `[log]`.

use serde::{Deserialize, Serialize};

use super::{ConfigError, Key, Shape};

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "log.format",
        shape: Shape::Words("\"json\" or \"text\""),
        meaning: "one JSON object per line, or text for people; always on standard error",
    },
    Key {
        name: "log.filter",
        shape: Shape::Words(
            "a level or tracing directives, such as \"info\" or \"info,drawbridge=debug\"",
        ),
        meaning: "what is logged",
    },
];

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

impl LogSettings {
    /// What neither types nor ranges can say.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        crate::telemetry::parse_filter(&self.filter)
            .map(drop)
            .map_err(|error| ConfigError::key("log.filter", error))
    }
}
