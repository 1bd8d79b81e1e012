//! What is said of each key: by errors, by the generated reference, and by the check of ranges.

use std::fmt;

use serde_json::Value;

use super::{Config, ConfigError, auth, cache, database, http, log, metrics};

/// One key of the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Dotted: `http.listen`.
    pub name: &'static str,
    /// What its value looks like.
    pub shape: Shape,
    /// What it is for, in Markdown.
    pub meaning: &'static str,
}

/// What a value looks like; it reads well after "it takes".
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// A whole number of what is named first, from the least to the most.
    Whole(&'static str, u64, u64),
    /// `true` or `false`.
    Flag,
    /// Anything else, described.
    Words(&'static str),
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(what, least, most) => write!(f, "{what} from {least} to {most}"),
            Self::Flag => f.write_str("true or false"),
            Self::Words(words) => f.write_str(words),
        }
    }
}

/// Every key, by section. A unit test keeps them equal to the fields of [`Config`].
pub fn keys() -> impl Iterator<Item = &'static Key> {
    [
        http::KEYS,
        auth::KEYS,
        database::KEYS,
        cache::KEYS,
        log::KEYS,
        metrics::KEYS,
    ]
    .into_iter()
    .flatten()
}

/// The shape of the value of the key `name`.
pub(super) fn shape_of(name: &str) -> Option<Shape> {
    keys().find(|key| key.name == name).map(|key| key.shape)
}

/// The key whose name is most like `name`, if any is like it at all.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    // Below it, two names have little more in common than their section.
    const ALIKE: f64 = 0.8;
    keys()
        .map(|key| (strsim::jaro_winkler(key.name, name), key.name))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, key)| key)
}

/// Refuses the first number that is out of its range.
pub(super) fn check_ranges(config: &Config) -> Result<(), ConfigError> {
    for key in keys() {
        let Shape::Whole(_, least, most) = key.shape else {
            continue;
        };
        // Absent: an optional key that is not set.
        if let Some(value) = value_of(config, key.name).as_u64()
            && !(least..=most).contains(&value)
        {
            return Err(ConfigError::key(
                key.name,
                format!("{value} is out of range"),
            ));
        }
    }
    Ok(())
}

/// The reference of all keys as a Markdown table, with their defaults.
pub fn reference() -> String {
    let defaults = Config::default();
    let mut text = "| key | default | takes | what |\n|---|---|---|---|\n".to_owned();
    for key in keys() {
        let default = match value_of(&defaults, key.name) {
            Value::Null => "none".to_owned(),
            Value::String(text) => format!("`{text}`"),
            other => format!("`{other}`"),
        };
        let shape = key.shape.to_string().replace('"', "`");
        text += &format!(
            "| `{}` | {default} | {shape} | {} |\n",
            key.name, key.meaning
        );
    }
    text
}

fn value_of(config: &Config, key: &str) -> Value {
    let path = format!("/{}", key.replace('.', "/"));
    // Serializing plain data does not fail; a unit test would find every value missing.
    let all = serde_json::to_value(config).unwrap_or_default();
    all.pointer(&path).cloned().unwrap_or_default()
}
