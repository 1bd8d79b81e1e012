//! What the window is, and what opening and closing it take: decided from what was seen, without touching anything.

use std::fmt;

use serde::Serialize;
use time::OffsetDateTime;

use super::position::Position;
use super::refusal::Refusal;
use crate::cloud::{Address, Gateway, GatewayState, Route, Schedule};
use crate::terraform::state::State;

/// The resources that make the window (`terraform/nat.tf`), in the order Terraform destroys them.
pub const RESOURCES: [&str; 4] = [SCHEDULE, ROUTE, GATEWAY, ADDRESS];

const SCHEDULE: &str = "aws_scheduler_schedule.nat_deadline[0]";
const ROUTE: &str = "aws_route.private_internet[0]";
const GATEWAY: &str = "aws_nat_gateway.main[0]";
const ADDRESS: &str = "aws_eip.nat[0]";

/// The window's resources that Terraform's state holds. Read from the resources and not from the output `deployment`,
/// which is older than they are when an apply was killed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct InState {
    /// `nat-…`
    pub gateway: Option<String>,
    /// `eipalloc-…`
    pub address: Option<String>,
    /// `r-rtb-…`, Terraform's own name for it.
    pub route: Option<String>,
    /// Name of the schedule.
    pub schedule: Option<String>,
}

/// The window as three places tell it. What could not be learnt holds the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The position file.
    pub position: Position,
    /// Terraform's state.
    pub in_state: InState,
    /// `rtb-…` of the private subnets.
    pub route_table: String,
    /// The gateways of the VPC, deleted ones included.
    pub gateways: Vec<Gateway>,
    /// The window's public addresses.
    pub addresses: Vec<Address>,
    /// The private subnets' route to everywhere; `None` when there is none.
    pub route: Result<Option<Route>, String>,
    /// The schedule that the state knows, or that was made for the gateway; `None` when there is none.
    pub schedule: Result<Option<Schedule>, String>,
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
    /// No gateway, but something is left that the next close clears: an address, a route, or a gateway on its way out.
    Leftover {
        /// `eipalloc-…`, `nat-…` or a Terraform address
        what: String,
    },
    /// Nothing stands.
    Closed,
}

/// What to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// See that both private hosts are complete.
    Gate,
    /// Take what stands and is the window's, but unknown to the state, into the state.
    Adopt(Vec<Orphan>),
    /// Plan the change and see that it is the window alone.
    Plan,
    /// Write the position file.
    Position(Position),
    /// Apply what was planned.
    Apply,
    /// Look again: one address in the state holds one thing, and more than one stands.
    LookAgain,
    /// See that it is true.
    Prove,
}

/// Something of the window that stands in the cloud and that Terraform's state does not know: whoever made it was killed
/// before writing it down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Orphan {
    /// Where it belongs in the state.
    pub address: &'static str,
    /// By what `terraform import` finds it.
    pub id: String,
}

impl InState {
    /// Picks the window's resources out of a whole state.
    #[must_use]
    pub fn of(state: &State) -> Self {
        let text = |kind, address, field| {
            let mut all = state.of_type(kind);
            let resource = all.find(|resource| resource.address == address)?;
            // A resource whose creation failed half-way has no id yet; it is there all the same.
            Some(resource.optional_text(field).unwrap_or_default().to_owned())
        };
        Self {
            gateway: text("aws_nat_gateway", GATEWAY, "id"),
            address: text("aws_eip", ADDRESS, "id"),
            route: text("aws_route", ROUTE, "id"),
            schedule: text("aws_scheduler_schedule", SCHEDULE, "name"),
        }
    }

    /// Whether the state holds nothing of the window.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Seen {
    /// The window's gateways that stand; those on their way out last, since EC2 lists them in any order.
    pub(super) fn standing(&self) -> impl Iterator<Item = &Gateway> {
        let ours = |is_leaving| {
            self.gateways.iter().filter(move |gateway| {
                gateway.is_standing()
                    && self.is_ours(gateway)
                    && (gateway.state == GatewayState::Deleting) == is_leaving
            })
        };
        ours(false).chain(ours(true))
    }

    /// A gateway that stands in this VPC and is not the window's.
    pub(super) fn foreign(&self) -> Option<&Gateway> {
        self.gateways
            .iter()
            .find(|gateway| gateway.is_standing() && !self.is_ours(gateway))
    }

    fn is_ours(&self, gateway: &Gateway) -> bool {
        gateway.is_tagged || self.in_state.gateway.as_ref() == Some(&gateway.id)
    }

    /// The window's newest gateway, standing or not: it tells how long the window stood.
    #[must_use]
    pub fn latest(&self) -> Option<&Gateway> {
        self.gateways
            .iter()
            .filter(|gateway| self.is_ours(gateway))
            .max_by_key(|gateway| gateway.created_at)
    }

    /// The private route, when it leads through a NAT gateway: then it is the window's.
    pub(super) fn window_route(&self) -> Option<&Route> {
        let route = self.route.as_ref().ok()?.as_ref()?;
        route.target.starts_with("nat-").then_some(route)
    }

    /// What the three places add up to.
    #[must_use]
    pub fn window(&self) -> Window {
        if let Some(gateway) = self.standing().next() {
            let what = gateway.id.clone();
            return match gateway.state {
                GatewayState::Deleting => Window::Leftover { what },
                _ => Window::Open { gateway: what },
            };
        }
        if let Some(gateway) = &self.in_state.gateway {
            return Window::Expired {
                gateway: gateway.clone(),
            };
        }
        let address = self.addresses.first();
        let address = address.map(|address| address.allocation_id.clone());
        let in_state = [
            (&self.in_state.address, ADDRESS),
            (&self.in_state.route, ROUTE),
            (&self.in_state.schedule, SCHEDULE),
        ];
        let in_state = in_state.into_iter().find(|(known, _)| known.is_some());
        let what = address
            .or_else(|| Some(in_state?.1.to_owned()))
            .or_else(|| Some(format!("the route to {}", self.window_route()?.target)));
        match what {
            Some(what) => Window::Leftover { what },
            None => Window::Closed,
        }
    }

    /// What the state lacks.
    #[must_use]
    pub fn orphans(&self) -> Vec<Orphan> {
        let known = &self.in_state;
        let gateway = match known.gateway {
            None => self.standing().next().map(|gateway| gateway.id.clone()),
            Some(_) => None,
        };
        let address = match known.address {
            None => self.addresses.first(),
            Some(_) => None,
        };
        let route = match known.route {
            None => self.window_route(),
            Some(_) => None,
        };
        let schedule = match (&known.schedule, &self.schedule) {
            (None, Ok(Some(schedule))) => Some(format!("default/{}", schedule.name)),
            _ => None,
        };
        let orphan = |address, id| Orphan { address, id };
        [
            gateway.map(|id| orphan(GATEWAY, id)),
            address.map(|address| orphan(ADDRESS, address.allocation_id.clone())),
            schedule.map(|id| orphan(SCHEDULE, id)),
            route.map(|_| orphan(ROUTE, format!("{}_0.0.0.0/0", self.route_table))),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Whether more stands than one state can hold: a gateway or an address beside the one that is, or will be, in it.
    fn is_doubled(&self) -> bool {
        let known = &self.in_state;
        let gateways = self.standing().map(|gateway| &gateway.id);
        let addresses = self.addresses.iter().map(|address| &address.allocation_id);
        let mut kept = (known.gateway.as_ref(), known.address.as_ref());
        // Without one in the state the first is adopted.
        let mut beside = |id, is_gateway| {
            let place = if is_gateway { &mut kept.0 } else { &mut kept.1 };
            *place.get_or_insert(id) != id
        };
        let gateways = gateways.filter(|id| beside(id, true)).count();
        let addresses = addresses.filter(|id| beside(id, false)).count();
        gateways + addresses > 0
    }

    /// What closing takes; nothing when it is closed and the file says so. `force` leaves the gate out.
    ///
    /// # Errors
    /// [`Refusal::ForeignGateway`]
    pub fn steps_to_close(&self, force: bool) -> Result<Vec<Step>, Refusal> {
        self.refuse_foreign()?;
        let window = self.window();
        if window == Window::Closed && self.position == Position::Closed {
            return Ok(Vec::new());
        }
        let mut steps = Vec::new();
        // Without a working gateway there is no way out to lose, so nobody has to be waited for.
        if matches!(window, Window::Open { .. }) && !force {
            steps.push(Step::Gate);
        }
        let orphans = self.orphans();
        if !orphans.is_empty() {
            steps.push(Step::Adopt(orphans));
        }
        steps.push(Step::Plan);
        if self.position.is_open() {
            steps.push(Step::Position(Position::Closed));
        }
        steps.push(Step::Apply);
        if self.is_doubled() {
            steps.push(Step::LookAgain);
        }
        steps.push(Step::Prove);
        Ok(steps)
    }

    /// Sees that the window may be opened: nothing of it stands.
    ///
    /// # Errors
    /// [`Refusal::ForeignGateway`], [`Refusal::IsOpen`], [`Refusal::NotClear`]
    pub fn may_open(&self) -> Result<(), Refusal> {
        self.refuse_foreign()?;
        match self.window() {
            Window::Closed => Ok(()),
            Window::Open { gateway } => Err(Refusal::IsOpen {
                since: self.latest().map(|gateway| gateway.created_at),
                deadline: self.deadline(),
                gateway,
            }),
            window => Err(Refusal::NotClear { window }),
        }
    }

    fn refuse_foreign(&self) -> Result<(), Refusal> {
        match self.foreign() {
            Some(gateway) => Err(Refusal::ForeignGateway {
                gateway: gateway.id.clone(),
            }),
            None => Ok(()),
        }
    }

    /// When AWS deletes the gateway by itself, as far as that is known and will happen.
    #[must_use]
    pub fn deadline(&self) -> Option<OffsetDateTime> {
        let schedule = self.schedule.as_ref().ok()?.as_ref()?;
        schedule.is_enabled.then_some(schedule.at)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { gateway } => write!(formatter, "open ({gateway})"),
            Self::Expired { gateway } => {
                write!(formatter, "expired ({gateway} is gone, but not all of it)")
            }
            Self::Leftover { what } => write!(formatter, "closed, but {what} is left"),
            Self::Closed => formatter.write_str("closed"),
        }
    }
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
