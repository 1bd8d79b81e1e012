//! What the window is, and what closing it takes: decided from what was seen, without touching anything.

use std::fmt;

use serde::Serialize;

use super::position::Position;
use crate::cloud::{Address, Gateway, GatewayState};
use crate::terraform::{NatGateway, PlannedChange};

/// The resources that make the window (`terraform/nat.tf`), in the order Terraform destroys them.
pub const RESOURCES: [&str; 4] = [
    "aws_scheduler_schedule.nat_deadline[0]",
    "aws_route.private_internet[0]",
    "aws_nat_gateway.main[0]",
    "aws_eip.nat[0]",
];

/// The window as three places tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The position file.
    pub position: Position,
    /// Terraform's state.
    pub in_state: Option<NatGateway>,
    /// The gateways of the VPC, deleted ones included.
    pub gateways: Vec<Gateway>,
    /// The window's public addresses.
    pub addresses: Vec<Address>,
}

/// What the three add up to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "window", rename_all = "kebab-case")]
pub enum Window {
    /// A gateway stands; the private hosts reach the internet.
    Open {
        /// `nat-…`
        gateway: String,
    },
    /// The gateway is gone without Terraform: its deadline passed, or somebody deleted it. The address still costs.
    Expired {
        /// `nat-…`, as the state remembers it.
        gateway: String,
    },
    /// No gateway, but something is left that the next close clears: an address, or a gateway on its way out.
    Leftover {
        /// `eipalloc-…` or `nat-…`
        what: String,
    },
    /// Nothing stands.
    Closed,
}

/// What to do, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// See that both private hosts are complete.
    Gate,
    /// Plan the change and see that it is the window alone.
    Plan,
    /// Write the position file.
    Position(Position),
    /// Apply what was planned.
    Apply,
    /// See that it is true.
    Prove,
}

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A gateway in the VPC that is not the window's.
    #[error(
        "the NAT gateway {gateway} stands in this VPC but is not the window's: it is never touched, and as long as it stands nothing is closed; `aws ec2 delete-nat-gateway --nat-gateway-id {gateway}` removes it"
    )]
    ForeignGateway {
        /// `nat-…`
        gateway: String,
    },
    /// The plan is about more than the window.
    #[error(
        "closing would change more than the window: {}; settle that first (`terraform plan` shows it), nothing was changed",
        list(changes)
    )]
    PlanWantsMore {
        /// What else it wants.
        changes: Vec<PlannedChange>,
    },
}

impl Seen {
    /// The window's gateway among those that stand.
    fn standing(&self) -> Option<&Gateway> {
        self.gateways
            .iter()
            .find(|gateway| gateway.is_standing() && self.is_ours(gateway))
    }

    fn is_ours(&self, gateway: &Gateway) -> bool {
        gateway.is_tagged
            || self
                .in_state
                .as_ref()
                .is_some_and(|known| known.id == gateway.id)
    }

    /// The window's newest gateway, standing or not: it tells how long the window stood.
    #[must_use]
    pub fn latest(&self) -> Option<&Gateway> {
        self.gateways
            .iter()
            .filter(|gateway| self.is_ours(gateway))
            .max_by_key(|gateway| gateway.created_at)
    }

    /// What the three places add up to.
    #[must_use]
    pub fn window(&self) -> Window {
        match (self.standing(), &self.in_state, self.addresses.first()) {
            (Some(gateway), ..) if gateway.state == GatewayState::Deleting => Window::Leftover {
                what: gateway.id.clone(),
            },
            (Some(gateway), ..) => Window::Open {
                gateway: gateway.id.clone(),
            },
            (None, Some(known), _) => Window::Expired {
                gateway: known.id.clone(),
            },
            (None, None, Some(address)) => Window::Leftover {
                what: address.allocation_id.clone(),
            },
            (None, None, None) => Window::Closed,
        }
    }

    /// What closing takes; nothing when it is closed and the file says so. `force` leaves the gate out.
    ///
    /// # Errors
    /// [`Refusal::ForeignGateway`]
    pub fn steps_to_close(&self, force: bool) -> Result<Vec<Step>, Refusal> {
        let foreign = self
            .gateways
            .iter()
            .find(|gateway| gateway.is_standing() && !self.is_ours(gateway));
        if let Some(foreign) = foreign {
            return Err(Refusal::ForeignGateway {
                gateway: foreign.id.clone(),
            });
        }
        let window = self.window();
        if window == Window::Closed && self.position == Position::Closed {
            return Ok(Vec::new());
        }
        let mut steps = Vec::new();
        // Without a working gateway there is no way out to lose, so nobody has to be waited for.
        if matches!(window, Window::Open { .. }) && !force {
            steps.push(Step::Gate);
        }
        steps.push(Step::Plan);
        if self.position == Position::Open {
            steps.push(Step::Position(Position::Closed));
        }
        steps.extend([Step::Apply, Step::Prove]);
        Ok(steps)
    }
}

/// Sees that a plan deletes the window's resources and does nothing else.
///
/// # Errors
/// [`Refusal::PlanWantsMore`] with everything else it wants.
pub fn judge_plan(changes: &[PlannedChange]) -> Result<(), Refusal> {
    let is_window = |change: &PlannedChange| {
        change.action == "delete" && RESOURCES.contains(&change.address.as_str())
    };
    let others: Vec<_> = changes
        .iter()
        .filter(|change| !is_window(change))
        .cloned()
        .collect();
    if others.is_empty() {
        Ok(())
    } else {
        Err(Refusal::PlanWantsMore { changes: others })
    }
}

fn list(changes: &[PlannedChange]) -> String {
    changes
        .iter()
        .map(|change| format!("{} {}", change.action, change.address))
        .collect::<Vec<_>>()
        .join(", ")
}

impl fmt::Display for Window {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { gateway } => write!(formatter, "open ({gateway})"),
            Self::Expired { gateway } => {
                write!(
                    formatter,
                    "expired ({gateway} is gone; its address still costs and its route leads nowhere)"
                )
            }
            Self::Leftover { what } => write!(formatter, "closed, but {what} is left"),
            Self::Closed => formatter.write_str("closed"),
        }
    }
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
