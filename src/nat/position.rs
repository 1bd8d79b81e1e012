//! The position of the bridge: `nat.auto.tfvars.json` beside the Terraform files, so that a later plain
//! `terraform apply` keeps it and `git diff` shows it.

use std::fmt;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// File name inside the terraform directory.
pub const FILE: &str = "nat.auto.tfvars.json";

/// Whether Terraform is to have the NAT gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Position {
    /// `{"nat_gateway": true}`
    Open,
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
    #[error("{} must hold exactly {{\"nat_gateway\": true}} or {{\"nat_gateway\": false}}, but {problem}: write one of the two", file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Nothing was changed.
    #[error("cannot read {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file is as it was.
    #[error("cannot write {}", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    nat_gateway: bool,
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
        match serde_json::from_str(&text) {
            Ok(Content { nat_gateway: true }) => Ok(Self::Open),
            Ok(Content { nat_gateway: false }) => Ok(Self::Closed),
            Err(error) => Err(PositionError::Malformed {
                file,
                problem: error.to_string(),
            }),
        }
    }

    /// Writes the file of this terraform directory in one step: whoever reads meanwhile sees the old or the new one.
    ///
    /// # Errors
    /// [`PositionError::Write`]
    pub fn write(self, directory: &Path) -> Result<(), PositionError> {
        let file = directory.join(FILE);
        let put = || {
            let mut temporary = tempfile::Builder::new()
                .prefix(".nat-position-")
                .tempfile_in(directory)?;
            writeln!(temporary, "{{\"nat_gateway\": {}}}", self == Self::Open)?;
            temporary.as_file().sync_all()?;
            // Temporary files are private; this one belongs to the repository like its neighbours.
            let permissions = fs::metadata(&file).map(|meta| meta.permissions());
            if let Ok(permissions) = permissions {
                temporary.as_file().set_permissions(permissions)?;
            }
            temporary.persist(&file)?;
            Ok(())
        };
        put().map_err(|source: std::io::Error| PositionError::Write {
            file: file.clone(),
            source,
        })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Open => "open",
            Self::Closed => "closed",
        })
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
        for position in [Position::Open, Position::Closed] {
            position.write(folder.path()).unwrap();
            assert_eq!(Position::read(folder.path()).unwrap(), position);
        }
        assert_eq!(
            fs::read_to_string(folder.path().join(FILE)).unwrap(),
            "{\"nat_gateway\": false}\n"
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
