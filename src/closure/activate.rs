//! Has a host activate what is staged there, sees the new system at work over a fresh connection, and only then confirms.

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::remote::{Remote, RemoteError};
use crate::appliance::Role;
use crate::appliance::store::StorePath;
use crate::appliance::system::{Activation, Phase, Probe, SystemStatus};
use crate::nat::door::Door;
use crate::progress::Progress;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// Above the host's own limits: ten minutes for migrations, three for a switch.
const SWITCH_LIMIT: Duration = Duration::from_secs(14 * 60);
/// The host begins to go back at its deadline; units stop within 45 s.
const BACK_LIMIT: Duration = Duration::from_secs(5 * 60);

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The new system runs, was seen at work, and boots.
    Confirmed,
    /// It was that already.
    Current,
    /// The old system runs again, and was seen at work.
    RolledBack,
    /// The old system was never touched.
    Failed,
    /// Not known, or not proven.
    Unknown,
}

/// What is known at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// What was seen, or why not.
    pub reason: String,
}

fn ended(outcome: Outcome, reason: impl Into<String>) -> Ended {
    let reason = reason.into();
    Ended { outcome, reason }
}

/// Everything it takes.
pub struct Activating<'a, 'b> {
    /// The host.
    pub remote: &'a mut Remote<'b>,
    /// The API from outside, for the backend.
    pub door: Option<Door>,
    /// Where to show how far it is.
    pub progress: &'a Progress,
}

impl Activating<'_, '_> {
    /// From `activate` to the end, whichever it is.
    ///
    /// # Errors
    /// If the host refuses, or does not say that it has begun: nothing was changed then.
    pub async fn run(mut self, confirm_timeout: u64) -> Result<(Activation, Ended), RemoteError> {
        let host = self.remote.host;
        let words = format!("activate --role {host} --confirm-timeout {confirm_timeout}");
        let begun: Activation = self.remote.ask(&words, tokio::io::empty()).await?;
        let over = |last: &Activation| last.phase == Phase::Waiting || last.phase.is_over();
        let switched = match self.until(&begun, SWITCH_LIMIT, over).await {
            Ok(switched) => switched,
            Err(seen) => {
                let reason = format!("{host} does not say how the switch ended: {seen}");
                return Ok((begun, ended(Outcome::Unknown, reason)));
            }
        };
        if switched.phase != Phase::Waiting {
            return self.concluded(switched).await;
        }
        let deadline = Instant::now() + Duration::from_secs(confirm_timeout);
        let last_seen = match self.proven(&switched, deadline).await {
            Ok(seen) => match self.confirm(&switched).await {
                Ok(confirmed) => return Ok((confirmed, ended(Outcome::Confirmed, seen))),
                Err(error) => error.to_string(),
            },
            Err(seen) => seen,
        };
        self.progress
            .line(&format!("{host}: {last_seen}; waiting for it to go back"));
        match self
            .until(&switched, BACK_LIMIT, |last| last.phase.is_over())
            .await
        {
            // The word that confirmed had arrived, its answer had not.
            Ok(last) if last.phase == Phase::Confirmed => {
                Ok((last, ended(Outcome::Confirmed, last_seen)))
            }
            Ok(mut last) => {
                last.reason = format!("{last_seen}; {}", last.reason);
                self.concluded(last).await
            }
            Err(seen) => {
                let reason = format!("{last_seen}; whether {host} went back is not known: {seen}");
                Ok((switched, ended(Outcome::Unknown, reason)))
            }
        }
    }

    /// An activation that ended without us.
    async fn concluded(&mut self, last: Activation) -> Result<(Activation, Ended), RemoteError> {
        if last.phase == Phase::Failed {
            let reason = last.reason.clone();
            return Ok((last, ended(Outcome::Failed, reason)));
        }
        let from = last.from.clone();
        let mut seen = String::new();
        self.remote.hang_up().await;
        for _ in 0..20 {
            match self.look(&from.toplevel).await {
                Ok(_) => {
                    let reason = last.reason.clone();
                    return Ok((last, ended(Outcome::RolledBack, reason)));
                }
                Err(other) => seen = other,
            }
            sleep(PAUSE).await;
        }
        let reason = format!(
            "{}; the old system does not prove well: {seen}",
            last.reason
        );
        Ok((last, ended(Outcome::Unknown, reason)))
    }

    /// Asks how far the activation is until `enough`; else the last thing seen.
    async fn until(
        &mut self,
        begun: &Activation,
        limit: Duration,
        enough: impl Fn(&Activation) -> bool,
    ) -> Result<Activation, String> {
        let deadline = Instant::now() + limit;
        loop {
            let asked = self
                .remote
                .ask::<SystemStatus>("status", tokio::io::empty())
                .await;
            let seen = match asked.map(|status| status.activation) {
                Ok(Some(last)) if last.to != begun.to => {
                    return Err(format!(
                        "another activation, of generation {}",
                        last.to.number
                    ));
                }
                Ok(Some(last)) if enough(&last) => return Ok(last),
                Ok(Some(last)) => last.phase.to_string(),
                Ok(None) => "no activation".to_owned(),
                Err(error) => error.to_string(),
            };
            self.progress.line(&format!("{}: {seen}", self.remote.host));
            if Instant::now() > deadline {
                return Err(seen);
            }
            sleep(PAUSE).await;
        }
    }

    /// Signs in anew and looks until the new system is seen at work; else the last thing seen. Only once, where the
    /// connection holds: the bastion counts who knocks how often.
    async fn proven(&mut self, switched: &Activation, deadline: Instant) -> Result<String, String> {
        self.remote.hang_up().await;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let looked = tokio::time::timeout(left, self.look(&switched.to.toplevel)).await;
            let seen = match looked {
                Ok(Ok(seen)) => return Ok(seen),
                Ok(Err(seen)) => seen,
                Err(_) => return Err("no answer until the deadline".to_owned()),
            };
            self.progress.line(&format!("{}: {seen}", self.remote.host));
            if Instant::now() + PAUSE > deadline {
                return Err(seen);
            }
            sleep(PAUSE).await;
        }
    }

    /// One look. The caller has made sure that the connection is one from after the switch.
    async fn look(&mut self, wanted: &StorePath) -> Result<String, String> {
        let role = self.remote.host;
        let words = format!("probe --role {role}");
        let probe: Probe = self
            .remote
            .ask(&words, tokio::io::empty())
            .await
            .map_err(|error| error.to_string())?;
        if probe.current.as_ref() != Some(wanted) {
            let other = probe
                .current
                .map_or_else(|| "no system of the store".to_owned(), |it| it.to_string());
            return Err(format!("{other} runs there"));
        }
        if !probe.healthy {
            return Err(probe.seen);
        }
        match &self.door {
            Some(door) if role == Role::Backend => {
                let outside = door.ask().await?;
                Ok(format!("{}; {outside}", probe.seen))
            }
            _ => Ok(probe.seen),
        }
    }

    async fn confirm(&mut self, switched: &Activation) -> Result<Activation, RemoteError> {
        let words = format!("confirm --generation {}", switched.to.number);
        self.remote.ask(&words, tokio::io::empty()).await
    }
}
