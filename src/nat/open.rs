//! Opening the window for a time: look, plan, write, apply, wait for the route, run the command, and close in every case.
//!
//! The time is a lease: its end stands in the position file and in the cloud, as the deadline at which AWS deletes the
//! gateway. So a machine that vanishes in the middle leaves a window that ends by itself, and a file that says so.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

use super::agreed::Agreed;
use super::child::{self, Ended};
use super::close::{self, UNTIL, VARIABLE};
use super::cost::cost;
use super::error::NatError;
use super::finish::close_in_any_case;
use super::look::{applied, look};
use super::position::{Position, instant_text};
use super::refusal::{judge_opening, other_deployment};
use super::report::{self, Outcome};
use super::status::for_people;
use super::until;
use super::window::{InState, RESOURCES};
use crate::cloud::{Cloud, GatewayState};
use crate::error_chain::chain;
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::terraform::{Deployment, Terraform, TerraformError, executable};

/// The longest lease: the longest deadline of `nat_gateway_max_hours`.
pub const LONGEST: Duration = Duration::from_secs(168 * 3600);

/// The lease in the cloud ends this much later than the time asked for: an orderly close must win against the switch,
/// which leaves the address behind. Opening takes up to three minutes on AWS, closing as many, and proofs another two.
pub const GRACE: Duration = Duration::from_secs(10 * 60);

/// What closing keeps of [`GRACE`], should opening have taken longer than usual.
const RESERVE: Duration = Duration::from_secs(5 * 60);

/// Terraform has waited for the gateway already; a route works within seconds.
const ROUTE_LIMIT: Duration = Duration::from_secs(120);
const EVERY: Duration = Duration::from_secs(2);

/// A Ctrl-C that ends the command reaches us too, a moment sooner or later; it is none against the close.
const SETTLE: Duration = Duration::from_millis(100);

/// How often somebody who only watches is told that the window is still open.
const MENTION: Duration = Duration::from_secs(60);

/// What to open the window for.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long the command may take, or the window stands without one.
    pub time: Duration,
    /// What the window is opened for.
    pub work: Work,
    /// Open even though the plan wants more than the window: the rest is for the command.
    pub leave_rest: bool,
    /// How to close; the gating is this module's.
    pub close: close::Options,
}

/// What the window is opened for.
#[derive(Clone, Debug)]
pub enum Work {
    /// Nothing of ours: it stands until the time is over, or until Ctrl-C.
    Watch,
    /// Program and arguments, run in this terminal.
    Command(Vec<String>),
    /// Changes that somebody has seen and agreed to; none, where hosts are to finish their bootstrap only.
    Apply(Agreed),
}

/// What happened. `--report` writes this.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Name of the deployment.
    pub deployment: String,
    /// Why nothing was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// `nat-…` that was opened; null when opening did not come that far.
    pub gateway: Option<String>,
    /// When AWS would have deleted it.
    #[serde(with = "time::serde::rfc3339")]
    pub lease_until: OffsetDateTime,
    /// Why opening failed half-way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// How the command ended; null when there was none, or it was not started.
    pub command: Option<Ended>,
    /// What the close that followed did and saw: as `nat close --json` prints it.
    pub close: Option<report::Report>,
    /// Why the close ended without a report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close_failure: Option<String>,
    /// Seconds spent waiting for terraform, those of the close included.
    pub terraform_seconds: f64,
    /// Nothing of the window is left, and there is no deployment yet to prove it by.
    #[serde(skip)]
    pub(crate) is_cleared: bool,
    #[serde(skip)]
    was_interrupted: bool,
}

impl Report {
    pub(crate) fn new(deployment: &str, lease_until: OffsetDateTime) -> Self {
        Self {
            deployment: deployment.to_owned(),
            refusal: None,
            gateway: None,
            lease_until,
            failure: None,
            command: None,
            close: None,
            close_failure: None,
            terraform_seconds: 0.0,
            is_cleared: false,
            was_interrupted: false,
        }
    }

    /// The same with why it did not come to its end.
    pub(crate) fn fail(&mut self, failure: String, was_interrupted: bool) {
        self.failure = Some(failure);
        self.was_interrupted = was_interrupted;
    }

    fn refused(self, refusal: &(dyn std::error::Error + 'static)) -> Self {
        Self {
            refusal: Some(chain(refusal)),
            ..self
        }
    }

    /// Whether the cloud says that nothing stands any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.is_cleared || self.close.as_ref().is_some_and(report::Report::is_gone)
    }

    /// The command's own status; where it has none, or 0, what opening and closing came to.
    #[must_use]
    pub fn status(&self) -> u8 {
        if self.refusal.is_some() {
            return Exit::Refused as u8;
        }
        let of_command = self.command.as_ref().map(|ended| ended.status);
        if let Some(status) = of_command.filter(|status| *status != 0) {
            return status;
        }
        if self.failure.is_some() {
            let exit = if self.was_interrupted {
                Exit::Interrupted
            } else {
                Exit::Failed
            };
            return exit as u8;
        }
        let exit = match &self.close {
            // A close that refuses leaves open what was opened.
            Some(close) if close.outcome == Outcome::Refused => Exit::Failed,
            Some(close) => close.outcome.exit(),
            None if self.was_interrupted => Exit::Interrupted,
            None => Exit::Failed,
        };
        exit as u8
    }
}

/// Finds the command before the window costs anything.
///
/// # Errors
/// A text that names it.
pub fn find_command(words: &[String]) -> Result<(), String> {
    let Some(program) = words.first() else {
        return Ok(());
    };
    let is_there = if program.contains('/') {
        Path::new(program).exists()
    } else {
        executable(program, std::env::var_os("PATH").as_deref()).is_some()
    };
    if is_there {
        Ok(())
    } else {
        Err(format!(
            "there is no command `{program}`; the window was not opened: name one that `command -v` finds"
        ))
    }
}

/// Opens the window, runs the command, and closes in every case once anything has been changed.
///
/// # Errors
/// [`NatError`] when something could not be read before anything was changed; a refusal is a [`Report`].
pub async fn open(
    terraform: &Terraform,
    options: &Options,
    progress: &Progress,
    interrupt: &Interrupt,
) -> Result<Report, NatError> {
    Position::read(terraform.directory())?;
    let spent = terraform.spent();
    progress.line("looking at the deployment");
    let (deployment, in_state) = applied(terraform).await?;
    let opening = Opening::new(terraform, &deployment, options, progress, interrupt).await;
    let report = Report::new(&deployment.name, opening.lease_until);
    let (before, plan) = match opening.prepare(in_state).await {
        Ok(Ok(prepared)) => prepared,
        Ok(Err(refusal)) => return Ok(report.refused(&refusal)),
        Err(error) if error.is_refusal() => return Ok(report.refused(&error)),
        Err(error) => return Err(error),
    };
    if interrupt.count() > 0 {
        return Err(NatError::Interrupted);
    }
    opening.announce();
    opening.position().write(terraform.directory())?;
    // From here on whatever happens ends with a close.
    let opened = match terraform.apply(&plan).await {
        Ok(()) => opening.route().await,
        Err(error @ TerraformError::Locked { .. }) => {
            before.write(terraform.directory())?;
            return Ok(report.refused(&error));
        }
        Err(error) => Err(format!(
            "opening did not finish, closing what there is: {}",
            chain(&error)
        )),
    };
    let mut report = report;
    let start = Instant::now();
    // Never into what closing needs before AWS acts by itself.
    let end = (start + options.time).min(opening.began + options.time + GRACE - RESERVE);
    match opened {
        Ok(gateway) => {
            report.gateway = Some(gateway);
            if interrupt.count() == 0 {
                report.command = opening.hold(end).await;
            } else {
                report.was_interrupted = true;
                report.failure = Some("interrupted before the command was started".to_owned());
            }
        }
        Err(failure) => {
            progress.say(&failure);
            report.was_interrupted = interrupt.count() > 0;
            report.failure = Some(failure);
        }
    }
    let progress = progress.again();
    sleep(SETTLE).await;
    let interrupt = interrupt.from_now();
    match close_in_any_case(terraform, &options.close, end, &progress, &interrupt).await {
        Ok(closed) => report.close = Some(closed),
        Err(error) => {
            report.was_interrupted |= interrupt.count() > 1;
            report.close_failure = Some(chain(&error));
        }
    }
    report.terraform_seconds = (terraform.spent() - spent).as_secs_f64();
    Ok(report)
}

struct Opening<'a> {
    terraform: &'a Terraform,
    cloud: Cloud,
    deployment: &'a Deployment,
    options: &'a Options,
    progress: &'a Progress,
    interrupt: &'a Interrupt,
    began: Instant,
    lease_until: OffsetDateTime,
}

impl<'a> Opening<'a> {
    async fn new(
        terraform: &'a Terraform,
        deployment: &'a Deployment,
        options: &'a Options,
        progress: &'a Progress,
        interrupt: &'a Interrupt,
    ) -> Self {
        let until = OffsetDateTime::now_utc() + options.time + GRACE;
        Self {
            terraform,
            cloud: Cloud::new(&deployment.region).await,
            deployment,
            options,
            progress,
            interrupt,
            began: Instant::now(),
            lease_until: until.replace_nanosecond(0).unwrap_or(until),
        }
    }

    fn position(&self) -> Position {
        Position::Leased {
            until: self.lease_until,
        }
    }

    /// Looks, plans and judges; changes nothing. Returns the position as it was, and the plan.
    async fn prepare(
        &self,
        in_state: InState,
    ) -> Result<Result<(Position, crate::terraform::Plan), super::refusal::Refusal>, NatError> {
        let seen = tokio::select! {
            seen = look(self.terraform, &self.cloud, self.deployment, in_state) => seen?,
            () = self.interrupt.requested() => return Err(NatError::Interrupted),
        };
        if let Err(refusal) = seen.may_open() {
            return Ok(Err(refusal));
        }
        self.progress.line("planning");
        let until = instant_text(self.lease_until);
        let open = [(VARIABLE, "true"), (UNTIL, until.as_str())];
        let mut plan = self.terraform.plan(&open).await?;
        if let Err(refusal) = judge_opening(&plan.changes) {
            let variables = self.terraform.planned_variables(&plan).await?;
            if let Some(reason) = other_deployment(self.deployment, &variables) {
                return Ok(Err(reason));
            }
            if !self.options.leave_rest {
                return Ok(Err(refusal));
            }
            plan = self.terraform.plan_only(&open, &RESOURCES).await?;
            if let Err(refusal) = judge_opening(&plan.changes) {
                return Ok(Err(refusal));
            }
        }
        Ok(Ok((seen.position, plan)))
    }

    /// Who spends money is told before.
    fn announce(&self) {
        let Self { deployment, .. } = self;
        self.progress.say(&format!(
            "opening the NAT window of {} for {}: about {}",
            deployment.name,
            for_people(self.options.time.as_secs()),
            cost(&deployment.region, self.options.time)
        ));
        self.progress.say(&format!(
            "it is closed at the end in every case; from another terminal `drawbridge nat close` ends it; should this machine vanish, AWS deletes the gateway at {}",
            instant_text(self.lease_until)
        ));
    }

    /// Waits until the private hosts have their way out; returns the gateway.
    async fn route(&self) -> Result<String, String> {
        self.progress.line("waiting for the route");
        let look = async || {
            let Deployment {
                name,
                vpc_id,
                account_id,
                private_route_table_id: table,
                ..
            } = self.deployment;
            let seen = tokio::try_join!(
                self.cloud.gateways(name, vpc_id),
                self.cloud.private_route(account_id, table)
            );
            let (gateways, route) = seen.map_err(|error| chain(&error))?;
            let ours = gateways
                .iter()
                .find(|gateway| gateway.is_tagged && gateway.is_standing());
            let gateway = ours.ok_or("no gateway stands")?;
            if gateway.state != GatewayState::Available {
                return Err(format!("{} is {}", gateway.id, gateway.state));
            }
            match route {
                None => Err("the private subnets have no route to it yet".to_owned()),
                Some(route) if route.target == gateway.id && !route.is_blackhole => {
                    Ok(gateway.id.clone())
                }
                Some(route) => Err(format!(
                    "the private subnets' route leads to {}",
                    route.target
                )),
            }
        };
        until(ROUTE_LIMIT, EVERY, self.interrupt, look)
            .await
            .map_err(|seen| format!("the window did not open: {seen}"))
    }

    /// Runs the command, or waits, until `end` at most.
    async fn hold(&self, end: Instant) -> Option<Ended> {
        let ended = match &self.options.work {
            Work::Watch => {
                self.watch(end).await;
                return None;
            }
            Work::Command(words) => {
                self.progress
                    .say(&format!("open; running {}", words.join(" ")));
                // The terminal is the command's now.
                self.progress.clear();
                child::run(words, end, self.interrupt).await
            }
            Work::Apply(agreed) => agreed.apply(self.terraform, end, self.progress).await,
        };
        if let Some(said) = &ended.said {
            self.progress.say(said);
        }
        Some(ended)
    }

    async fn watch(&self, end: Instant) {
        self.progress.say("open; Ctrl-C closes it");
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.progress
                .line(&format!("open for another {}", for_people(left.as_secs())));
            tokio::select! {
                () = sleep(left.min(MENTION)) => {}
                () = self.interrupt.requested() => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_4_is_kept_for_what_was_not_opened() {
        let mut report = Report::new("drawbridge", OffsetDateTime::now_utc());
        report.close = Some(report::Report {
            deployment: report.deployment.clone(),
            outcome: Outcome::Refused,
            refusal: Some("a gateway that is not the window's".to_owned()),
            waiting: Vec::new(),
            proofs: Vec::new(),
            left_out: Vec::new(),
            window: None,
            phases: Vec::new(),
            seconds: 0.0,
            terraform_seconds: 0.0,
        });
        assert_eq!((report.status(), report.is_closed()), (1, false));
        report.refusal = Some("the window is open already".to_owned());
        assert_eq!(report.status(), 4);
    }
}
