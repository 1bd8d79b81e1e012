//! Host keys pinned before the first connection.
//!
//! Each host publishes its SSH host key to SSM at first boot, so the operator learns it from AWS and not from whoever
//! answers on port 22. There is no trust on first use: a key that is not pinned is refused.

use std::collections::BTreeMap;
use std::fmt;

use russh::keys::{Algorithm, HashAlg, PublicKey};

use crate::appliance::{BootstrapReport, Role, Step, parameter};
use crate::terraform::Deployment;

/// The pinned keys of a deployment's hosts.
#[derive(Clone, Debug, Default)]
pub struct Pins {
    keys: BTreeMap<Role, PublicKey>,
    reporters: BTreeMap<Role, HostInstance>,
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

    /// Notes which instance `report` says it is, once that instance has published its key: until then the pinned key is that
    /// of the one before.
    pub fn insert_reporter(&mut self, role: Role, report: &BootstrapReport) {
        let steps = Step::sequence(role);
        let place = |step| steps.iter().position(|other| *other == step);
        let has_published =
            place(report.step).is_none_or(|now| Some(now) > place(Step::SshHostKey));
        if let (true, Some(instance_id)) = (has_published, &report.instance_id) {
            let one = HostInstance {
                instance_id: instance_id.clone(),
                image_id: report.image_id.clone().unwrap_or_default(),
            };
            self.reporters.insert(role, one);
        }
    }

    /// The instance that published the key of `role`, where its report says so.
    #[must_use]
    pub fn reporter(&self, role: Role) -> Option<&HostInstance> {
        self.reporters.get(&role)
    }

    /// Whose key is pinned for `role`, beside what `deployment` says is there.
    #[must_use]
    pub fn provenance(&self, role: Role, deployment: &Deployment) -> Provenance {
        Provenance {
            host: role,
            published: self.reporter(role).cloned(),
            deployed: HostInstance::deployed(deployment, role),
        }
    }
}

/// An instance, and what it was started from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostInstance {
    /// `i-…`
    pub instance_id: String,
    /// `ami-…`; empty when the report did not say.
    pub image_id: String,
}

impl HostInstance {
    /// What Terraform knows as `role`.
    #[must_use]
    pub fn deployed(deployment: &Deployment, role: Role) -> Self {
        let (instance_id, image_id) = match role {
            Role::Bastion => (
                &deployment.bastion.instance_id,
                &deployment.bastion.image_id,
            ),
            Role::Backend => (
                &deployment.backend.instance_id,
                &deployment.backend.image_id,
            ),
            Role::Database => (
                &deployment.database.instance_id,
                &deployment.database.image_id,
            ),
        };
        Self {
            instance_id: instance_id.clone(),
            image_id: image_id.clone(),
        }
    }
}

impl fmt::Display for HostInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.instance_id, self.image_id)
    }
}

/// Which instance published a host's pinned key, and which one Terraform knows. Displays as what a key that differs means
/// then, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// The host.
    pub host: Role,
    /// By the host's own report.
    pub published: Option<HostInstance>,
    /// By Terraform's state.
    pub deployed: HostInstance,
}

impl Provenance {
    /// Whether the instance that Terraform knows has published the pinned key.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let published = self.published.as_ref().map(|one| &one.instance_id);
        published == Some(&self.deployed.instance_id)
    }
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            host,
            published,
            deployed,
        } = self;
        match published {
            Some(published) if self.is_settled() => write!(
                f,
                "{published} published the pinned one and is what Terraform knows as {host}, so somebody else answers in its place. \
                 Do not go on; look at --bastion, at the network in between, and at `terraform plan -refresh-only`"
            ),
            Some(published) => write!(
                f,
                "{published} published the pinned one, and Terraform has replaced it by {deployed}, which has not published its own \
                 yet: wait for its report (`drawbridge nat status`) and try again; that accepts the new key"
            ),
            None => write!(
                f,
                "no report says which instance published the pinned one, and Terraform knows {deployed}: if {host} was just \
                 replaced, wait for its report (`drawbridge nat status`) and try again; otherwise somebody else answers in its place"
            ),
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
    fn a_key_is_an_instances_only_when_that_one_has_published_it() {
        let report = |step: &str| {
            let text = format!(
                r#"{{"instance_id":"i-new","image_id":"ami-2","role":"backend","step":"{step}","started_at":"2026-11-20T10:00:00Z",
                   "updated_at":"2026-11-20T10:00:05Z","finished_at":null,"error":null}}"#
            );
            serde_json::from_str::<BootstrapReport>(&text).unwrap()
        };
        for (step, is_published) in [
            ("metadata", false),
            ("ssh-host-key", false),
            ("wait-for-database", true),
            ("complete", true),
        ] {
            let mut pins = Pins::default();
            pins.insert_reporter(Role::Backend, &report(step));
            assert_eq!(
                pins.reporter(Role::Backend).is_some(),
                is_published,
                "{step}"
            );
        }
    }
}
