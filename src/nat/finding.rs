//! Where file, state and cloud disagree: what it means, and the command that mends it. Decided from what was seen.

use serde::Serialize;
use time::OffsetDateTime;

use super::position::{Position, instant_text};
use super::status::for_people;
use super::window::{Seen, Window};
use crate::cloud::GatewayState;

/// One disagreement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which one, in kebab-case; for scripts.
    pub finding: &'static str,
    /// What it means, for people.
    pub means: String,
    /// What mends it.
    pub command: String,
}

const CLOSE: &str = "drawbridge nat close";
const CLOSE_WAITING: &str = "drawbridge nat close --wait";
const APPLY: &str = "terraform apply";

/// A schedule that is due acts within a minute; a gateway takes another to go.
const OVERDUE: time::Duration = time::Duration::minutes(5);

/// Everything that disagrees at `now`, the most expensive first.
#[must_use]
pub fn findings(seen: &Seen, now: OffsetDateTime) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |finding, means: String, command: &str| {
        found.push(Finding {
            finding,
            means,
            command: command.to_owned(),
        });
    };
    if let Some(gateway) = seen.foreign() {
        add(
            "foreign-gateway",
            format!(
                "{} stands in this VPC and is not the window's: it costs, is never touched here, and keeps the window from being opened or closed",
                gateway.id
            ),
            &format!("aws ec2 delete-nat-gateway --nat-gateway-id {}", gateway.id),
        );
    }
    let window = seen.window();
    match &window {
        Window::Open { gateway } => standing(seen, gateway, now, &mut add),
        Window::Expired { gateway } => add(
            "gateway-gone",
            format!(
                "the state has {gateway}, the cloud has not: its deadline passed, or somebody deleted it. {}{}; a plain apply would make a new gateway",
                match seen.addresses.first() {
                    Some(address) => format!("Its address {} still stands and costs", address.public_ip),
                    None => "Its address is gone as well".to_owned(),
                },
                match seen.window_route() {
                    Some(_) => ", and the private subnets' route leads nowhere",
                    None => "",
                }
            ),
            CLOSE,
        ),
        Window::Leftover { .. } => {
            let leaving = seen.standing().next();
            if let Some(gateway) = leaving {
                add(
                    "gateway-deleting",
                    format!("{} is being deleted, which takes a minute or two", gateway.id),
                    CLOSE,
                );
            } else if let Some(address) = seen.addresses.first() {
                add(
                    "address-without-gateway",
                    format!(
                        "the address {} ({}) stands without a gateway: it serves nobody and costs",
                        address.public_ip, address.allocation_id
                    ),
                    CLOSE,
                );
            } else {
                add(
                    "rest-without-gateway",
                    "a route or a schedule of the last window is left; neither costs, but the next window would stumble over them".to_owned(),
                    CLOSE,
                );
            }
        }
        Window::Closed => match seen.position {
            Position::Closed => {}
            Position::Open => add(
                "file-open",
                "the file says open, but nothing stands: the next plain apply opens the window. `terraform apply` opens it now".to_owned(),
                CLOSE,
            ),
            Position::Leased { until } if until <= now => add(
                "lease-ended",
                format!("the file holds a lease that ended at {}: until it is closed, terraform refuses every plain apply", instant_text(until)),
                CLOSE,
            ),
            Position::Leased { until } => add(
                "file-open",
                format!("the file holds a lease until {}, but nothing stands: a plain apply until then opens the window", instant_text(until)),
                CLOSE,
            ),
        },
    }
    for orphan in seen.orphans() {
        add(
            "unknown-to-state",
            format!(
                "{} is the window's, but terraform's state does not know it: an apply was killed before it wrote that down, and no plain apply removes it. Closing takes it into the state first",
                orphan.id
            ),
            CLOSE,
        );
    }
    found
}

/// What is wrong with a gateway that stands.
fn standing(
    seen: &Seen,
    gateway: &str,
    now: OffsetDateTime,
    add: &mut impl FnMut(&'static str, String, &str),
) {
    let known = &seen.in_state;
    let others: Vec<_> = seen
        .standing()
        .skip(1)
        .map(|gateway| gateway.id.clone())
        .collect();
    if !others.is_empty() {
        add(
            "more-gateways",
            format!(
                "{} stand beside {gateway} with the window's tag, and each costs; closing removes one after the other",
                others.join(", ")
            ),
            CLOSE_WAITING,
        );
    }
    match seen.position {
        Position::Closed => add(
            "file-closed",
            format!(
                "the file says closed, but {gateway} stands: a close was interrupted, or the file was written by hand. The next plain apply closes the window without asking the hosts"
            ),
            CLOSE_WAITING,
        ),
        Position::Leased { until } if until <= now => add(
            "lease-ended",
            format!(
                "the lease in the file ended at {}: until the window is closed, terraform refuses every plain apply",
                instant_text(until)
            ),
            CLOSE,
        ),
        Position::Leased { .. } | Position::Open => {}
    }
    deadline(seen, gateway, now, add);
    let first = seen.standing().next();
    let works = first.is_some_and(|gateway| gateway.state == GatewayState::Available);
    match &seen.route {
        Ok(None) if works => add(
            "no-route",
            "the private subnets have no route to the internet, so the gateway serves nobody"
                .to_owned(),
            if known.route.is_some() && seen.position.is_open() {
                APPLY
            } else {
                CLOSE
            },
        ),
        Ok(Some(route)) if works && route.target != gateway => add(
            "other-route",
            format!(
                "the private subnets' route leads to {}, not to {gateway}",
                route.target
            ),
            if seen.position.is_open() {
                APPLY
            } else {
                CLOSE
            },
        ),
        Ok(_) | Err(_) => {}
    }
}

/// Whether AWS will delete the gateway should everybody forget it.
fn deadline(
    seen: &Seen,
    gateway: &str,
    now: OffsetDateTime,
    add: &mut impl FnMut(&'static str, String, &str),
) {
    let nobody = format!("nobody deletes {gateway} should it be forgotten");
    match (&seen.schedule, &seen.in_state.schedule) {
        // What is not known is shown as such, and is no finding.
        (Err(_), _) => {}
        (Ok(Some(schedule)), _) if !schedule.is_enabled => add(
            "deadline-disabled",
            format!(
                "the deadline is switched off (schedule {}): {nobody}",
                schedule.name
            ),
            CLOSE_WAITING,
        ),
        (Ok(Some(schedule)), _) if schedule.at + OVERDUE <= now => add(
            "overdue",
            format!(
                "the deadline passed {} ago and {gateway} still stands: the schedule {} did not work (may its role still delete gateways?)",
                for_people((now - schedule.at).whole_seconds().unsigned_abs()),
                schedule.name
            ),
            CLOSE,
        ),
        (Ok(Some(schedule)), _) => {
            if let Position::Leased { until } = seen.position
                && until != schedule.at
            {
                add(
                    "other-deadline",
                    format!(
                        "the file says until {}, the schedule {}: a plain apply makes the file's the deadline",
                        instant_text(until),
                        instant_text(schedule.at)
                    ),
                    APPLY,
                );
            }
        }
        (Ok(None), Some(name)) => add(
            "deadline-gone",
            format!("the schedule {name} does not exist any more: {nobody}"),
            CLOSE_WAITING,
        ),
        (Ok(None), None) => add(
            "no-deadline",
            format!(
                "{gateway} stands without a deadline (nat_gateway_max_hours is 0, or an apply was interrupted): {nobody}"
            ),
            CLOSE_WAITING,
        ),
    }
}
