//! Closing the window: look, gate, plan, write, apply, prove.
//!
//! Nothing is changed before the plan has been judged; the position file is written right before the apply. So a run
//! that ends anywhere can be started again: what is done already shows in the state, the cloud and the file.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use super::gate::{self, HOSTS};
use super::position::{Position, PositionError};
use super::proof::{self, ProbeError, Proof};
use super::report::{Outcome, Phase, Report, Stood};
use super::window::{Seen, Step, judge_plan};
use crate::appliance::Role;
use crate::bastion::{Access, Endpoint, Login};
use crate::cloud::{Cloud, CloudError, Gateway};
use crate::error_chain::chain;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::terraform::{Deployment, Plan, Terraform, TerraformError};

/// Variable of `terraform/` that makes the window.
const VARIABLE: &str = "nat_gateway";

/// How to close.
#[derive(Clone, Debug)]
pub struct Options {
    /// Wait at most this long for the hosts to be complete; `None` refuses at once.
    pub wait: Option<Duration>,
    /// Close no matter how far the hosts are.
    pub force: bool,
    /// Base address of the API instead of the load balancer's own (no slash at the end).
    pub url: Option<String>,
    /// What the private hosts try to reach, to show that they cannot; `None` = the region's SSM endpoint.
    pub egress_target: Option<Endpoint>,
    /// Where the bastion answers instead of its public address.
    pub bastion: Option<Endpoint>,
    /// Private key file for the hosts.
    pub identity: Option<std::path::PathBuf>,
}

/// Why a close ended without a report.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// Terraform, the only one that changes anything.
    #[error(transparent)]
    Terraform(#[from] TerraformError),
    /// AWS could not be asked.
    #[error(transparent)]
    Cloud(#[from] CloudError),
    /// The position file.
    #[error(transparent)]
    Position(#[from] PositionError),
    /// Ctrl-C or SIGTERM before anything was decided.
    #[error("interrupted; nothing was changed")]
    Interrupted,
    /// Terraform may have stopped half-way.
    #[error(
        "the apply did not finish; the window may be half closed: run `drawbridge nat close` again, it goes on from there"
    )]
    Apply(#[source] TerraformError),
}

/// Looks at the three places at once.
///
/// # Errors
/// When one of them cannot be read.
pub async fn look(
    terraform: &Terraform,
    cloud: &Cloud,
    deployment: &Deployment,
) -> Result<Seen, CloseError> {
    let position = Position::read(terraform.directory())?;
    let (gateways, addresses) = tokio::try_join!(
        cloud.gateways(&deployment.name, &deployment.vpc_id),
        cloud.window_addresses(&deployment.name)
    )?;
    Ok(Seen {
        position,
        in_state: deployment.nat_gateway.clone(),
        gateways,
        addresses,
    })
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

/// Closes the window of the deployment in `terraform`'s directory.
///
/// # Errors
/// [`CloseError`] when something could not be read or done; a refusal is a [`Report`].
pub async fn close(
    terraform: &Terraform,
    options: &Options,
    progress: &Progress,
    interrupt: &Interrupt,
) -> Result<Report, CloseError> {
    // Before anything is asked: a malformed file is the user's to mend whatever the cloud says.
    Position::read(terraform.directory())?;
    let mut clock = Clock::start(terraform);
    progress.line("looking at the deployment");
    let deployment = terraform.deployment().await?;
    let cloud = Cloud::new(&deployment.region).await;
    let seen = tokio::select! {
        seen = look(terraform, &cloud, &deployment) => seen?,
        () = interrupt.requested() => return Err(CloseError::Interrupted),
    };
    clock.phase("look");

    let mut latest = seen.latest().cloned();
    let end = |outcome, clock: Clock| clock.report(&deployment, outcome);
    let steps = match seen.steps_to_close(options.force) {
        Ok(steps) => steps,
        Err(refusal) => return Ok(end(Outcome::Refused, clock).refused(&refusal)),
    };
    if steps.is_empty() {
        return Ok(end(Outcome::AlreadyClosed, clock));
    }
    let mut plan: Option<Plan> = None;
    let mut before = BTreeMap::new();
    let mut proofs = Vec::new();
    let prover = Prover {
        terraform,
        cloud: &cloud,
        deployment: &deployment,
        options,
        interrupt,
    };
    for step in steps {
        if interrupt.count() > 0 && step != Step::Prove {
            return Ok(end(Outcome::Interrupted, clock));
        }
        match step {
            Step::Gate => {
                let limit = options.wait.unwrap_or_default();
                let waiting = gate::wait(&cloud, &deployment, limit, progress, interrupt).await?;
                clock.phase("gate");
                if interrupt.count() > 0 {
                    return Ok(end(Outcome::Interrupted, clock));
                }
                if !waiting.is_empty() {
                    return Ok(Report {
                        waiting,
                        ..end(Outcome::NotReady, clock)
                    });
                }
            }
            Step::Plan => {
                progress.line("planning");
                let off = [(VARIABLE, "false")];
                // The probes run beside the plan: they cost no time and give the later proofs their force.
                let (planned, reached) = tokio::join!(terraform.plan(&off), prover.probe());
                let planned = planned?;
                before = reached;
                clock.phase("plan");
                if let Err(refusal) = judge_plan(&planned.changes) {
                    return Ok(end(Outcome::Refused, clock).refused(&refusal));
                }
                plan = Some(planned);
            }
            Step::Position(position) => position.write(terraform.directory())?,
            Step::Apply => {
                if let Some(plan) = plan.take().filter(|plan| !plan.is_empty) {
                    progress.line("closing");
                    terraform.apply(&plan).await.map_err(CloseError::Apply)?;
                    clock.phase("apply");
                }
            }
            Step::Prove => {
                progress.line("proving");
                let (proven, gateways) = prover.prove(&before).await;
                proofs = proven;
                // EC2's own time of deletion, where it is listed.
                let id = latest.as_ref().map(|gateway| gateway.id.clone());
                let fresh = gateways
                    .into_iter()
                    .find(|gateway| Some(&gateway.id) == id.as_ref());
                latest = fresh.or(latest);
                clock.phase("prove");
            }
        }
    }
    let outcome = match proofs.iter().all(|proof| proof.holds) {
        true => Outcome::Closed,
        false if interrupt.count() > 0 => Outcome::Interrupted,
        false => Outcome::Unproven,
    };
    let now = OffsetDateTime::now_utc();
    let window = latest.map(|gateway| Stood::new(&gateway, &deployment.region, now));
    Ok(Report {
        proofs,
        window,
        ..end(outcome, clock)
    })
}

/// What the proofs need.
struct Prover<'a> {
    terraform: &'a Terraform,
    cloud: &'a Cloud,
    deployment: &'a Deployment,
    options: &'a Options,
    interrupt: &'a Interrupt,
}

impl Prover<'_> {
    async fn access(&self) -> Result<Access, CloudError> {
        Ok(Access {
            pins: self.cloud.host_keys(&self.deployment.name).await?,
            deployment: self.deployment.clone(),
            bastion: self.options.bastion.clone(),
            identity: self.options.identity.clone(),
            login: Login::default(),
        })
    }

    fn target(&self) -> Endpoint {
        egress_target(self.options, &self.deployment.region)
    }

    /// Which hosts reach the target while the window is open.
    async fn probe(&self) -> BTreeMap<Role, Result<bool, ProbeError>> {
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

    async fn prove(
        &self,
        before: &BTreeMap<Role, Result<bool, ProbeError>>,
    ) -> (Vec<Proof>, Vec<Gateway>) {
        let url = self
            .options
            .url
            .as_ref()
            .unwrap_or(&self.deployment.load_balancer.url);
        let egress = async {
            let access = match self.access().await {
                Ok(access) => access,
                Err(error) => return HOSTS.map(|host| unproven(host, &error)).to_vec(),
            };
            let target = self.target();
            let one =
                |host| proof::no_egress(&access, host, &target, before.get(&host), self.interrupt);
            let (backend, database) = tokio::join!(one(HOSTS[0]), one(HOSTS[1]));
            vec![backend, database]
        };
        let ((gateway, gateways), address, plan, ready, egress) = tokio::join!(
            proof::gateway_gone(self.cloud, self.deployment, self.interrupt),
            proof::address_released(self.cloud, self.deployment, self.interrupt),
            proof::plan_empty(self.terraform),
            proof::api_ready(url.trim_end_matches('/'), self.interrupt),
            egress
        );
        let proofs = [gateway, address, plan, ready].into_iter().chain(egress);
        (proofs.collect(), gateways)
    }
}

fn unproven(host: Role, error: &CloudError) -> Proof {
    Proof {
        claim: format!("no-egress-{host}"),
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
            terraform_seconds: (spent - self.spent).as_secs_f64(),
        });
        (self.start, self.spent) = (now, spent);
    }

    fn report(self, deployment: &Deployment, outcome: Outcome) -> Report {
        Report {
            deployment: deployment.name.clone(),
            outcome,
            refusal: None,
            waiting: Vec::new(),
            proofs: Vec::new(),
            window: None,
            phases: self.phases,
            seconds: self.first.0.elapsed().as_secs_f64(),
            terraform_seconds: (self.terraform.spent() - self.first.1).as_secs_f64(),
        }
    }
}
