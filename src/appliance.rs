//! What the hosts and the operator's machine agree on: roles, user data, parameter names, bootstrap reports, logins, what
//! a host says of itself, paths.
//!
//! Terraform writes the user data and the empty parameters, `drawbridge-host bootstrap` reads the one and fills the
//! other, `drawbridge` on the operator's machine reads what was filled in. All three meet here and nowhere else.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

mod login;
pub mod parameter;
pub mod path;
pub mod report;
mod secret;
pub mod ssh_key;
pub mod status;
pub mod store;
pub mod system;
pub mod user_data;

pub use login::{Login, LoginRole, NotALogin};
pub use report::{BootstrapReport, ReportState, Step};
pub use secret::Secret;
pub use ssh_key::SshPublicKey;
pub use user_data::{Duty, UserData, UserDataError};

/// Login user on all three hosts: has a shell. The bootstrap's `admin-keys` step fills its authorized keys.
pub const LOGIN_USER: &str = "admin";
/// The other login on all three hosts: forwards connections and gets nothing else, whatever it asks for. For people who
/// only need a port, and for every jump through the bastion.
pub const TUNNEL_USER: &str = "tunnel";
/// Name of the application's Postgres database, and of the role that owns it, which nobody logs in as.
pub const DATABASE_NAME: &str = "drawbridge";
/// The Postgres roles the application logs in as. Normally one of them may; while the password is being rotated, both.
pub const DATABASE_LOGINS: [&str; 2] = ["drawbridge_a", "drawbridge_b"];
/// Port the API listens on at the backend.
pub const API_PORT: u16 = 8000;
/// Port Postgres listens on at the database host.
pub const DATABASE_PORT: u16 = 5432;

/// What an instance is there for. Written in lower case everywhere: user data, parameter names, Terraform outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The only host with a public address; it forwards SSH connections and does nothing else.
    Bastion,
    /// Runs the API.
    Backend,
    /// Runs Postgres on a volume of its own.
    Database,
}

impl Role {
    /// Every role, in the order a packet from an administrator meets them.
    pub const ALL: [Role; 3] = [Role::Bastion, Role::Backend, Role::Database];

    /// `bastion`, `backend` or `database`.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Bastion => "bastion",
            Role::Backend => "backend",
            Role::Database => "database",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text is not the name of a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a role: expected `bastion`, `backend` or `database`")]
pub struct UnknownRole;

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Role::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or(UnknownRole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_written_and_read_the_same_way() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
            assert_eq!(serde_json::to_string(&role).unwrap(), format!("\"{role}\""));
        }
        assert_eq!("Backend".parse::<Role>(), Err(UnknownRole));
        assert_eq!(format!("{:>9}|", Role::Backend), "  backend|");
    }
}
