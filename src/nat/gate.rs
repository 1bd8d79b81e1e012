//! The gate: nobody closes the window on a host that still needs it.

use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

use super::door::Door;
use crate::appliance::{BootstrapReport, ReportState, Role};
use crate::cloud::{Cloud, CloudError};
use crate::interrupt::Interrupt;
use crate::progress::{Progress, Row};
use crate::terraform::Deployment;

/// The hosts that lose their way out.
pub const HOSTS: [Role; 2] = [Role::Backend, Role::Database];

/// SSM answers in tens of milliseconds, and a step of the bootstrap takes seconds.
const EVERY: Duration = Duration::from_secs(2);

/// Without waiting for the hosts, an API that misses one request gets this long for another.
const READY_PATIENCE: Duration = Duration::from_secs(6);

/// What to do about hosts that still need the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gating {
    /// Nothing is changed.
    Refuse,
    /// They get this long; then nothing is changed.
    Wait(Duration),
    /// They get this long, or until a signal; then they have had their time.
    WaitThenClose(Duration),
    /// They are not asked.
    Skip,
}

/// What is known of a private host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Which one.
    pub role: Role,
    /// The instance that runs now.
    pub instance_id: String,
    /// The latest report, of whichever instance.
    pub report: ReportState,
}

/// A host that is not complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// Which one.
    pub host: Role,
    /// The instance that runs now.
    pub instance_id: String,
    /// The step it stands at, when it has said so.
    pub step: Option<String>,
    /// The whole story in a few words.
    pub reason: String,
}

impl Host {
    /// `None` when this host is complete.
    #[must_use]
    pub fn waiting(&self) -> Option<Waiting> {
        let (step, reason) = match &self.report {
            ReportState::Reported(report) if report.is_complete_for(&self.instance_id) => {
                return None;
            }
            ReportState::Reported(report) => self.not_complete(report),
            ReportState::Pending => (None, "has not reported yet".to_owned()),
            ReportState::Unreadable { reason } => {
                (None, format!("its report cannot be read: {reason}"))
            }
        };
        Some(Waiting {
            host: self.role,
            instance_id: self.instance_id.clone(),
            step,
            reason,
        })
    }

    /// How far it is, for people who watch. The age is by the host's clock.
    fn row(&self, now: OffsetDateTime) -> Row {
        let waiting = self.waiting();
        let since = match &self.report {
            // Of another instance, or complete: how old that is helps nobody.
            ReportState::Reported(report)
                if waiting
                    .as_ref()
                    .is_some_and(|waiting| waiting.step.is_some()) =>
            {
                Some(report.updated_at)
            }
            _ => None,
        };
        let complete = || "is complete".to_owned();
        Row {
            name: format!("{} ({})", self.role, self.instance_id),
            state: waiting.map_or_else(complete, |waiting| waiting.reason),
            age: since.map(|since| (now - since).try_into().unwrap_or_default()),
        }
    }

    fn not_complete(&self, report: &BootstrapReport) -> (Option<String>, String) {
        let theirs = report
            .instance_id
            .as_deref()
            .unwrap_or("an unnamed instance");
        if theirs != self.instance_id {
            // A replaced instance's report says nothing about its successor, not even a step.
            return (
                None,
                format!("has not reported yet (the report there is of {theirs})"),
            );
        }
        let mut reason = format!("stands at step {}", report.step);
        if let Some((number, of)) = report.position() {
            reason.push_str(&format!(" ({number} of {of})"));
        }
        if let Some(error) = &report.error {
            reason.push_str(&format!(": {error}"));
        }
        (Some(report.step.to_string()), reason)
    }
}

/// The hosts that are not complete; empty = the gate is open.
#[must_use]
pub fn judge(hosts: &[Host]) -> Vec<Waiting> {
    hosts.iter().filter_map(Host::waiting).collect()
}

/// Reads both private hosts' reports.
///
/// # Errors
/// When SSM cannot be asked.
pub async fn look(cloud: &Cloud, deployment: &Deployment) -> Result<Vec<Host>, CloudError> {
    let reports = cloud.reports(&deployment.name, &HOSTS).await?;
    let host = |(role, report)| {
        let instance = if role == Role::Backend {
            &deployment.backend
        } else {
            &deployment.database
        };
        Host {
            role,
            instance_id: instance.instance_id.clone(),
            report,
        }
    };
    Ok(reports.into_iter().map(host).collect())
}

/// Waits until the gate is open, for at most `limit`; returns who is not complete then (nobody: it opened). Ends early
/// on a signal.
///
/// Reports alone are not enough: a backend whose database was replaced has reported *complete* for itself, and cannot
/// reach the new one before it has fetched the new password. So the API has to answer as well.
///
/// # Errors
/// When SSM cannot be asked, still not at the end; at once when the credentials are refused.
pub async fn wait(
    cloud: &Cloud,
    deployment: &Deployment,
    door: &Door,
    limit: Duration,
    progress: &Progress,
    interrupt: &Interrupt,
) -> Result<Vec<Waiting>, CloudError> {
    let start = Instant::now();
    loop {
        let mut rows = Vec::new();
        let mut seen = match look(cloud, deployment).await {
            Ok(hosts) => {
                let now = OffsetDateTime::now_utc();
                rows = hosts.iter().map(|host| host.row(now)).collect();
                Ok(judge(&hosts))
            }
            Err(error) if error.is_about_access() => return Err(error),
            // A network that is away for a moment says nothing about the hosts.
            Err(error) => Err(error),
        };
        let mut limit = limit;
        if let Ok(waiting) = &mut seen
            && waiting.is_empty()
        {
            let Err(answer) = door.ask().await else {
                return seen;
            };
            waiting.push(not_ready(deployment, &answer));
            rows.push(Row {
                name: "the API".to_owned(),
                state: format!("is not ready: {answer}"),
                age: None,
            });
            limit = limit.max(READY_PATIENCE);
        }
        if start.elapsed() + EVERY > limit {
            return seen;
        }
        match &seen {
            Ok(_) => progress.rows("waiting", &rows),
            Err(error) => progress.line(&format!("waiting: {error}")),
        }
        tokio::select! {
            () = sleep(EVERY) => {}
            () = interrupt.requested() => return seen,
        }
    }
}

fn not_ready(deployment: &Deployment, seen: &str) -> Waiting {
    Waiting {
        host: Role::Backend,
        instance_id: deployment.backend.instance_id.clone(),
        step: None,
        reason: format!("has reported complete, but the API is not ready: {seen}"),
    }
}

/// All of them on one line.
#[must_use]
pub fn describe(waiting: &[Waiting]) -> String {
    let one = |waiting: &Waiting| {
        format!(
            "{} ({}) {}",
            waiting.host, waiting.instance_id, waiting.reason
        )
    };
    waiting.iter().map(one).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(instance_id: &str, report: &str) -> Host {
        Host {
            role: Role::Backend,
            instance_id: instance_id.into(),
            report: ReportState::parse(report),
        }
    }

    fn report(step: &str, error: &str) -> String {
        format!(
            r#"{{"instance_id":"i-1","image_id":"ami-1","role":"backend","step":"{step}","started_at":"2026-11-20T10:00:00Z",
            "updated_at":"2026-11-20T10:00:05Z","finished_at":null,"error":{error}}}"#
        )
    }

    #[test]
    fn only_complete_for_the_instance_that_runs_now_opens_the_gate() {
        assert!(judge(&[host("i-1", &report("complete", "null"))]).is_empty());
        let replaced = judge(&[host("i-2", &report("complete", "null"))]);
        assert_eq!(replaced[0].step, None);
        assert!(replaced[0].reason.contains("of i-1"), "{replaced:?}");
    }

    #[test]
    fn a_row_says_step_and_age_of_the_instance_that_runs_now() {
        let now = time::macros::datetime!(2026-11-20 10:00:17 UTC);
        let row = host("i-1", &report("seal", "null")).row(now);
        assert_eq!(
            (row.state.as_str(), row.age),
            (
                "stands at step seal (5 of 7)",
                Some(Duration::from_secs(12))
            )
        );
        // A clock that is ahead of ours is no negative age.
        let ahead = host("i-1", &report("seal", "null")).row(now - Duration::from_secs(60));
        assert_eq!(ahead.age, Some(Duration::ZERO));
        let complete = host("i-1", &report("complete", "null")).row(now);
        assert_eq!(
            (complete.state.as_str(), complete.age),
            ("is complete", None)
        );
        assert_eq!(host("i-2", &report("seal", "null")).row(now).age, None);
    }

    #[test]
    fn who_waits_is_named_with_step_and_error() {
        let waiting = judge(&[host(
            "i-1",
            &report("wait-for-database", "\"no parameter\""),
        )]);
        assert_eq!(waiting[0].step.as_deref(), Some("wait-for-database"));
        assert_eq!(
            describe(&waiting),
            "backend (i-1) stands at step wait-for-database (4 of 7): no parameter"
        );
        let waiting = judge(&[host("i-1", "pending"), host("i-1", "sesame")]);
        assert!(
            waiting[0].reason.contains("not reported")
                && waiting[1].reason.contains("cannot be read")
        );
    }
}
