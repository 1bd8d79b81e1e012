//! How far a host's bootstrap is: the report it writes locally and to SSM, and how the operator's machine reads it.

use std::fmt;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{Role, parameter};

/// A step of the bootstrap, written in kebab-case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Read instance metadata and user data.
    Metadata,
    /// Write the administrators' SSH keys.
    AdminKeys,
    /// Publish the SSH host key.
    SshHostKey,
    /// Mount the database's own volume; formats only a blank one.
    Volume,
    /// Make the key and certificate Postgres shows.
    Certificate,
    /// Write the access rules and start Postgres.
    Postgresql,
    /// Create the application's role and database.
    DatabaseRole,
    /// Publish the password and the certificate.
    Publish,
    /// Wait until the database has published both.
    WaitForDatabase,
    /// Seal the password to this host and write the API's configuration.
    Seal,
    /// Start the API.
    Api,
    /// Wait until the API answers that it is ready.
    Ready,
    /// Nothing is left to do: from here on the host needs no internet.
    Complete,
}

impl Step {
    /// The steps of a role in order, without the closing [`Step::Complete`].
    pub fn sequence(role: Role) -> &'static [Step] {
        match role {
            Role::Bastion => &[Step::Metadata, Step::AdminKeys, Step::SshHostKey],
            Role::Backend => &[
                Step::Metadata,
                Step::AdminKeys,
                Step::SshHostKey,
                Step::WaitForDatabase,
                Step::Seal,
                Step::Api,
                Step::Ready,
            ],
            Role::Database => &[
                Step::Metadata,
                Step::AdminKeys,
                Step::SshHostKey,
                Step::Volume,
                Step::Certificate,
                Step::Postgresql,
                Step::DatabaseRole,
                Step::Publish,
            ],
        }
    }

    /// The step's name in kebab-case, as in the report.
    pub fn as_str(self) -> &'static str {
        match self {
            Step::Metadata => "metadata",
            Step::AdminKeys => "admin-keys",
            Step::SshHostKey => "ssh-host-key",
            Step::Volume => "volume",
            Step::Certificate => "certificate",
            Step::Postgresql => "postgresql",
            Step::DatabaseRole => "database-role",
            Step::Publish => "publish",
            Step::WaitForDatabase => "wait-for-database",
            Step::Seal => "seal",
            Step::Api => "api",
            Step::Ready => "ready",
            Step::Complete => "complete",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How far one instance's bootstrap is. At most 4 KiB as JSON; a field a later version adds is ignored when reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootstrapReport {
    /// `i-…`; null only in a host's local copy, before the metadata could be read for the first time.
    pub instance_id: Option<String>,
    /// `ami-…`; null as above.
    pub image_id: Option<String>,
    /// Null as above.
    pub role: Option<Role>,
    /// The step it stands at.
    pub step: Step,
    /// When this instance began its bootstrap.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// When this report was written.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
    /// When it became complete.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
    /// Why it stopped at `step`. Beside `complete` (in a host's local copy only): what failed at the latest reboot.
    pub error: Option<String>,
}

impl BootstrapReport {
    /// Whether this says *complete* for the instance that runs now; a replaced instance's report does not count.
    pub fn is_complete_for(&self, instance_id: &str) -> bool {
        self.step == Step::Complete && self.instance_id.as_deref() == Some(instance_id)
    }

    /// Where the bootstrap stands among its role's steps: `(3, 8)` is "the third of eight"; `(8, 8)` when complete.
    pub fn position(&self) -> Option<(usize, usize)> {
        let steps = Step::sequence(self.role?);
        let index = steps.iter().position(|step| *step == self.step);
        Some((index.map_or(steps.len(), |index| index + 1), steps.len()))
    }
}

/// What a bootstrap parameter says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReportState {
    /// No host has reported yet.
    Pending,
    /// The latest report.
    Reported(BootstrapReport),
    /// Neither: written by something else, or by an incompatible version.
    Unreadable {
        /// Where and why reading stopped; holds nothing of the value but names of fields.
        reason: String,
    },
}

impl ReportState {
    /// Reads the value of the parameter [`parameter::bootstrap_report`].
    pub fn parse(value: &str) -> Self {
        let value = value.trim();
        if value == parameter::PENDING {
            return ReportState::Pending;
        }
        match serde_json::from_str(value) {
            Ok(report) => ReportState::Reported(report),
            Err(error) => ReportState::Unreadable {
                reason: format!(
                    "not a bootstrap report ({}, line {}, column {})",
                    match error.classify() {
                        serde_json::error::Category::Data => "JSON of another shape",
                        _ => "not JSON",
                    },
                    error.line(),
                    error.column()
                ),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"{"instance_id":"i-0aa","image_id":"ami-1","role":"backend","step":"wait-for-database",
        "started_at":"2026-11-20T10:00:00Z","updated_at":"2026-11-20T10:00:05.25Z","finished_at":null,"error":null}"#;

    #[test]
    fn a_step_is_written_as_it_is_displayed() {
        for role in Role::ALL {
            for step in Step::sequence(role).iter().chain([&Step::Complete]) {
                assert_eq!(serde_json::to_value(step).unwrap(), step.as_str());
            }
        }
    }

    #[test]
    fn a_report_is_read_and_counts_only_for_its_instance() {
        let ReportState::Reported(mut report) = ReportState::parse(REPORT) else {
            panic!()
        };
        assert_eq!(report.position(), Some((4, 7)));
        assert!(!report.is_complete_for("i-0aa"));
        report.step = Step::Complete;
        assert_eq!(report.position(), Some((7, 7)));
        assert!(report.is_complete_for("i-0aa"));
        assert!(!report.is_complete_for("i-0bb"));
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(ReportState::parse(&text), ReportState::Reported(report));
    }

    #[test]
    fn pending_and_unreadable_are_told_apart() {
        assert_eq!(ReportState::parse("pending\n"), ReportState::Pending);
        for value in ["", "Pending", "{}", "{\"step\":\"sesame\"}", "[]"] {
            let ReportState::Unreadable { reason } = ReportState::parse(value) else {
                panic!("{value}")
            };
            assert!(!reason.contains("sesame"), "{reason}");
        }
    }
}
