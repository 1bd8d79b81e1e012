//! The user data of an instance: a small JSON document without secrets, written by Terraform, read once at boot.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde_json::{Map, Value};

use super::ssh_key::SshKeyError;
use super::{Role, SshPublicKey};

/// EC2's own limit for user data, before base64.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-add-user-data.html>
pub const SIZE_LIMIT_BYTES: usize = 16 * 1024;

/// What Terraform tells an instance about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserData {
    /// Name of the deployment, `^[a-z][a-z0-9-]{1,20}$`; the first part of every parameter name.
    pub name: String,
    /// AWS region of the deployment, e.g. `ap-south-1`.
    pub region: String,
    /// Who may log in as `admin`, and so as `tunnel` too; never empty.
    pub admin_keys: Vec<SshPublicKey>,
    /// Who may log in as `tunnel` only; may be empty.
    pub tunnel_keys: Vec<SshPublicKey>,
    /// The role, with what only it needs.
    pub duty: Duty,
}

/// A role with its own part of the user data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Duty {
    /// Needs nothing further.
    Bastion,
    /// Runs the API.
    Backend {
        /// Private address of the database host.
        database_address: Ipv4Addr,
    },
    /// Runs Postgres.
    Database {
        /// The only network from which the application may log in.
        backend_cidr: Ipv4Net,
        /// The EBS volume that holds the data.
        data_volume: VolumeId,
    },
}

/// Why a document is not usable as user data. No variant carries a value, only names and positions.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserDataError {
    /// Nothing at all.
    #[error(
        "the instance has no user data; Terraform sets it with user_data_base64, so apply terraform/ again"
    )]
    Empty,
    /// Over 16 KiB.
    #[error(
        "the user data have {bytes} bytes and 16384 are allowed; shorten admin_ssh_keys and tunnel_ssh_keys and apply terraform/ again"
    )]
    TooLarge {
        /// Size found.
        bytes: usize,
    },
    /// Not a JSON document.
    #[error(
        "the user data are not JSON (line {line}, column {column}); they must be what terraform/ writes, so apply it again"
    )]
    NotJson {
        /// Where reading stopped, from 1.
        line: usize,
        /// Where reading stopped, from 1.
        column: usize,
    },
    /// JSON, but a list, number or text.
    #[error(
        "the user data are JSON but not an object; they must be what terraform/ writes, so apply it again"
    )]
    NotAnObject,
    /// A field this version requires is not there.
    #[error(
        "user data field `{field}` is missing: expected {shape}; image and terraform/ must come from the same version"
    )]
    Missing {
        /// The field's name.
        field: &'static str,
        /// What it must look like.
        shape: &'static str,
    },
    /// A field this version does not know.
    #[error(
        "user data field `{field}` is unknown for this role; image and terraform/ must come from the same version"
    )]
    Unknown {
        /// The field's name, escaped and cut to 40 characters.
        field: String,
    },
    /// A field has the wrong type or shape.
    #[error("user data field `{field}` must be {shape}; correct it in terraform/ and apply again")]
    Invalid {
        /// The field's name.
        field: &'static str,
        /// What it must look like.
        shape: &'static str,
    },
    /// One of the keys is not an OpenSSH public key.
    #[error("user data field `{field}`, key {position}: {reason}")]
    Key {
        /// The field's name.
        field: &'static str,
        /// Which one, from 1.
        position: usize,
        /// What is wrong with it.
        reason: SshKeyError,
    },
}

impl UserData {
    /// The role this instance was given.
    pub fn role(&self) -> Role {
        match self.duty {
            Duty::Bastion => Role::Bastion,
            Duty::Backend { .. } => Role::Backend,
            Duty::Database { .. } => Role::Database,
        }
    }

    /// Reads the document.
    ///
    /// # Errors
    /// Anything missing, unknown or misshapen; see [`UserDataError`].
    pub fn parse(text: &str) -> Result<Self, UserDataError> {
        if text.len() > SIZE_LIMIT_BYTES {
            return Err(UserDataError::TooLarge { bytes: text.len() });
        }
        if text.trim().is_empty() {
            return Err(UserDataError::Empty);
        }
        let mut fields = Fields::read(text)?;
        let name = fields.text("name", NAME_SHAPE, is_deployment_name)?;
        let region = fields.text("region", REGION_SHAPE, is_region)?;
        let admin_keys = fields.keys("admin_keys", ADMIN_KEYS_SHAPE)?;
        if admin_keys.is_empty() {
            return Err(UserDataError::Invalid {
                field: "admin_keys",
                shape: ADMIN_KEYS_SHAPE,
            });
        }
        let tunnel_keys = fields.keys("tunnel_keys", TUNNEL_KEYS_SHAPE)?;
        let role = fields.parsed::<Role>("role", "`bastion`, `backend` or `database`")?;
        let duty = match role {
            Role::Bastion => Duty::Bastion,
            Role::Backend => Duty::Backend {
                database_address: fields
                    .parsed("database_address", "an IPv4 address such as 10.20.3.10")?,
            },
            Role::Database => Duty::Database {
                backend_cidr: fields.network("backend_cidr")?,
                data_volume: fields.parsed("data_volume", VOLUME_SHAPE)?,
            },
        };
        fields.none_left()?;
        Ok(UserData {
            name,
            region,
            admin_keys,
            tunnel_keys,
            duty,
        })
    }
}

const NAME_SHAPE: &str = "2 to 21 of a-z, 0-9 and -, beginning with a letter";
const REGION_SHAPE: &str = "an AWS region such as ap-south-1";
const CIDR_SHAPE: &str = "an IPv4 network such as 10.20.2.0/24, without host bits and never /0";
const VOLUME_SHAPE: &str = "a volume id: vol- and 8 to 17 hexadecimal digits";
const ADMIN_KEYS_SHAPE: &str = "a list of at least one OpenSSH public key line";
const TUNNEL_KEYS_SHAPE: &str = "a list of OpenSSH public key lines, empty if there are none";

/// Whether a text can name a deployment: `^[a-z][a-z0-9-]{1,20}$`, the rule of the Terraform variable `name`.
pub fn is_deployment_name(text: &str) -> bool {
    (2..=21).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn is_region(text: &str) -> bool {
    let mut parts = text.split('-').rev();
    let number = parts.next().unwrap_or_default();
    let words: Vec<&str> = parts.collect();
    !number.is_empty()
        && number.len() <= 2
        && number.bytes().all(|b| b.is_ascii_digit())
        && (2..=4).contains(&words.len())
        && words.iter().all(|word| {
            !word.is_empty() && word.len() < 12 && word.bytes().all(|b| b.is_ascii_lowercase())
        })
}

/// The document while it is being taken apart: what is left at the end is unknown.
///
/// Read by hand and not by serde's derive, because serde's errors quote the value it stumbled over.
struct Fields(Map<String, Value>);

impl Fields {
    fn read(text: &str) -> Result<Self, UserDataError> {
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => Ok(Fields(fields)),
            Ok(_) => Err(UserDataError::NotAnObject),
            Err(error) => Err(UserDataError::NotJson {
                line: error.line(),
                column: error.column(),
            }),
        }
    }

    fn take(&mut self, field: &'static str, shape: &'static str) -> Result<Value, UserDataError> {
        self.0
            .remove(field)
            .ok_or(UserDataError::Missing { field, shape })
    }

    fn text(
        &mut self,
        field: &'static str,
        shape: &'static str,
        fits: fn(&str) -> bool,
    ) -> Result<String, UserDataError> {
        match self.take(field, shape)? {
            Value::String(text) if fits(&text) => Ok(text),
            _ => Err(UserDataError::Invalid { field, shape }),
        }
    }

    fn parsed<T: std::str::FromStr>(
        &mut self,
        field: &'static str,
        shape: &'static str,
    ) -> Result<T, UserDataError> {
        self.text(field, shape, |_| true)?
            .parse()
            .map_err(|_| UserDataError::Invalid { field, shape })
    }

    fn network(&mut self, field: &'static str) -> Result<Ipv4Net, UserDataError> {
        let network = self.parsed(field, CIDR_SHAPE)?;
        if is_bounded(&network) {
            Ok(network)
        } else {
            Err(UserDataError::Invalid {
                field,
                shape: CIDR_SHAPE,
            })
        }
    }

    fn keys(
        &mut self,
        field: &'static str,
        shape: &'static str,
    ) -> Result<Vec<SshPublicKey>, UserDataError> {
        let Value::Array(lines) = self.take(field, shape)? else {
            return Err(UserDataError::Invalid { field, shape });
        };
        lines
            .iter()
            .enumerate()
            .map(|(index, line)| {
                line.as_str()
                    .ok_or(SshKeyError::Type)
                    .and_then(str::parse)
                    .map_err(|reason| UserDataError::Key {
                        field,
                        position: index + 1,
                        reason,
                    })
            })
            .collect()
    }

    fn none_left(self) -> Result<(), UserDataError> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(field) => Err(UserDataError::Unknown {
                field: field.escape_default().take(40).collect(),
            }),
        }
    }
}

/// Whether a network can admit clients: no host bits, which would say two things at once, and not everybody.
fn is_bounded(network: &Ipv4Net) -> bool {
    network.prefix_len() > 0 && network.addr() == network.network()
}

/// Id of an EBS volume, `vol-` and 8 to 17 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeId(String);

impl VolumeId {
    /// The id, `vol-0abc…`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where udev shows the volume on an instance: its serial number is the id without the dash.
    pub fn device(&self) -> String {
        let serial = self.0.replacen('-', "", 1);
        format!("/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{serial}")
    }
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is not a volume id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not {VOLUME_SHAPE}")]
pub struct InvalidVolumeId;

impl std::str::FromStr for VolumeId {
    type Err = InvalidVolumeId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("vol-").ok_or(InvalidVolumeId)?;
        let hexadecimal = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if (8..=17).contains(&digits.len()) && digits.bytes().all(hexadecimal) {
            Ok(VolumeId(text.into()))
        } else {
            Err(InvalidVolumeId)
        }
    }
}

#[cfg(test)]
#[path = "user_data_tests.rs"]
mod tests;
