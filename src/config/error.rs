//! What is wrong with the configuration, said so that it can be mended without the source code at hand.

use std::path::PathBuf;

use figment::error::{Actual, Kind};

use super::key::{nearest, shape_of};

/// Nothing was started. No variant ever shows a value that could be a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The named configuration file cannot be read.
    #[error(
        "the configuration file {} cannot be read: {source}; name another one with --config or DRAWBRIDGE_CONFIG",
        path.display()
    )]
    File {
        /// The file as it was named.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A key has a value that cannot be used, or is not known.
    #[error("configuration key {key}{origin}: {problem}{}", expected(.key))]
    Key {
        /// Dotted, such as `http.listen`.
        key: String,
        /// Empty, or ` (from …)`: the file or variable that set it.
        origin: String,
        /// What is wrong.
        problem: String,
    },
    /// A source cannot be parsed at all.
    #[error("the configuration{origin} cannot be parsed: {problem}")]
    Syntax {
        /// Empty, or ` (from …)`.
        origin: String,
        /// Where, and what was expected.
        problem: String,
    },
    /// The password cannot be had from where it should be.
    #[error("the password ({origin}, {}): {problem}; the file holds the password and nothing else", path.display())]
    Password {
        /// The key or credential that named the file.
        origin: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong; never the content.
        problem: String,
    },
}

fn expected(key: &str) -> String {
    match shape_of(key) {
        Some(shape) => format!("; it takes {shape}"),
        None => String::new(),
    }
}

impl ConfigError {
    pub(super) fn key(key: &str, problem: impl Into<String>) -> Self {
        Self::Key {
            key: key.to_owned(),
            origin: String::new(),
            problem: problem.into(),
        }
    }

    /// Figment's own text shows the offending value, which may be a secret in the wrong place.
    pub(super) fn from_figment(error: figment::Error) -> Self {
        let origin = origin(&error);
        let mut path = error.path.clone();
        let problem = match &error.kind {
            Kind::UnknownField(name, known) => {
                if path.last() != Some(name) {
                    path.push(name.clone());
                }
                if name.contains("password") {
                    let key = match path.first().map(String::as_str) {
                        Some("cache") => "cache.valkey_password_file",
                        _ => "database.password_file",
                    };
                    format!(
                        "a password is never part of the configuration; name a file that holds it with {key}"
                    )
                } else {
                    let there_are = format!("there are: {}", known.join(", "));
                    match nearest(&path.join(".")) {
                        Some(key) => {
                            format!("there is no such key; did you mean {key}? {there_are}")
                        }
                        None => format!("there is no such key; {there_are}"),
                    }
                }
            }
            Kind::InvalidType(actual, wanted) | Kind::InvalidValue(actual, wanted) => {
                format!("found {}, expected {wanted}", shape(actual))
            }
            Kind::UnknownVariant(_, known) => format!("the value is none of: {}", known.join(", ")),
            Kind::Message(text) => without_source_lines(text),
            Kind::InvalidLength(..) => "the value has the wrong length".to_owned(),
            other => without_source_lines(&other.to_string()),
        };
        if path.is_empty() {
            return Self::Syntax { origin, problem };
        }
        Self::Key {
            key: path.join("."),
            origin,
            problem,
        }
    }
}

fn origin(error: &figment::Error) -> String {
    let Some(metadata) = &error.metadata else {
        return String::new();
    };
    let Some(source) = &metadata.source else {
        return format!(" (from {})", metadata.name.trim_matches('`'));
    };
    match source.file_path() {
        Some(path) => format!(" (from {})", path.display()),
        None => format!(" (from {source})"),
    }
}

fn shape(actual: &Actual) -> &'static str {
    match actual {
        Actual::Bool(_) => "true or false",
        Actual::Unsigned(_) | Actual::Signed(_) => "a whole number",
        Actual::Float(_) => "a fraction",
        Actual::Char(_) | Actual::Str(_) => "a string",
        Actual::Bytes(_) => "bytes",
        Actual::Unit | Actual::Option => "nothing",
        Actual::Map => "a table",
        Actual::Seq => "a list",
        _ => "something else",
    }
}

/// A TOML error quotes the line it stumbled over, and that line may hold a secret.
fn without_source_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.contains('|')).collect();
    lines.join(": ")
}
