//! `nat status`: what the file, the state, the cloud and the hosts say, side by side, and what follows from it.

use std::fmt::Write as _;

use serde::Serialize;
use time::OffsetDateTime;

use super::error::NatError;
use super::finding::{Finding, findings};
use super::gate::{self, HOSTS, Waiting};
use super::look::{applied, look};
use super::position::{Position, instant_text};
use super::report::Stood;
use super::window::{InState, Seen, Window};
use crate::cloud::{Address, Cloud, Gateway, Route, Schedule};
use crate::error_chain::chain;
use crate::terraform::{Deployment, Terraform};

/// What the four places say. `--json` prints this. A field `…_unknown` is there, with the reason, exactly when its
/// neighbour could not be learnt; null there means "none".
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Name of the deployment.
    pub deployment: String,
    /// The AWS account it stands in.
    pub account: String,
    /// Its region.
    pub region: String,
    /// What it adds up to: `window` is `open` (with `gateway`), `expired` (with `gateway`), `leftover` (with `what`) or
    /// `closed`.
    #[serde(flatten)]
    pub window: Window,
    /// What the position file says: `position` is `open`, `leased` (with `lease_until`) or `closed`.
    #[serde(flatten)]
    pub position: Position,
    /// What of the window Terraform's state holds.
    pub state: InState,
    /// The gateways of the VPC that stand, whosever they are.
    pub gateways: Vec<Gateway>,
    /// The window's addresses.
    pub addresses: Vec<Address>,
    /// The private subnets' route to everywhere.
    pub route: Option<Route>,
    /// Why the route is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_unknown: Option<String>,
    /// The schedule that deletes the gateway.
    pub deadline: Option<Schedule>,
    /// Seconds until then; negative when it has passed.
    pub seconds_to_deadline: Option<i64>,
    /// Why the deadline is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_unknown: Option<String>,
    /// How long the window's newest gateway has stood, or stood, and its cost; null when the window is closed.
    pub stood: Option<Stood>,
    /// The private hosts that are not complete; null when that is not known.
    pub waiting: Option<Vec<Waiting>>,
    /// Why the reports are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reports_unknown: Option<String>,
    /// Where the places disagree, each with what mends it.
    pub findings: Vec<Finding>,
    /// The command to run next; null when there is nothing to do.
    pub next: Option<String>,
}

/// Looks everywhere, changes nothing.
///
/// # Errors
/// When file, state or cloud cannot be read.
pub async fn status(terraform: &Terraform) -> Result<Status, NatError> {
    Position::read(terraform.directory())?;
    let (deployment, in_state) = applied(terraform).await?;
    let cloud = Cloud::new(&deployment.region).await;
    let (seen, hosts) = tokio::join!(
        look(terraform, &cloud, &deployment, in_state),
        gate::look(&cloud, &deployment)
    );
    let waiting = hosts.map(|hosts| gate::judge(&hosts));
    Ok(Status::new(
        &deployment,
        seen?,
        waiting.map_err(|error| chain(&error)),
        OffsetDateTime::now_utc(),
    ))
}

fn known<T>(learnt: Result<Option<T>, String>) -> (Option<T>, Option<String>) {
    match learnt {
        Ok(value) => (value, None),
        Err(reason) => (None, Some(reason)),
    }
}

impl Status {
    /// What was seen adds up to, at `now`. `waiting` are the private hosts that are not complete, or why that is not known.
    #[must_use]
    pub fn new(
        deployment: &Deployment,
        seen: Seen,
        waiting: Result<Vec<Waiting>, String>,
        now: OffsetDateTime,
    ) -> Self {
        let window = seen.window();
        let (waiting, reports_unknown) = match waiting {
            Ok(waiting) => (Some(waiting), None),
            Err(reason) => (None, Some(reason)),
        };
        let findings = findings(&seen, now);
        let is_ready = waiting.as_ref().is_some_and(Vec::is_empty);
        let next = match (findings.first(), &window) {
            (Some(finding), _) => Some(finding.command.clone()),
            (None, Window::Open { .. }) if is_ready => Some("drawbridge nat close".to_owned()),
            (None, Window::Open { .. }) => Some("drawbridge nat close --wait".to_owned()),
            (None, _) => None,
        };
        let stood = seen
            .latest()
            .filter(|_| window != Window::Closed)
            .map(|gateway| Stood::new(gateway, &deployment.region, now));
        let (route, route_unknown) = known(seen.route);
        let (deadline, deadline_unknown) = known(seen.schedule);
        Self {
            seconds_to_deadline: deadline
                .as_ref()
                .map(|deadline| (deadline.at - now).whole_seconds()),
            deployment: deployment.name.clone(),
            account: deployment.account_id.clone(),
            region: deployment.region.clone(),
            window,
            position: seen.position,
            state: seen.in_state,
            gateways: seen
                .gateways
                .into_iter()
                .filter(Gateway::is_standing)
                .collect(),
            addresses: seen.addresses,
            route,
            route_unknown,
            deadline,
            deadline_unknown,
            stood,
            waiting,
            reports_unknown,
            findings,
            next,
        }
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (name, value) in self.rows() {
            let _ = writeln!(text, "{name:<9} {value}");
        }
        text
    }

    /// The same, name by value.
    #[must_use]
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = Vec::new();
        let mut row = |name: &'static str, value: &str| rows.push((name, value.to_owned()));
        row("window", &self.window.to_string());
        row("file", &self.position.to_string());
        row("state", &listed(self.state_parts()));
        row("cloud", &listed(self.cloud_parts()));
        if let Some(stood) = &self.stood {
            row("since", &instant_text(stood.opened_at));
        }
        if matches!(self.window, Window::Open { .. }) {
            row("deadline", &self.deadline_text());
        }
        if let Some(stood) = &self.stood {
            let time = for_people(stood.seconds);
            let cost = &stood.cost;
            let stands = self
                .gateways
                .iter()
                .any(|gateway| gateway.id == stood.gateway);
            row(
                "cost",
                &match stands {
                    true => format!("standing for {time}, so far {cost}"),
                    false => format!("{} stood for {time}: {cost}", stood.gateway),
                },
            );
        }
        for host in HOSTS {
            let said = match (&self.waiting, &self.reports_unknown) {
                (Some(waiting), _) => waiting
                    .iter()
                    .find(|waiting| waiting.host == host)
                    .map_or_else(|| "complete".to_owned(), |waiting| waiting.reason.clone()),
                (None, reason) => unknown(reason.as_deref()),
            };
            row(host.as_str(), &said);
        }
        for finding in &self.findings {
            row("but", &format!("{}: `{}`", finding.means, finding.command));
        }
        if let (Some(next), []) = (&self.next, self.findings.as_slice()) {
            row("next", &format!("`{next}`"));
        }
        rows
    }

    fn state_parts(&self) -> Vec<String> {
        let state = &self.state;
        let route = state.route.as_ref().map(|_| "the route".to_owned());
        [&state.gateway, &state.address, &route, &state.schedule]
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    fn cloud_parts(&self) -> Vec<String> {
        let gateway = |gateway: &Gateway| {
            let whose = if gateway.is_tagged {
                ""
            } else {
                " (without the window's tag)"
            };
            format!("{} {}{whose}", gateway.id, gateway.state)
        };
        let address =
            |address: &Address| format!("{} ({})", address.public_ip, address.allocation_id);
        let route = match (&self.route, &self.route_unknown) {
            (Some(route), _) if route.is_blackhole => {
                Some(format!("a route to {} that leads nowhere", route.target))
            }
            (Some(route), _) => Some(format!("the route to {}", route.target)),
            (None, Some(reason)) => Some(format!("route {}", unknown(Some(reason)))),
            (None, None) => None,
        };
        let gateways = self.gateways.iter().map(gateway);
        let addresses = self.addresses.iter().map(address);
        gateways.chain(addresses).chain(route).collect()
    }

    fn deadline_text(&self) -> String {
        match (&self.deadline, self.seconds_to_deadline) {
            (Some(deadline), Some(seconds)) => {
                let at = instant_text(deadline.at);
                let time = for_people(seconds.unsigned_abs());
                match (deadline.is_enabled, seconds < 0) {
                    (false, _) => format!("{at}, switched off"),
                    (true, true) => format!("{at}, {time} ago"),
                    (true, false) => format!("{at}, in {time}; then AWS deletes the gateway"),
                }
            }
            _ if self.deadline_unknown.is_some() => unknown(self.deadline_unknown.as_deref()),
            _ => "none".to_owned(),
        }
    }
}

fn listed(parts: Vec<String>) -> String {
    if parts.is_empty() {
        "nothing".to_owned()
    } else {
        parts.join(", ")
    }
}

fn unknown(reason: Option<&str>) -> String {
    format!("unknown ({})", reason.unwrap_or("no reason"))
}

/// `75` as `1 min 15 s`.
#[must_use]
pub fn for_people(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::for_people;

    #[test]
    fn a_time_is_said_in_two_units() {
        assert_eq!(
            [for_people(9), for_people(75), for_people(7265)],
            ["9 s", "1 min 15 s", "2 h 1 min"]
        );
    }
}
