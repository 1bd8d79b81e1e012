//! Closing the window: look, gate, adopt, plan, write, apply, prove.
//!
//! Nothing is changed before the plan has been judged, but for what the state did not know and is told; the position
//! file is written right before the apply. So a run that ends anywhere can be started again: what is done already shows
//! in the state, the cloud and the file.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use super::door::Door;
use super::error::NatError;
use super::gate::{self, Gating, HOSTS};
use super::look::{applied, look};
use super::position::{Position, instant_text};
use super::proof::{self, ProbeError, Proof};
use super::refusal::{judge_closing, other_deployment};
use super::report::{Outcome, Phase, Report, Stood};
use super::window::{Orphan, RESOURCES, Seen, Step};
use crate::appliance::Role;
use crate::bastion::{Access, Endpoint, Keyring, Login};
use crate::cloud::{Cloud, CloudError, Gateway};
use crate::error_chain::chain;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::terraform::{Deployment, Plan, Terraform};

/// Variable of `terraform/` that makes the window.
pub(crate) const VARIABLE: &str = "nat_gateway";
/// Variable of `terraform/` that holds a lease's end.
pub(crate) const UNTIL: &str = "nat_gateway_until";

/// How often more than one gateway or address is looked for: each turn removes one of each.
const TURNS: usize = 4;

/// `terraform import` refuses a configuration whose lease has ended, and with neither a lease nor `nat_gateway_max_hours`
/// one has no place for a schedule; what it is told instead lasts this long.
const IMPORT_LEASE: time::Duration = time::Duration::hours(1);

/// How to close.
#[derive(Clone, Debug)]
pub struct Options {
    /// What to do about hosts that still need the window.
    pub gating: Gating,
    /// Close even though the plan wants more than the window, and leave the rest as it is.
    pub leave_rest: bool,
    /// Lead the proofs also when all is closed already.
    pub prove: bool,
    /// Base address of the API instead of the load balancer's own (no slash at the end).
    pub url: Option<String>,
    /// What the private hosts try to reach, to show that they cannot; `None` = the region's SSM endpoint.
    pub egress_target: Option<Endpoint>,
    /// Where the bastion answers instead of its public address.
    pub bastion: Option<Endpoint>,
    /// The operator's keys.
    pub keys: Keyring,
    /// Sign in to no host: what only the hosts could show is left out, and the route table asked in its place.
    pub without_ssh: bool,
}

/// The host and port the private hosts try: AWS's own service that they needed for their bootstrap.
fn egress_target(options: &Options, region: &str) -> Endpoint {
    let endpoint = || {
        let url = std::env::var("AWS_ENDPOINT_URL_SSM")
            .or_else(|_| std::env::var("AWS_ENDPOINT_URL"))
            .ok()?;
        let (scheme, rest) = url.split_once("://")?;
        let authority = rest.split('/').next()?;
        let port = if scheme == "https" { 443 } else { 80 };
        authority
            .parse()
            .or_else(|_| format!("{authority}:{port}").parse())
            .ok()
    };
    let usual = || Endpoint {
        host: format!("ssm.{region}.amazonaws.com"),
        port: 443,
    };
    options
        .egress_target
        .clone()
        .or_else(endpoint)
        .unwrap_or_else(usual)
}

/// Closes the window of the deployment in `terraform`'s directory. With [`Gating::WaitThenClose`] the first signal ends
/// the waiting and no more than that.
///
/// # Errors
/// [`NatError`] when something could not be read or done; a refusal is a [`Report`].
pub async fn close(
    terraform: &Terraform,
    options: &Options,
    progress: &Progress,
    interrupt: &Interrupt,
) -> Result<Report, NatError> {
    // Before anything is asked: a malformed file is the user's to mend whatever the cloud says.
    Position::read(terraform.directory())?;
    let waits = matches!(options.gating, Gating::WaitThenClose(_));
    let patience = interrupt.clone();
    let interrupt = interrupt.after(u32::from(waits));
    let terraform = terraform.clone().with_interrupt(interrupt.clone());
    let mut clock = Clock::start(&terraform);
    progress.line("looking at the deployment");
    let (deployment, in_state) = applied(&terraform).await?;
    let cloud = Cloud::new(&deployment.region).await;
    let closing = Closing {
        terraform: &terraform,
        cloud: &cloud,
        deployment: &deployment,
        options,
        progress,
        patience: &patience,
        interrupt: &interrupt,
        door: Door::of(
            &deployment.load_balancer,
            options.url.as_deref().map(|url| url.trim_end_matches('/')),
        ),
    };
    let seen = tokio::select! {
        seen = look(&terraform, &cloud, &deployment, in_state) => seen,
        () = interrupt.requested() => return Err(NatError::Interrupted),
    };
    clock.phase("look");
    let mut done = Done::default();
    let ended = match seen {
        Ok(seen) => closing.carry_out(seen, &mut done, &mut clock).await,
        Err(error) => Err(error),
    };
    let outcome = match ended {
        Ok(outcome) => outcome,
        // A refusal says that nothing was changed.
        Err(error) if error.is_refusal() && done.has_applied => {
            return Err(NatError::PartlyClosed(Box::new(error)));
        }
        Err(error) if error.is_refusal() => {
            return Ok(clock.report(&deployment, Outcome::Refused).refused(&error));
        }
        Err(error) => return Err(error),
    };
    let now = OffsetDateTime::now_utc();
    let left_out = match options.without_ssh && !done.proofs.is_empty() {
        true => HOSTS.map(proof::no_egress_claim).to_vec(),
        false => Vec::new(),
    };
    let report = Report {
        waiting: done.waiting,
        proofs: done.proofs,
        left_out,
        window: match outcome {
            Outcome::Closed | Outcome::Unproven | Outcome::Interrupted => done
                .latest
                .map(|gateway| Stood::new(&gateway, &deployment.region, now)),
            Outcome::AlreadyClosed | Outcome::NotReady | Outcome::Refused => None,
        },
        ..clock.report(&deployment, outcome)
    };
    Ok(match done.refusal {
        Some(refusal) => report.refused(&refusal),
        None => report,
    })
}

/// What a close has come to so far.
#[derive(Default)]
struct Done {
    refusal: Option<super::refusal::Refusal>,
    waiting: Vec<gate::Waiting>,
    proofs: Vec<Proof>,
    /// The gateway that is being closed, as it was seen last.
    latest: Option<Gateway>,
    /// Which hosts got out while the window was open.
    before: BTreeMap<Role, Result<bool, ProbeError>>,
    plan: Option<Plan>,
    /// Whether an apply has gone through.
    has_applied: bool,
}

/// Everything a close works with.
struct Closing<'a> {
    terraform: &'a Terraform,
    cloud: &'a Cloud,
    deployment: &'a Deployment,
    options: &'a Options,
    progress: &'a Progress,
    /// Ends the waiting at the gate.
    patience: &'a Interrupt,
    /// Ends everything.
    interrupt: &'a Interrupt,
    door: Door,
}

impl Closing<'_> {
    async fn carry_out(
        &self,
        mut seen: Seen,
        done: &mut Done,
        clock: &mut Clock<'_>,
    ) -> Result<Outcome, NatError> {
        done.latest = seen.latest().cloned();
        let steps = match seen.steps_to_close(self.options.gating == Gating::Skip) {
            Ok(steps) => steps,
            Err(refusal) => {
                done.refusal = Some(refusal);
                return Ok(Outcome::Refused);
            }
        };
        if steps.is_empty() && !self.options.prove {
            return Ok(Outcome::AlreadyClosed);
        }
        let mut steps = VecDeque::from(steps);
        if steps.is_empty() {
            steps.push_back(Step::Prove);
        }
        let mut turns = 1;
        while let Some(step) = steps.pop_front() {
            if self.interrupt.count() > 0 && step != Step::Prove {
                return Ok(Outcome::Interrupted);
            }
            match step {
                Step::Gate => {
                    if let Some(outcome) = self.gate(done, clock).await? {
                        return Ok(outcome);
                    }
                }
                Step::Adopt(orphans) => {
                    self.adopt(&orphans).await?;
                    clock.phase("adopt");
                }
                Step::Plan => {
                    let is_unchanged = self.plan(done).await?;
                    clock.phase("plan");
                    if let Some(refusal) = done.refusal.take_if(|_| done.has_applied) {
                        // What still stands the proofs say; this says why.
                        self.progress.say(&chain(&refusal));
                        done.plan = None;
                        steps = VecDeque::from([Step::Prove]);
                        continue;
                    }
                    if done.refusal.is_some() {
                        return Ok(Outcome::Refused);
                    }
                    // A plan without changes is still applied when the state holds what is gone.
                    if is_unchanged && seen.in_state.is_empty() && seen.orphans().is_empty() {
                        done.plan = None;
                    }
                }
                Step::Position(position) => position.write(self.terraform.directory())?,
                Step::Apply => {
                    if let Some(plan) = done.plan.take() {
                        self.progress.line("closing");
                        let applied = self.terraform.apply(&plan).await;
                        applied.map_err(NatError::Apply)?;
                        done.has_applied = true;
                        clock.phase("apply");
                    }
                }
                Step::LookAgain if turns < TURNS => {
                    turns += 1;
                    let (deployment, in_state) = applied(self.terraform).await?;
                    seen = look(self.terraform, self.cloud, &deployment, in_state).await?;
                    match seen.steps_to_close(true) {
                        Ok(more) if !more.is_empty() => steps = VecDeque::from(more),
                        // Nothing is left, or nothing that may be touched: the proofs say which.
                        Ok(_) | Err(_) => {}
                    }
                }
                Step::LookAgain => {}
                Step::Prove => {
                    self.progress.line("proving");
                    self.prove(done).await;
                    clock.phase("prove");
                }
            }
        }
        Ok(match done.proofs.iter().all(|proof| proof.holds) {
            true => Outcome::Closed,
            false if self.interrupt.count() > 0 => Outcome::Interrupted,
            false => Outcome::Unproven,
        })
    }

    /// Returns how the close ends here, if it does.
    async fn gate(
        &self,
        done: &mut Done,
        clock: &mut Clock<'_>,
    ) -> Result<Option<Outcome>, NatError> {
        let (limit, must) = match self.options.gating {
            Gating::Refuse | Gating::Skip => (Duration::ZERO, false),
            Gating::Wait(limit) => (limit, false),
            Gating::WaitThenClose(limit) => (limit, true),
        };
        let waited = gate::wait(
            self.cloud,
            self.deployment,
            &self.door,
            limit,
            self.progress,
            self.patience,
        )
        .await;
        clock.phase("gate");
        let waiting = match waited {
            Ok(waiting) => waiting,
            Err(error) if must => {
                self.progress.say(&format!(
                    "closing without the hosts' word: {}",
                    chain(&error)
                ));
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        if waiting.is_empty() {
            return Ok(None);
        }
        if must {
            self.progress.say(&format!(
                "closing although not everybody is done: {}",
                gate::describe(&waiting)
            ));
            return Ok(None);
        }
        if self.interrupt.count() > 0 {
            return Ok(Some(Outcome::Interrupted));
        }
        done.waiting = waiting;
        Ok(Some(Outcome::NotReady))
    }

    /// Tells the state what stands. The position may say closed already, so the variable is set here.
    async fn adopt(&self, orphans: &[Orphan]) -> Result<(), NatError> {
        let until = instant_text(OffsetDateTime::now_utc() + IMPORT_LEASE);
        let open = [(VARIABLE, "true"), (UNTIL, until.as_str())];
        for orphan in orphans {
            self.progress
                .say(&format!("taking {} into the state", orphan.id));
            self.terraform
                .import(orphan.address, &orphan.id, &open)
                .await?;
        }
        // The address cannot be released before the gateway is gone, and only dependencies say so.
        let addresses: Vec<_> = orphans.iter().map(|orphan| orphan.address).collect();
        self.terraform.refresh_only(&addresses, &open).await?;
        Ok(())
    }

    /// Plans and judges; returns whether the plan has no changes.
    async fn plan(&self, done: &mut Done) -> Result<bool, NatError> {
        self.progress.line("planning");
        let off = [(VARIABLE, "false")];
        // The probes run beside the plan: they cost no time and give the later proofs their force.
        let (planned, reached) = tokio::join!(self.terraform.plan(&off), self.probe());
        let mut planned = planned?;
        done.before = reached;
        let mut judged = judge_closing(&planned.changes);
        if judged.is_err() {
            let variables = self.terraform.planned_variables(&planned).await?;
            if let Some(reason) = other_deployment(self.deployment, &variables) {
                judged = Err(reason);
            } else if self.options.leave_rest {
                planned = self.terraform.plan_only(&off, &RESOURCES).await?;
                judged = judge_closing(&planned.changes);
            }
        }
        done.refusal = judged.err();
        let is_unchanged = planned.is_empty;
        done.plan = Some(planned);
        Ok(is_unchanged)
    }

    async fn prove(&self, done: &mut Done) {
        let egress = async {
            if self.options.without_ssh {
                return vec![proof::no_route(self.cloud, self.deployment, self.interrupt).await];
            }
            let access = match self.access().await {
                Ok(access) => access,
                Err(error) => return HOSTS.map(|host| unproven(host, &error)).to_vec(),
            };
            let target = self.target();
            let one = |host| {
                proof::no_egress(
                    &access,
                    host,
                    &target,
                    done.before.get(&host),
                    self.interrupt,
                )
            };
            let (backend, database) = tokio::join!(one(HOSTS[0]), one(HOSTS[1]));
            vec![backend, database]
        };
        let ((gateway, gateways), address, plan, ready, egress) = tokio::join!(
            proof::gateway_gone(self.cloud, self.deployment, self.interrupt),
            proof::address_released(self.cloud, self.deployment, self.interrupt),
            proof::plan_empty(self.terraform),
            proof::api_ready(&self.door, self.interrupt),
            egress
        );
        let proofs = [gateway, address, plan, ready].into_iter().chain(egress);
        done.proofs = proofs.collect();
        // EC2's own time of deletion, where it is listed.
        let id = done.latest.as_ref().map(|gateway| gateway.id.clone());
        let fresh = gateways
            .into_iter()
            .find(|gateway| Some(&gateway.id) == id.as_ref());
        done.latest = fresh.or(done.latest.take());
    }

    async fn access(&self) -> Result<Access, CloudError> {
        Ok(Access {
            pins: self.cloud.host_keys(&self.deployment.name).await?,
            deployment: self.deployment.clone(),
            bastion: self.options.bastion.clone(),
            keys: self.options.keys.clone(),
            login: Login::default(),
        })
    }

    fn target(&self) -> Endpoint {
        egress_target(self.options, &self.deployment.region)
    }

    /// Which hosts reach the target while the window is open.
    async fn probe(&self) -> BTreeMap<Role, Result<bool, ProbeError>> {
        if self.options.without_ssh {
            return BTreeMap::new();
        }
        let Ok(access) = self.access().await else {
            return BTreeMap::new();
        };
        let target = self.target();
        let [backend, database] = HOSTS;
        let (of_backend, of_database) = tokio::join!(
            proof::reaches(&access, backend, &target),
            proof::reaches(&access, database, &target)
        );
        BTreeMap::from([(backend, of_backend), (database, of_database)])
    }
}

fn unproven(host: Role, error: &CloudError) -> Proof {
    Proof {
        claim: proof::no_egress_claim(host),
        holds: false,
        seen: chain(error),
    }
}

/// Measures phases, terraform's share apart.
struct Clock<'a> {
    terraform: &'a Terraform,
    start: Instant,
    spent: Duration,
    first: (Instant, Duration),
    phases: Vec<Phase>,
}

impl<'a> Clock<'a> {
    fn start(terraform: &'a Terraform) -> Self {
        let (start, spent) = (Instant::now(), terraform.spent());
        Self {
            terraform,
            start,
            spent,
            first: (start, spent),
            phases: Vec::new(),
        }
    }

    /// Ends the phase that began with the last one's end.
    fn phase(&mut self, name: &'static str) {
        let (now, spent) = (Instant::now(), self.terraform.spent());
        self.phases.push(Phase {
            name,
            seconds: (now - self.start).as_secs_f64(),
            // Several terraforms may be asked at once.
            terraform_seconds: (spent - self.spent).min(now - self.start).as_secs_f64(),
        });
        (self.start, self.spent) = (now, spent);
    }

    fn report(self, deployment: &Deployment, outcome: Outcome) -> Report {
        let elapsed = self.first.0.elapsed();
        let spent = self.terraform.spent() - self.first.1;
        let terraform_seconds = spent.min(elapsed).as_secs_f64();
        Report {
            deployment: deployment.name.clone(),
            outcome,
            refusal: None,
            waiting: Vec::new(),
            proofs: Vec::new(),
            left_out: Vec::new(),
            window: None,
            phases: self.phases,
            seconds: elapsed.as_secs_f64(),
            terraform_seconds,
        }
    }
}
