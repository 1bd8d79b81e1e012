//! The position of the bridge: `nat.auto.tfvars.json` beside the Terraform files, so that a later plain
//! `terraform apply` keeps it and `git diff` shows it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::terraform::variables_file;

/// File name inside the terraform directory.
pub const FILE: &str = "nat.auto.tfvars.json";

/// The three contents the file may have, for messages.
const SHAPES: &str = r#"{"nat_gateway": true}, {"nat_gateway": false} or {"nat_gateway": true, "nat_gateway_until": "2026-11-20T12:40:00Z"}"#;

/// Whether Terraform is to have the NAT gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "position")]
pub enum Position {
    /// `{"nat_gateway": true}`
    Open,
    /// `{"nat_gateway": true, "nat_gateway_until": "…"}`, written by `nat open`.
    Leased {
        /// When the lease ends: Terraform makes the schedule that deletes the gateway then.
        #[serde(rename = "lease_until", with = "time::serde::rfc3339")]
        until: OffsetDateTime,
    },
    /// `{"nat_gateway": false}`
    Closed,
}

/// Why the file does not tell the position, or cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum PositionError {
    /// Nothing was changed.
    #[error("{} does not exist: it holds the position of the NAT window; write {{\"nat_gateway\": true}} (open) or {{\"nat_gateway\": false}} (closed) into it", file.display())]
    Missing {
        /// The file.
        file: PathBuf,
    },
    /// Nothing was changed.
    #[error("{} must hold exactly one of {SHAPES}, but {problem}: write {{\"nat_gateway\": false}} (closed) or {{\"nat_gateway\": true}} (open) into it", file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Nothing was changed.
    #[error("cannot read {} (see whose it is with `ls -l`, and run this again)", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file is as it was.
    #[error("cannot write {} (see whose the folder is and that the disk is not full, and run this again)", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    nat_gateway: bool,
    // Absent or an instant: null would mean the same as absent to Terraform, and one shape is enough.
    #[serde(default, deserialize_with = "instant")]
    nat_gateway_until: Option<OffsetDateTime>,
}

fn instant<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<OffsetDateTime>, D::Error> {
    let text = String::deserialize(deserializer)?;
    read_instant(&text).map(Some).ok_or_else(|| {
        serde::de::Error::custom(format!(
            "nat_gateway_until is `{text}` where an instant in UTC like 2026-11-20T12:40:00Z belongs"
        ))
    })
}

/// An instant as the file and the variable `nat_gateway_until` hold it: UTC, whole seconds, `Z`.
#[must_use]
pub fn instant_text(instant: OffsetDateTime) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    // Formatting fails only for years that need a sign, and then Terraform's refusal names the variable.
    instant
        .to_offset(time::UtcOffset::UTC)
        .format(format)
        .unwrap_or_default()
}

fn read_instant(text: &str) -> Option<OffsetDateTime> {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    let read = time::PrimitiveDateTime::parse(text, format).ok()?;
    Some(read.assume_utc())
}

impl Position {
    /// Reads the file of this terraform directory.
    ///
    /// # Errors
    /// One that names the file, its shape and what to write.
    pub fn read(directory: &Path) -> Result<Self, PositionError> {
        let file = directory.join(FILE);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(PositionError::Missing { file });
            }
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                return Err(PositionError::Malformed {
                    file,
                    problem: "it is not UTF-8 text".to_owned(),
                });
            }
            Err(source) => return Err(PositionError::Read { file, source }),
        };
        let malformed = |problem: String| PositionError::Malformed {
            file: file.clone(),
            problem,
        };
        let content: Content =
            serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        match (content.nat_gateway, content.nat_gateway_until) {
            (true, None) => Ok(Self::Open),
            (true, Some(until)) => Ok(Self::Leased { until }),
            (false, None) => Ok(Self::Closed),
            (false, Some(_)) => Err(malformed(
                "a closed window has no nat_gateway_until".to_owned(),
            )),
        }
    }

    /// Whether the file asks for the gateway.
    #[must_use]
    pub fn is_open(self) -> bool {
        self != Self::Closed
    }

    /// What the file holds.
    fn content(self) -> String {
        match self {
            Self::Leased { until } => {
                let until = instant_text(until);
                format!(r#"{{"nat_gateway": true, "nat_gateway_until": "{until}"}}"#)
            }
            Self::Open | Self::Closed => format!(r#"{{"nat_gateway": {}}}"#, self.is_open()),
        }
    }

    /// Writes the file of this terraform directory in one step: whoever reads meanwhile sees the old or the new one.
    ///
    /// # Errors
    /// [`PositionError::Write`]
    pub fn write(self, directory: &Path) -> Result<(), PositionError> {
        let file = directory.join(FILE);
        variables_file::replace(directory, FILE, &(self.content() + "\n"))
            .map_err(|source| PositionError::Write { file, source })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => formatter.write_str("open"),
            Self::Leased { until } => write!(formatter, "open until {}", instant_text(*until)),
            Self::Closed => formatter.write_str("closed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Position, String> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), text).unwrap();
        Position::read(folder.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(
            Position::read(folder.path()),
            Err(PositionError::Missing { .. })
        ));
        let until = time::macros::datetime!(2026-11-20 12:40 UTC);
        for position in [Position::Open, Position::Leased { until }, Position::Closed] {
            position.write(folder.path()).unwrap();
            assert_eq!(Position::read(folder.path()).unwrap(), position);
        }
        assert_eq!(
            fs::read_to_string(folder.path().join(FILE)).unwrap(),
            "{\"nat_gateway\": false}\n"
        );
        Position::Leased { until }.write(folder.path()).unwrap();
        assert_eq!(
            fs::read_to_string(folder.path().join(FILE)).unwrap(),
            "{\"nat_gateway\": true, \"nat_gateway_until\": \"2026-11-20T12:40:00Z\"}\n"
        );
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "no temporary file is left"
        );
    }

    #[test]
    fn a_malformed_file_is_refused_with_file_shape_and_remedy() {
        for wrong in [
            "",
            "{}",
            "true",
            "{\"nat_gateway\": \"true\"}",
            "{\"nat_gateway\": null}",
            "{\"nat_gateway\": 1}",
            "{\"nat_gatway\": true}",
            "{\"nat_gateway\": true, \"more\": 1}",
            "{\"nat_gateway\": true} x",
            "{\"nat_gateway\": true, \"nat_gateway\": false}",
            "{\"nat_gateway\": false, \"nat_gateway_until\": \"2026-11-20T12:40:00Z\"}",
            "{\"nat_gateway_until\": \"2026-11-20T12:40:00Z\"}",
            "{\"nat_gateway\": true, \"nat_gateway_until\": null}",
            "{\"nat_gateway\": true, \"nat_gateway_until\": 5}",
            "{\"nat_gateway\": true, \"nat_gateway_until\": \"\"}",
            "{\"nat_gateway\": true, \"nat_gateway_until\": \"2026-11-20T12:40:00\"}",
            "{\"nat_gateway\": true, \"nat_gateway_until\": \"2026-11-20T12:40:00.5Z\"}",
            "{\"nat_gateway\": true, \"nat_gateway_until\": \"2026-11-20T12:40:00+05:30\"}",
            "{\"nat_gateway\": true, \"nat_gateway_until\": \"2026-13-20T12:40:00Z\"}",
        ] {
            let error = read(wrong).unwrap_err();
            assert!(
                error.contains(FILE)
                    && error.contains("{\"nat_gateway\": true}")
                    && error.contains("write"),
                "{wrong}: {error}"
            );
        }
        assert!(
            read("{\"nat_gatway\": true}")
                .unwrap_err()
                .contains("nat_gatway")
        );
    }

    #[test]
    fn a_file_that_cannot_be_replaced_stays() {
        let error = Position::Closed
            .write(Path::new("/nonexistent"))
            .unwrap_err();
        assert!(matches!(error, PositionError::Write { .. }));
    }
}
