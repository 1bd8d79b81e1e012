//! Telling everybody how far the bootstrap is: the journal, the serial console, a local file, and SSM while reachable.

use std::io::Write as _;
use std::sync::mpsc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::sleep;

use super::Host;
use super::file::{self, FileError};
use super::metadata::Identity;
use super::parameters::{Parameters, Value};
use super::wait::{GaveUp, Look, until};
use crate::appliance::{BootstrapReport, Role, Step, path};
use crate::error_chain::chain;

mod show;
pub use show::{ReportArgs, ReportError, show};

/// Leaves room for the other fields below SSM's 4096 bytes, also when every character needs an escape.
const LONGEST_ERROR: usize = 600;
/// A line takes some 10 ms at 115200 baud; a console that takes longer has stopped.
const CONSOLE_LIMIT: Duration = Duration::from_millis(250);
/// Between two attempts to reach SSM with the latest report.
const RETRY_PAUSE: Duration = Duration::from_secs(3);

/// The local copy: the report, and whether SSM has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct LocalState {
    #[serde(flatten)]
    report: BootstrapReport,
    /// Whether the report *complete* has reached SSM. Kept apart from `step`, so that a kill between the two neither
    /// repeats the steps nor leaves the operator waiting for a report that never comes.
    #[serde(default)]
    delivered: bool,
}

/// What a boot is for this instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boot {
    /// The state folder is empty, or holds an unfinished bootstrap of this instance.
    First,
    /// The state folder is another instance's: an image made from a running host. Its secrets must not be shared.
    Cloned,
    /// Bootstrapped, but SSM has not been told.
    Untold,
    /// Bootstrapped: nothing needs the internet.
    Again,
}

/// Keeps the report.
pub struct Reporter {
    host: Host,
    state: LocalState,
    known: bool,
    boot: Boot,
    remote: Option<Remote>,
}

impl Reporter {
    /// Takes up the local report, if there is one.
    ///
    /// # Errors
    /// When the file is there but cannot be read. One that is not a report is journalled and counts as none.
    pub fn open(host: &Host) -> Result<Self, FileError> {
        let text = file::read(&host.path(path::REPORT))?;
        let state = text.and_then(|text| match serde_json::from_str(&text) {
            Ok(state) => Some(state),
            Err(error) => {
                tracing::warn!(%error, "{} is not a report; starting anew: {error}", path::REPORT);
                None
            }
        });
        let known = state.is_some();
        let now = OffsetDateTime::now_utc();
        let state = state.unwrap_or(LocalState {
            report: BootstrapReport {
                instance_id: None,
                image_id: None,
                role: None,
                step: Step::Metadata,
                started_at: now,
                updated_at: now,
                finished_at: None,
                error: None,
            },
            delivered: false,
        });
        Ok(Self {
            host: host.clone(),
            state,
            known,
            boot: Boot::Again,
            remote: None,
        })
    }

    /// Decides what this boot is, now that the instance and its role are known. `again` wants a first boot anyway.
    pub fn begin(&mut self, identity: &Identity, role: Role, again: bool) -> Boot {
        let LocalState { report, delivered } = &mut self.state;
        let before = report.instance_id.replace(identity.instance_id.clone());
        let same = before.as_deref() == Some(identity.instance_id.as_str());
        self.boot = match report.step {
            Step::Complete if same && !again && *delivered => Boot::Again,
            Step::Complete if same && !again => Boot::Untold,
            _ if same || before.is_none() => Boot::First,
            _ => Boot::Cloned,
        };
        report.image_id = Some(identity.image_id.clone());
        report.role = Some(role);
        if matches!(self.boot, Boot::First | Boot::Cloned) {
            *delivered = false;
            if !same || report.step == Step::Complete || !self.known {
                report.started_at = OffsetDateTime::now_utc();
            }
            report.finished_at = None;
        }
        self.boot
    }

    fn is_bootstrapped(&self) -> bool {
        matches!(self.boot, Boot::Untold | Boot::Again)
    }

    /// From now on SSM is told as well, as far as it can be reached.
    pub fn tell(&mut self, parameters: Parameters, name: String) {
        self.remote = Some(Remote::start(parameters, name));
    }

    /// A step begins. Before [`Reporter::begin`], and on a bootstrapped instance only journal and console hear of it: the report stays *complete*.
    ///
    /// # Errors
    /// When the local report cannot be written.
    pub fn enter(&mut self, step: Step) -> Result<(), FileError> {
        tracing::info!(%step, "bootstrap step {step}");
        self.console(&format!("step {step}"));
        if self.is_bootstrapped() {
            return Ok(());
        }
        self.state.report.step = step;
        self.state.report.error = None;
        self.save()?;
        self.send();
        Ok(())
    }

    /// The bootstrap stops; the next run takes it up again.
    pub async fn fail(&mut self, step: Step, error: &str) {
        let error = one_line(error);
        tracing::error!(%step, error, "bootstrap stopped at {step}: {error}");
        self.console(&format!("STOPPED at {step}: {error}"));
        // "Complete" is never taken back by a reboot, nor where it is not even known yet which instance this is.
        if !self.is_bootstrapped() || self.state.report.step != Step::Complete {
            self.state.report.step = step;
        }
        self.state.report.error = Some(error);
        if let Err(error) = self.save() {
            let error = chain(&error);
            tracing::error!(error, "the report could not be kept: {error}");
        }
        if !self.is_bootstrapped() {
            self.send();
            // A courtesy: the operator learns the reason now and not from the console. Not worth a long wait.
            let _ = self.delivered(Duration::from_secs(10)).await;
        }
    }

    /// Every step is done. Returns when SSM has the report, if it needs to.
    ///
    /// # Errors
    /// When the local report cannot be written, or SSM was not reached within `limit`: then the next run tells it.
    pub async fn complete(&mut self, limit: Duration) -> Result<BootstrapReport, CompleteError> {
        self.state.report.error = None;
        if !self.is_bootstrapped() {
            self.state.report.step = Step::Complete;
            self.state.report.finished_at = Some(OffsetDateTime::now_utc());
        }
        // Before SSM hears of it: once the operator reads "complete" the window may close, and nothing may repeat.
        self.save()?;
        if !self.state.delivered {
            self.send();
            self.delivered(limit).await?;
            self.state.delivered = true;
            self.save()?;
        }
        tracing::info!("bootstrap complete");
        self.console("complete");
        Ok(self.state.report.clone())
    }

    fn save(&mut self) -> Result<(), FileError> {
        self.state.report.updated_at = OffsetDateTime::now_utc();
        let text = serde_json::to_string_pretty(&self.state)
            .map_err(std::io::Error::from)
            .map_err(FileError::while_doing("write", path::REPORT.as_ref()))?;
        file::write(&self.host.path(path::REPORT), text.as_bytes(), 0o644, None)
    }

    fn send(&mut self) {
        if let (Some(remote), Ok(text)) =
            (&mut self.remote, serde_json::to_string(&self.state.report))
        {
            remote.send(text);
        }
    }

    async fn delivered(&mut self, limit: Duration) -> Result<(), GaveUp> {
        match &mut self.remote {
            Some(remote) => remote.delivered(limit).await,
            None => Ok(()),
        }
    }

    /// Best effort, and in a thread of its own: a serial console can stop taking characters for as long as it likes.
    /// Waited for a moment, so that lines keep their order and the last one is out before the process ends.
    fn console(&self, line: &str) {
        let id = self
            .state
            .report
            .instance_id
            .as_deref()
            .unwrap_or("this instance");
        let text = format!("drawbridge bootstrap, {id}: {line}\r\n");
        let device = self.host.path(path::CONSOLE);
        let (written, wait) = mpsc::channel();
        std::thread::spawn(move || {
            let _ = std::fs::OpenOptions::new()
                .append(true)
                .open(device)
                .and_then(|mut console| console.write_all(text.as_bytes()));
            let _ = written.send(());
        });
        let _ = wait.recv_timeout(CONSOLE_LIMIT);
    }
}

/// A report did not get to where it must be.
#[derive(Debug, thiserror::Error)]
pub enum CompleteError {
    /// The local copy.
    #[error(transparent)]
    File(#[from] FileError),
    /// SSM.
    #[error(
        "every step is done, but SSM could not be told; leave the NAT window open and run `drawbridge-host bootstrap` again"
    )]
    NotDelivered(#[from] GaveUp),
}

/// One line without control characters, short enough for SSM.
fn one_line(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut line: String = clean.take(LONGEST_ERROR).collect();
    if line.len() < text.len() && text.chars().count() > LONGEST_ERROR {
        line.push('…');
    }
    line
}

/// The only writer of the SSM parameter: a task that always carries the latest report and so keeps the order.
struct Remote {
    number: u64,
    latest: watch::Sender<(u64, String)>,
    outcome: watch::Receiver<(u64, String)>,
}

impl Remote {
    fn start(parameters: Parameters, name: String) -> Self {
        let (latest, mut wanted) = watch::channel((0, String::new()));
        let (done, outcome) = watch::channel((0, String::from("nothing was sent yet")));
        tokio::spawn(async move {
            let mut delivered = 0;
            while wanted
                .wait_for(|(number, _)| *number > delivered)
                .await
                .is_ok()
            {
                let (number, text) = wanted.borrow_and_update().clone();
                match parameters.try_put(&name, &Value::Plain(&text)).await {
                    Ok(()) => {
                        delivered = number;
                        done.send_replace((number, "delivered".into()));
                    }
                    Err(error) => {
                        tracing::debug!(%error, "SSM has not heard yet: {error}");
                        done.send_modify(|(_, last)| *last = error.to_string());
                        sleep(RETRY_PAUSE).await;
                    }
                }
            }
        });
        Self {
            number: 0,
            latest,
            outcome,
        }
    }

    fn send(&mut self, text: String) {
        self.number += 1;
        self.latest.send_replace((self.number, text));
    }

    async fn delivered(&mut self, limit: Duration) -> Result<(), GaveUp> {
        let number = self.number;
        until(
            "SSM to take the report",
            limit,
            Duration::from_millis(200),
            async || {
                let (delivered, last) = self.outcome.borrow().clone();
                if delivered >= number {
                    Look::Done(())
                } else {
                    Look::NotYet(last)
                }
            },
        )
        .await
    }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
