//! Looks, plans, asks, and does what [`super::decide`] says.

use std::io::IsTerminal as _;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::time::Instant;

use super::browser::is_ci;
use super::decide::{self, Course, Refusal, Seen, Way, also_replace, course, summary};
use crate::cloud::Cloud;
use crate::error_chain::chain;
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::nat::agreed::Agreed;
use crate::nat::close::{self, UNTIL, VARIABLE};
use crate::nat::cost::cost;
use crate::nat::door::Door;
use crate::nat::error::NatError;
use crate::nat::finish::{clear_unfinished, close_in_any_case};
use crate::nat::gate::{self, Gating, Waiting, describe};
use crate::nat::look::{applied, look};
use crate::nat::open::{self, GRACE, Work};
use crate::nat::position::{Position, instant_text};
use crate::nat::proof::{Proof, api_ready};
use crate::nat::refusal::{self, other_deployment};
use crate::nat::report;
use crate::nat::status::for_people;
use crate::nat::window::InState;
use crate::progress::Progress;
use crate::terraform::{Deployment, Plan, Terraform, TerraformError};

/// How to bring it up.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long the window may stand at most, but for closing it.
    pub time: Duration,
    /// Apply without asking.
    pub yes: bool,
    /// Terraform addresses to make anew whether they need it or not.
    pub replace: Vec<String>,
    /// How a window is closed and proven closed; the gating is this module's.
    pub close: close::Options,
}

/// What it came to.
#[derive(Debug)]
pub enum Outcome {
    /// Nothing was to be done; whether the API is ready.
    Nothing(Proof),
    /// Applied without a window; whether the API is ready.
    Applied(Proof),
    /// Applied with a window.
    Windowed {
        /// What opening, applying and closing came to.
        report: Box<open::Report>,
        /// The private hosts that the window was closed under.
        waiting: Vec<Waiting>,
    },
    /// What the last window had left could not be cleared.
    NotCleared(Box<report::Report>),
}

/// Why it ended without an outcome.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// A rule of this command.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A rule of the window.
    #[error(transparent)]
    Window(#[from] refusal::Refusal),
    /// Something could not be read; nothing was changed.
    #[error(transparent)]
    Nat(#[from] NatError),
    /// Terraform may have stopped half-way; the window was closed before and is still.
    #[error("the apply did not finish: run `drawbridge up` again, it goes on from what stands")]
    Apply(#[source] TerraformError),
}

impl From<TerraformError> for UpError {
    fn from(error: TerraformError) -> Self {
        Self::Nat(error.into())
    }
}

impl UpError {
    /// Whether it names what stands in the way and nothing was changed.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Window(_) => true,
            Self::Nat(error) => error.is_refusal(),
            Self::Apply(error) => matches!(error, TerraformError::Locked { .. }),
        }
    }
}

/// What an apply that came to its end has left.
struct Standing {
    deployment: Deployment,
    cloud: Cloud,
    in_state: InState,
}

/// Brings the deployment of `terraform`'s directory up.
///
/// # Errors
/// [`UpError`]
pub async fn up(
    terraform: &Terraform,
    options: &Options,
    progress: &Progress,
    interrupt: &Interrupt,
) -> Result<Outcome, UpError> {
    let run = Run {
        terraform,
        options,
        progress,
        interrupt,
    };
    let (way, standing) = match run.prepare().await? {
        (Way::ClearFirst, standing) => match run.clear().await? {
            None => (Way::AsFiles, standing),
            Some(not_cleared) => return Ok(Outcome::NotCleared(Box::new(not_cleared))),
        },
        prepared => prepared,
    };
    run.carry_out(way, standing).await
}

struct Run<'a> {
    terraform: &'a Terraform,
    options: &'a Options,
    progress: &'a Progress,
    interrupt: &'a Interrupt,
}

impl Run<'_> {
    /// Looks at what stands, and decides how to plan. Changes nothing but what `terraform init` does.
    async fn prepare(&self) -> Result<(Way, Option<Standing>), UpError> {
        let position = Position::read(self.terraform.directory()).map_err(NatError::from)?;
        if !self.terraform.is_initialised() {
            self.init().await?;
        }
        self.progress.begin("looking at the deployment");
        let applied = match applied(self.terraform).await {
            Err(NatError::Terraform(TerraformError::NotInitialised { .. })) => {
                self.init().await?;
                applied(self.terraform).await
            }
            applied => applied,
        };
        let mut seen = Seen {
            is_ci: is_ci(),
            backend: self.terraform.backend(),
            position,
            window: None,
        };
        let (deployment, in_state) = match applied {
            Ok(applied) => applied,
            Err(NatError::Terraform(TerraformError::NotApplied { .. })) => {
                return Ok((seen.way()?, None));
            }
            Err(error) => return Err(error.into()),
        };
        let cloud = Cloud::new(&deployment.region).await;
        let window = tokio::select! {
            window = look(self.terraform, &cloud, &deployment, in_state.clone()) => window?,
            () = self.interrupt.requested() => return Err(NatError::Interrupted.into()),
        };
        // A gateway of somebody else's keeps a window from being opened and from being closed.
        window.steps_to_close(true)?;
        seen.window = Some(window.window());
        let standing = Standing {
            deployment,
            cloud,
            in_state,
        };
        Ok((seen.way()?, Some(standing)))
    }

    async fn init(&self) -> Result<(), UpError> {
        self.progress.begin("terraform init");
        Ok(self.terraform.init().await?)
    }

    /// Clears what the last window has left; how that ended, if it did not end well.
    async fn clear(&self) -> Result<Option<report::Report>, UpError> {
        self.progress.say(
            "the last window was not closed in order: clearing what it has left, which opens nothing",
        );
        let how = close::Options {
            gating: Gating::Refuse,
            leave_rest: true,
            ..self.options.close.clone()
        };
        let closed = close::close(self.terraform, &how, self.progress, self.interrupt).await?;
        Ok((!closed.is_gone()).then_some(closed))
    }

    async fn carry_out(&self, way: Way, standing: Option<Standing>) -> Result<Outcome, UpError> {
        let until = OffsetDateTime::now_utc() + self.options.time + GRACE;
        let until = until.replace_nanosecond(0).unwrap_or(until);
        let text = instant_text(until);
        let variables: &[(&str, &str)] = match way {
            Way::Within => &[(VARIABLE, "true"), (UNTIL, &text)],
            Way::ClearFirst | Way::AsFiles => &[],
        };
        let (plan, replace) = self.plan(variables).await?;
        let waiting = match &standing {
            Some(standing) => self.waiting(standing).await?,
            None => Vec::new(),
        };
        let course = course(way, &plan.changes, plan.is_empty, &waiting);
        if course == Course::Nothing {
            let proof = self.is_ready().await?;
            return Ok(Outcome::Nothing(proof));
        }
        if let Some(standing) = standing.as_ref().filter(|_| !plan.is_empty) {
            let variables = self.terraform.planned_variables(&plan).await?;
            if let Some(reason) = other_deployment(&standing.deployment, &variables) {
                return Err(reason.into());
            }
        }
        self.show(&course, &plan, &waiting, standing.as_ref());
        agree(self.options.yes, "Go on?", self.progress, self.interrupt).await?;
        match course {
            Course::Nothing | Course::Apply => {
                self.progress.begin("applying");
                let applied = self.terraform.apply(&plan).await;
                applied.map_err(UpError::Apply)?;
                let proof = self.is_ready().await?;
                Ok(Outcome::Applied(proof))
            }
            Course::Lease { .. } => {
                let options = open::Options {
                    time: self.options.time,
                    work: Work::Apply(Agreed {
                        changes: plan.changes.clone(),
                        replace,
                    }),
                    leave_rest: true,
                    close: self.options.close.clone(),
                };
                let opened = open::open(self.terraform, &options, self.progress, self.interrupt);
                let report = opened.await?;
                self.windowed(report).await
            }
            Course::Within => {
                let report = self.within(&plan, until, standing.as_ref()).await?;
                self.windowed(report).await
            }
        }
    }

    /// A window that was closed in order proves nothing of hosts that needed longer than it stood.
    async fn windowed(&self, report: open::Report) -> Result<Outcome, UpError> {
        let is_done = report.status() == Exit::Done as u8;
        let waiting = match is_done {
            true => {
                let (deployment, in_state) = applied(self.terraform).await?;
                let cloud = Cloud::new(&deployment.region).await;
                let standing = Standing {
                    deployment,
                    cloud,
                    in_state,
                };
                self.waiting(&standing).await?
            }
            false => Vec::new(),
        };
        Ok(Outcome::Windowed {
            report: Box::new(report),
            waiting,
        })
    }

    /// Plans, with the backend made anew as well where the database is; the plan, and what it was told to replace.
    async fn plan(&self, variables: &[(&str, &str)]) -> Result<(Plan, Vec<String>), UpError> {
        let mut replace = self.options.replace.clone();
        loop {
            self.progress.begin("planning");
            let addresses: Vec<_> = replace.iter().map(String::as_str).collect();
            let planned = self.terraform.plan_replacing(variables, &addresses).await;
            let plan = match planned {
                // A state on this disk is read without what an `init` brings.
                Err(TerraformError::NotInitialised { .. }) => {
                    self.init().await?;
                    self.terraform.plan_replacing(variables, &addresses).await?
                }
                planned => planned?,
            };
            match also_replace(&plan.changes).filter(|also| !addresses.contains(also)) {
                Some(also) => replace.push(also.to_owned()),
                None => return Ok((plan, replace)),
            }
        }
    }

    /// The private hosts that run and are not complete.
    async fn waiting(&self, standing: &Standing) -> Result<Vec<Waiting>, UpError> {
        let look = gate::look(&standing.cloud, &standing.deployment);
        let hosts = tokio::select! {
            hosts = look => hosts.map_err(NatError::from)?,
            () = self.interrupt.requested() => return Err(NatError::Interrupted.into()),
        };
        Ok(gate::judge(&hosts))
    }

    fn show(&self, course: &Course, plan: &Plan, waiting: &[Waiting], standing: Option<&Standing>) {
        let say = |text: &str| self.progress.say(text);
        for line in summary(&plan.changes) {
            say(&line);
        }
        let time = for_people(self.options.time.as_secs());
        match course {
            Course::Nothing | Course::Apply => {
                say("no private host is made anew: the NAT window stays closed");
            }
            Course::Lease { made } => {
                if !made.is_empty() {
                    say(&format!(
                        "made anew, with the NAT window open: {}",
                        made.join(", ")
                    ));
                }
                if !waiting.is_empty() {
                    say(&format!(
                        "not complete yet, and in need of the window: {}",
                        describe(waiting)
                    ));
                }
            }
            Course::Within => {
                let first = "the first apply, with the NAT window in it";
                let stands = "a NAT window stands already: going on in it";
                say(standing.map_or(first, |_| stands));
                // Where nothing stands the region is the configuration's, and so is the price.
                let price = standing.map_or_else(String::new, |standing| {
                    let cost = cost(&standing.deployment.region, self.options.time);
                    format!("; about {cost}")
                });
                say(&format!(
                    "it stands for {time} at most and is closed at the end in every case{price}"
                ));
            }
        }
    }

    /// Applies a plan that has the window in it, and closes the window whatever comes of that.
    async fn within(
        &self,
        plan: &Plan,
        until: OffsetDateTime,
        standing: Option<&Standing>,
    ) -> Result<open::Report, UpError> {
        let name = standing.map_or("the deployment", |standing| &standing.deployment.name);
        let mut report = open::Report::new(name, until);
        report.gateway = standing.and_then(|standing| standing.in_state.gateway.clone());
        let directory = self.terraform.directory();
        let before = Position::read(directory).map_err(NatError::from)?;
        let position = Position::Leased { until };
        position.write(directory).map_err(NatError::from)?;
        let end = Instant::now() + self.options.time;
        self.progress.begin("applying");
        let limited = self.terraform.clone().with_apply_limit(self.options.time);
        let applied = match plan.is_empty {
            true => Ok(()),
            false => limited.apply(plan).await,
        };
        // Hosts that an apply was cut off in the middle of are not waited for.
        let end = match applied {
            Ok(()) => end,
            Err(error @ TerraformError::Locked { .. }) => {
                before.write(directory).map_err(NatError::from)?;
                return Err(error.into());
            }
            Err(error) => {
                let said = UpError::Apply(error);
                self.progress
                    .say(&format!("closing the window: {}", chain(&said)));
                report.fail(chain(&said), self.interrupt.count() > 0);
                Instant::now()
            }
        };
        let interrupt = self.interrupt.from_now();
        // Terraform that a signal has ended once has to run once more.
        let terraform = self.terraform.clone().with_interrupt(interrupt.clone());
        let how = &self.options.close;
        match close_in_any_case(&terraform, how, end, self.progress, &interrupt).await {
            Ok(closed) => report.close = Some(closed),
            // An apply that was cut off tells no deployment to close the window of.
            Err(NatError::Terraform(TerraformError::NotApplied { .. })) => {
                match clear_unfinished(&terraform).await {
                    Ok(()) => report.is_cleared = true,
                    Err(error) => report.close_failure = Some(chain(&error)),
                }
            }
            Err(error) => report.close_failure = Some(chain(&error)),
        }
        Ok(report)
    }

    async fn is_ready(&self) -> Result<Proof, UpError> {
        let deployment = self.terraform.deployment().await?;
        let base = self.options.close.url.as_deref();
        let base = base.map(|url| url.trim_end_matches('/'));
        let door = Door::of(&deployment.load_balancer, base);
        self.progress.begin("asking the API whether it is ready");
        Ok(api_ready(&door, self.interrupt).await)
    }
}

/// Where people read what the API offers.
///
/// # Errors
/// When terraform cannot tell.
pub async fn docs_url(terraform: &Terraform) -> Result<String, TerraformError> {
    let (deployment, told) =
        tokio::try_join!(terraform.deployment(), terraform.text_output("docs_url"))?;
    // People may have taken the output away; the program's own path is known.
    Ok(told.unwrap_or_else(|| format!("{}/docs", deployment.load_balancer.url)))
}

/// Asks on the terminal, unless `yes` was said before.
///
/// # Errors
/// [`Refusal::NobodyToAsk`], [`Refusal::Declined`], and an interrupt.
pub async fn agree(
    yes: bool,
    question: &str,
    progress: &Progress,
    interrupt: &Interrupt,
) -> Result<(), UpError> {
    if yes {
        return Ok(());
    }
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return Err(decide::Refusal::NobodyToAsk.into());
    }
    progress.say(&format!("{question} Only `yes` is taken:"));
    progress.pause();
    let mut answer = String::new();
    let mut stdin = BufReader::new(tokio::io::stdin());
    tokio::select! {
        // An input that cannot be read says nothing, which is no.
        _ = stdin.read_line(&mut answer) => {}
        () = interrupt.requested() => return Err(NatError::Interrupted.into()),
    }
    if answer.trim() == "yes" {
        progress.resume();
        Ok(())
    } else {
        Err(decide::Refusal::Declined.into())
    }
}
