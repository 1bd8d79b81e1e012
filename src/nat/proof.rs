//! What has to be true after a close, each seen from outside. A proof that cannot be led does not hold.

use std::time::Duration;

use serde::Serialize;

use super::door::Door;
use super::until;
use crate::appliance::Role;
use crate::bastion::exec::command_line;
use crate::bastion::{Access, Endpoint, SshError};
use crate::cloud::{Cloud, Gateway};
use crate::error_chain::chain;
use crate::interrupt::Interrupt;
use crate::terraform::{Deployment, Terraform};

/// EC2 takes a minute or two to delete a gateway; Terraform has waited for it already.
const GATEWAY_LIMIT: Duration = Duration::from_secs(180);
/// A target that was unhealthy for a moment needs a few health checks to come back.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// A deleted route stops new connections within seconds.
const EGRESS_LIMIT: Duration = Duration::from_secs(60);
/// Terraform has seen the route go; EC2's lists lag behind by seconds at most.
const ROUTE_LIMIT: Duration = Duration::from_secs(10);
const EVERY: Duration = Duration::from_secs(2);
/// What the probe on the host waits for a connection.
const PROBE_SECONDS: &str = "3";
/// The probe with its SSH round trips.
const PROBE_LIMIT: Duration = Duration::from_secs(15);

/// Exit status of `drawbridge-host egress` for a connection that was made, or refused by the far side.
const REACHED: u32 = 0;
/// Exit status of `drawbridge-host egress` for a connection that came to nothing.
const CAME_TO_NOTHING: u32 = 3;

/// Claim of [`gateway_gone`].
pub(super) const GATEWAY_GONE: &str = "nat-gateway-gone";
/// Claim of [`address_released`].
pub(super) const ADDRESS_RELEASED: &str = "address-released";

/// Claim of [`no_egress`]: `no-egress-backend`.
pub(super) fn no_egress_claim(host: Role) -> String {
    format!("no-egress-{host}")
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// What is claimed, e.g. `nat-gateway-gone`, `no-egress-backend`.
    pub claim: String,
    /// Whether it was seen to be true.
    pub holds: bool,
    /// What was seen.
    pub seen: String,
}

impl Proof {
    fn of(claim: impl Into<String>, seen: Result<String, String>) -> Self {
        let holds = seen.is_ok();
        Self {
            claim: claim.into(),
            holds,
            seen: seen.unwrap_or_else(|seen| seen),
        }
    }
}

/// No gateway of the VPC stands. Returns the gateways seen last as well: a deleted one tells when that was.
pub async fn gateway_gone(
    cloud: &Cloud,
    deployment: &Deployment,
    interrupt: &Interrupt,
) -> (Proof, Vec<Gateway>) {
    let look = async || {
        let gateways = cloud.gateways(&deployment.name, &deployment.vpc_id).await;
        let gateways = gateways.map_err(|error| chain(&error))?;
        match gateways.iter().find(|gateway| gateway.is_standing()) {
            Some(gateway) => Err(format!("{} is still there ({})", gateway.id, gateway.state)),
            None => Ok(gateways),
        }
    };
    let seen = until(GATEWAY_LIMIT, EVERY, interrupt, look).await;
    let gateways = seen.clone().unwrap_or_default();
    let seen = seen.map(|_| format!("no NAT gateway stands in {}", deployment.vpc_id));
    (Proof::of(GATEWAY_GONE, seen), gateways)
}

/// No address of the window is held any more.
pub async fn address_released(
    cloud: &Cloud,
    deployment: &Deployment,
    interrupt: &Interrupt,
) -> Proof {
    let look = async || {
        let addresses = cloud
            .window_addresses(&deployment.name)
            .await
            .map_err(|error| chain(&error))?;
        match addresses.first() {
            Some(left) => Err(format!(
                "{} ({}) is still held and costs: `aws ec2 release-address --allocation-id {}`",
                left.public_ip, left.allocation_id, left.allocation_id
            )),
            None => Ok("no public address of the window is held".to_owned()),
        }
    };
    Proof::of(
        ADDRESS_RELEASED,
        until(READY_LIMIT, EVERY, interrupt, look).await,
    )
}

/// A plain `terraform plan` wants nothing.
pub async fn plan_empty(terraform: &Terraform) -> Proof {
    let seen = match terraform.plan(&[]).await {
        Ok(plan) if plan.is_empty => Ok("the next plan changes nothing".to_owned()),
        Ok(plan) => {
            let wants: Vec<_> = plan
                .changes
                .iter()
                .map(|change| format!("{} {}", change.action, change.address))
                .collect();
            Err(format!(
                "the next plan wants more: {}",
                if wants.is_empty() {
                    "outputs".into()
                } else {
                    wants.join(", ")
                }
            ))
        }
        Err(error) => Err(chain(&error)),
    };
    Proof::of("plan-empty", seen)
}

/// The private hosts' route table leads nowhere outside. Less than [`no_egress`] shows, for whoever cannot sign in to them.
pub async fn no_route(cloud: &Cloud, deployment: &Deployment, interrupt: &Interrupt) -> Proof {
    let table = &deployment.private_route_table_id;
    let look = async || {
        let route = cloud.private_route(&deployment.account_id, table).await;
        match route.map_err(|error| chain(&error))? {
            Some(route) => Err(format!("{table} still leads to {}", route.target)),
            None => Ok(format!("{table} has no route out of the VPC")),
        }
    };
    let seen = until(ROUTE_LIMIT, EVERY, interrupt, look).await;
    Proof::of("no-route", seen)
}

/// The API answers 200 at the [`Door`].
pub async fn api_ready(door: &Door, interrupt: &Interrupt) -> Proof {
    let look = async || door.ask().await;
    Proof::of(
        "api-ready",
        until(READY_LIMIT, EVERY, interrupt, look).await,
    )
}

/// Why it is not known whether a host reaches the target.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The host could not be asked.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// The probe itself did not work.
    #[error(
        "the probe on {host} ended with {status}: {said} (`drawbridge nat close --prove` tries again)"
    )]
    Probe {
        /// The host.
        host: Role,
        /// Exit status of `drawbridge-host egress`.
        status: u32,
        /// Its stderr.
        said: String,
    },
}

/// Whether `host` reaches `target` now.
///
/// # Errors
/// When this could not be found out.
pub async fn reaches(access: &Access, host: Role, target: &Endpoint) -> Result<bool, ProbeError> {
    let session = access.connect(host).await?;
    let target = target.to_string();
    let words = [
        "drawbridge-host",
        "egress",
        &target,
        "--timeout",
        PROBE_SECONDS,
    ];
    let output = session.collect(&command_line(&words), PROBE_LIMIT).await;
    session.close().await;
    let output = output?;
    match output.status {
        REACHED => Ok(true),
        CAME_TO_NOTHING => Ok(false),
        status => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(ProbeError::Probe { host, status, said })
        }
    }
}

/// `host` reaches `target` no more. `before` is what [`reaches`] said while the window was open: a proof against a
/// target that was never reached proves little, and says so.
pub async fn no_egress(
    access: &Access,
    host: Role,
    target: &Endpoint,
    before: Option<&Result<bool, ProbeError>>,
    interrupt: &Interrupt,
) -> Proof {
    let was = match before {
        Some(Ok(true)) => "it did before",
        Some(Ok(false)) => "it did not before either",
        Some(Err(_)) | None => "before is not known",
    };
    let look = async || match reaches(access, host, target).await {
        Ok(false) => Ok(Ok(format!("{host} cannot reach {target} ({was})"))),
        Ok(true) => Err(format!("{host} still reaches {target}")),
        Err(ProbeError::Ssh(error)) if error.is_passing() => Err(chain(&error)),
        Err(error) => Ok(Err(chain(&error))),
    };
    let seen = until(EGRESS_LIMIT, EVERY, interrupt, look).await;
    Proof::of(no_egress_claim(host), seen.and_then(|seen| seen))
}
