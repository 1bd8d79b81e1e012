//! Host keys pinned before the first connection.
//!
//! Each host publishes its SSH host key to SSM at first boot, so the operator learns it from AWS and not from whoever
//! answers on port 22. There is no trust on first use: a key that is not pinned is refused.

use std::collections::BTreeMap;
use std::fmt;

use russh::keys::{Algorithm, HashAlg, PublicKey};

use crate::appliance::{Role, parameter};

/// The pinned keys of a deployment's hosts.
#[derive(Clone, Debug, Default)]
pub struct Pins {
    keys: BTreeMap<Role, PublicKey>,
}

/// A parameter that does not hold a host key.
#[derive(Debug, thiserror::Error)]
#[error(
    "{parameter} does not hold an SSH host key (one line `ssh-ed25519 AAAA…`): let the host report again with `systemctl restart drawbridge-bootstrap` on it"
)]
pub struct BadPin {
    /// The SSM parameter's name.
    pub parameter: String,
    /// What the parser said.
    #[source]
    pub source: russh::keys::ssh_key::Error,
}

/// What an offered key is, measured against the pins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the pinned one.
    Known,
    /// Another one is pinned: either the host was replaced and has not reported yet, or somebody sits in between.
    Changed {
        /// SHA-256 fingerprint of the pinned key.
        pinned: String,
        /// SHA-256 fingerprint of the offered key.
        offered: String,
    },
    /// Nothing is pinned: the host has not reported its key.
    Unknown {
        /// SHA-256 fingerprint of the offered key.
        offered: String,
    },
}

impl Pins {
    /// Pins `key` for `role`.
    pub fn insert(&mut self, role: Role, key: PublicKey) {
        self.keys.insert(role, key);
    }

    /// Pins what an SSM parameter holds: one line `ssh-ed25519 AAAA…`. `pending` pins nothing.
    ///
    /// # Errors
    /// [`BadPin`] when the value is neither.
    pub fn insert_published(
        &mut self,
        role: Role,
        parameter: &str,
        value: &str,
    ) -> Result<(), BadPin> {
        let value = value.trim();
        if value != parameter::PENDING {
            let key = PublicKey::from_openssh(value).map_err(|source| BadPin {
                parameter: parameter.to_owned(),
                source,
            })?;
            self.insert(role, key);
        }
        Ok(())
    }

    /// The key pinned for `role`.
    #[must_use]
    pub fn get(&self, role: Role) -> Option<&PublicKey> {
        self.keys.get(&role)
    }

    /// Judges a key that answered for `role`.
    #[must_use]
    pub fn judge(&self, role: Role, offered: &PublicKey) -> Verdict {
        match self.keys.get(&role) {
            Some(pinned) if pinned.key_data() == offered.key_data() => Verdict::Known,
            Some(pinned) => Verdict::Changed {
                pinned: fingerprint(pinned),
                offered: fingerprint(offered),
            },
            None => Verdict::Unknown {
                offered: fingerprint(offered),
            },
        }
    }

    /// The key types to ask `role` for. A host with several keys would else show one we have no pin for.
    #[must_use]
    pub fn algorithms(&self, role: Role) -> Vec<Algorithm> {
        self.keys
            .get(&role)
            .map(PublicKey::algorithm)
            .into_iter()
            .collect()
    }

    /// Text for OpenSSH's `UserKnownHostsFile`; hosts are named by their [`alias`].
    #[must_use]
    pub fn known_hosts(&self, deployment: &str) -> KnownHosts<'_> {
        KnownHosts {
            pins: self,
            deployment: deployment.to_owned(),
        }
    }
}

/// The name under which a host's key is filed, independent of addresses: `drawbridge-backend`.
#[must_use]
pub fn alias(deployment: &str, role: Role) -> String {
    format!("{deployment}-{role}")
}

/// SHA-256 fingerprint as OpenSSH shows it: `SHA256:…`.
#[must_use]
pub fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// Displays as the lines of a known_hosts file.
#[derive(Debug)]
pub struct KnownHosts<'a> {
    pins: &'a Pins,
    deployment: String,
}

impl fmt::Display for KnownHosts<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (role, key) in &self.pins.keys {
            // Without the comment: it may hold anything the host chose to write.
            let line = PublicKey::from(key.key_data().clone())
                .to_openssh()
                .map_err(|_| fmt::Error)?;
            writeln!(
                formatter,
                "{} {}",
                alias(&self.deployment, *role),
                line.trim()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const TWO: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBp6LZzMKlQYTYpm6tmDLnYAVTgHyq2q2pzNIP3hL3Yk";

    #[test]
    fn a_key_is_known_changed_or_unknown() {
        let mut pins = Pins::default();
        pins.insert_published(
            Role::Backend,
            "/x/hosts/backend/ssh-host-key",
            &format!("{ONE} root@x\n"),
        )
        .unwrap();
        pins.insert_published(Role::Database, "/x/hosts/database/ssh-host-key", "pending")
            .unwrap();
        let one = PublicKey::from_openssh(ONE).unwrap();
        let two = PublicKey::from_openssh(TWO).unwrap();
        assert_eq!(pins.judge(Role::Backend, &one), Verdict::Known);
        assert!(
            matches!(pins.judge(Role::Backend, &two), Verdict::Changed { pinned, .. } if pinned.starts_with("SHA256:"))
        );
        assert!(matches!(
            pins.judge(Role::Database, &one),
            Verdict::Unknown { .. }
        ));
    }

    #[test]
    fn a_parameter_with_something_else_is_named() {
        let error = Pins::default()
            .insert_published(Role::Backend, "/x/key", "ssh-ed25519 nonsense")
            .unwrap_err();
        assert!(
            error.to_string().starts_with("/x/key does not hold"),
            "{error}"
        );
    }

    #[test]
    fn known_hosts_files_keys_under_the_alias_without_comments() {
        let mut pins = Pins::default();
        pins.insert_published(Role::Bastion, "p", &format!("{ONE} comment\n"))
            .unwrap();
        assert_eq!(
            pins.known_hosts("drawbridge").to_string(),
            format!("drawbridge-bastion {ONE}\n")
        );
    }
}
