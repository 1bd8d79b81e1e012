//! What was pinned before: `known_hosts` says to OpenSSH which keys to take, and to the next `drawbridge` which instance
//! published each and since when.
//!
//! SSM is believed about a new instance, because Terraform put it there and its own report says that the key is its own.
//! It is not believed about an instance whose key was another before: instances do not change their keys.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use russh::keys::PublicKey;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Access;
use super::host_keys::{Provenance, alias, fingerprint};
use crate::appliance::{Role, parameter};

/// A host's key as it was pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    key: PublicKey,
    /// `i-…` that had published it; none when no report said so.
    instance_id: Option<String>,
    /// When it was first pinned here.
    since: Option<OffsetDateTime>,
}

/// The hosts' keys as they were pinned. The default knows none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    entries: BTreeMap<Role, Entry>,
}

/// SSM holds another key than was pinned before, and no new instance explains it.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "SSM holds another host key for {} than was pinned here {since} (was {before}, is {now}), and {why}. If you know how that came, \
     `drawbridge ssh-config --accept {}` takes the new one; otherwise sign in nowhere and find out who wrote to {}",
    provenance.host, provenance.host, parameter
)]
pub struct PinChanged {
    /// When the old one was pinned.
    pub since: Since,
    /// Fingerprint of the key that was pinned.
    pub before: String,
    /// Fingerprint of the key that SSM holds.
    pub now: String,
    /// Why that is not a replacement.
    pub why: String,
    /// Who published the new one.
    pub provenance: Box<Provenance>,
    /// The SSM parameter.
    pub parameter: String,
}

/// A moment, or none known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since(Option<OffsetDateTime>);

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.and_then(|moment| moment.format(&Rfc3339).ok()) {
            Some(text) => write!(f, "on {text}"),
            None => f.write_str("before"),
        }
    }
}

impl Record {
    /// Reads a `known_hosts` of ours. Lines of others, and what is no key, are nobody's.
    #[must_use]
    pub fn read(text: &str, deployment: &str) -> Self {
        let entry = |line: &str| {
            let mut words = line.split_whitespace();
            let name = words.next()?;
            let role = Role::ALL
                .into_iter()
                .find(|role| alias(deployment, *role) == name)?;
            let key = format!("{} {}", words.next()?, words.next()?);
            let key = PublicKey::from_openssh(&key).ok()?;
            let (mut instance_id, mut since) = (None, None);
            for word in words {
                if word.starts_with("i-") {
                    instance_id = Some(word.to_owned());
                } else if let Ok(moment) = OffsetDateTime::parse(word, &Rfc3339) {
                    since = Some(moment);
                }
            }
            let entry = Entry {
                key,
                instance_id,
                since,
            };
            Some((role, entry))
        };
        Self {
            entries: text.lines().filter_map(entry).collect(),
        }
    }

    /// Reads the file; none there is an empty record.
    ///
    /// # Errors
    /// When there is one and it cannot be read.
    pub fn load(file: &Path, deployment: &str) -> std::io::Result<Self> {
        match std::fs::read_to_string(file) {
            Ok(text) => Ok(Self::read(&text, deployment)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Whether nothing was pinned.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The record with what `access` pins now, and a line for each host whose key changed. A host of which SSM knows nothing
    /// keeps its old key here, so that forgetting it there first changes nothing.
    ///
    /// # Errors
    /// [`PinChanged`] for a host whose key changed without a new instance, unless it is among `accepted`.
    pub fn renewed(
        &self,
        access: &Access,
        accepted: &[Role],
        now: OffsetDateTime,
    ) -> Result<(Self, Vec<String>), PinChanged> {
        let mut record = self.clone();
        let mut changes = Vec::new();
        for role in Role::ALL {
            let Some(key) = access.pins.get(role) else {
                continue;
            };
            let provenance = access.pins.provenance(role, &access.deployment);
            let publisher = provenance.published.as_ref();
            let publisher = publisher.map(|one| one.instance_id.clone());
            let entry = Entry {
                key: PublicKey::from(key.key_data().clone()),
                instance_id: publisher,
                since: now.replace_nanosecond(0).ok(),
            };
            match self.entries.get(&role) {
                Some(before) if before.key.key_data() == key.key_data() => {
                    if before.instance_id.is_none() && provenance.is_settled() {
                        let since = before.since.or(entry.since);
                        record.entries.insert(role, Entry { since, ..entry });
                    }
                    continue;
                }
                Some(before) => {
                    let change = change(before, &provenance);
                    match change {
                        Ok(change) => changes.push(change),
                        Err(_) if accepted.contains(&role) => {
                            changes.push(format!("{role}'s new host key is accepted"));
                        }
                        Err(why) => {
                            return Err(PinChanged {
                                since: Since(before.since),
                                before: fingerprint(&before.key),
                                now: fingerprint(key),
                                why,
                                parameter: parameter::ssh_host_key(&access.deployment.name, role),
                                provenance: Box::new(provenance),
                            });
                        }
                    }
                }
                None => {}
            }
            record.entries.insert(role, entry);
        }
        Ok((record, changes))
    }

    /// Text for OpenSSH's `UserKnownHostsFile`; hosts are named by their [`alias`].
    #[must_use]
    pub fn text(&self, deployment: &str) -> String {
        let mut text = String::new();
        for (role, entry) in &self.entries {
            let alias = alias(deployment, *role);
            let Ok(key) = entry.key.to_openssh() else {
                continue;
            };
            text.push_str(&format!("{alias} {}", key.trim()));
            // What follows the key is a comment to OpenSSH. Nothing that a host chose to write gets there.
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
            let instance_id = entry.instance_id.as_deref();
            if let Some(id) = instance_id.filter(|id| id.chars().all(plain)) {
                text.push_str(&format!(" {id}"));
            }
            if let Some(since) = entry.since.and_then(|since| since.format(&Rfc3339).ok()) {
                text.push_str(&format!(" since {since}"));
            }
            text.push('\n');
        }
        text
    }
}

/// What explains that a host's key changed; or why nothing does.
fn change(before: &Entry, provenance: &Provenance) -> Result<String, String> {
    let Provenance { host, deployed, .. } = provenance;
    if !provenance.is_settled() {
        return Err(match &provenance.published {
            Some(published) => format!(
                "{published} published it, which is not what Terraform knows as {host} ({deployed}): if {host} is just being replaced, \
                 wait for its report (`drawbridge nat status`)"
            ),
            None => format!(
                "no report says that {deployed}, which Terraform knows as {host}, published it: if {host} is just being replaced, wait \
                 for its report (`drawbridge nat status`)"
            ),
        });
    }
    match &before.instance_id {
        Some(id) if *id == deployed.instance_id => Err(format!(
            "it is the same instance, {deployed}, which does not change its key by itself"
        )),
        Some(id) => Ok(format!(
            "{host}'s host key changed: {id}, pinned {}, was replaced by {deployed}",
            Since(before.since)
        )),
        None => Err(format!(
            "nothing says which instance had the old one; now it is {deployed}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::host_keys::Pins;
    use super::super::{Keyring, Login};
    use super::*;
    use crate::appliance::BootstrapReport;
    use crate::terraform::tests::sample;

    const ONE: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const TWO: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBp6LZzMKlQYTYpm6tmDLnYAVTgHyq2q2pzNIP3hL3Yk";

    fn moment() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
    }

    /// A backend of which SSM holds `key`, published by `reporter`, where Terraform has `deployed`.
    fn access(key: &str, reporter: &str, deployed: &str) -> Access {
        let mut access = Access {
            deployment: sample(),
            pins: Pins::default(),
            bastion: None,
            keys: Keyring::default(),
            login: Login::default(),
        };
        access.deployment.backend.instance_id = deployed.to_owned();
        access
            .pins
            .insert_published(Role::Backend, "p", key)
            .unwrap();
        let report = BootstrapReport {
            instance_id: Some(reporter.to_owned()),
            image_id: Some("ami-1".to_owned()),
            role: Some(Role::Backend),
            step: crate::appliance::Step::Complete,
            started_at: moment(),
            updated_at: moment(),
            finished_at: None,
            error: None,
        };
        access.pins.insert_reporter(Role::Backend, &report);
        access
    }

    fn first() -> Record {
        let access = access(ONE, "i-one", "i-one");
        let (record, changes) = Record::default().renewed(&access, &[], moment()).unwrap();
        assert!(changes.is_empty(), "{changes:?}");
        record
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_openssh_sees_alias_and_key_first() {
        let record = first();
        let text = record.text("drawbridge");
        assert_eq!(
            text,
            format!("drawbridge-backend {ONE} i-one since 2027-01-15T08:00:00Z\n")
        );
        assert_eq!(Record::read(&text, "drawbridge"), record);
        assert!(Record::read(&text, "another").is_empty());
        assert!(Record::read("drawbridge-backend nonsense\n\n#x\n", "drawbridge").is_empty());
    }

    #[test]
    fn a_new_instance_may_have_a_new_key() {
        let (record, changes) = first()
            .renewed(&access(TWO, "i-two", "i-two"), &[], moment())
            .unwrap();
        assert_eq!(changes.len(), 1);
        for part in ["backend's", "i-one", "i-two (ami-1)", "2027-01-15"] {
            assert!(changes[0].contains(part), "{changes:?}");
        }
        assert!(record.text("drawbridge").contains(TWO));
    }

    #[test]
    fn the_same_instance_may_not_and_neither_may_one_that_terraform_does_not_know() {
        for (reporter, deployed, why) in [
            ("i-one", "i-one", "same instance"),
            ("i-two", "i-one", "not what Terraform knows"),
            ("i-one", "i-two", "not what Terraform knows"),
        ] {
            let changed = access(TWO, reporter, deployed);
            let error = first().renewed(&changed, &[], moment()).unwrap_err();
            let text = error.to_string();
            for part in [
                why,
                "ssh-config --accept backend",
                "/drawbridge/hosts/backend/ssh-host-key",
            ] {
                assert!(text.contains(part), "{text}");
            }
            let (record, _) = first()
                .renewed(&changed, &[Role::Backend], moment())
                .unwrap();
            assert!(record.text("drawbridge").contains(TWO));
        }
    }

    #[test]
    fn a_key_that_ssm_forgot_is_remembered_here() {
        let mut forgotten = access(ONE, "i-one", "i-one");
        forgotten.pins = Pins::default();
        let (record, _) = first().renewed(&forgotten, &[], moment()).unwrap();
        assert_eq!(record, first());
    }
}
