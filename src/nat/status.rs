//! `nat status`: what the file, the state, the cloud and the hosts say, side by side.

use std::fmt::Write as _;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::close::{CloseError, look};
use super::gate::{self, HOSTS, Waiting};
use super::position::Position;
use super::report::Stood;
use super::window::Window;
use crate::cloud::{Address, Cloud, Gateway};
use crate::error_chain::chain;
use crate::terraform::Terraform;

/// What the four places say. `--json` prints this.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Name of the deployment.
    pub deployment: String,
    /// What it adds up to.
    #[serde(flatten)]
    pub window: Window,
    /// What the position file says.
    pub position: Position,
    /// `nat-…` in Terraform's state.
    pub state_gateway: Option<String>,
    /// The gateways of the VPC that stand.
    pub gateways: Vec<Gateway>,
    /// The window's addresses.
    pub addresses: Vec<Address>,
    /// How long the standing gateway has stood and what it has cost.
    pub stood: Option<Stood>,
    /// The private hosts that are not complete; `None` when that is not known.
    pub waiting: Option<Vec<Waiting>>,
    /// Why the reports are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reports_unknown: Option<String>,
    /// What to do next, when there is something to do.
    pub next: Option<String>,
}

/// Looks everywhere, changes nothing.
///
/// # Errors
/// When file, state or cloud cannot be read.
pub async fn status(terraform: &Terraform) -> Result<Status, CloseError> {
    Position::read(terraform.directory())?;
    let deployment = terraform.deployment().await?;
    let cloud = Cloud::new(&deployment.region).await;
    let (seen, hosts) = tokio::join!(
        look(terraform, &cloud, &deployment),
        gate::look(&cloud, &deployment)
    );
    let seen = seen?;
    let window = seen.window();
    let (waiting, reports_unknown) = match hosts {
        Ok(hosts) => (Some(gate::judge(&hosts)), None),
        Err(error) => (None, Some(chain(&error))),
    };
    let is_ready = waiting.as_ref().is_some_and(Vec::is_empty);
    let next = match (&window, seen.position) {
        (Window::Closed, Position::Closed) => None,
        (Window::Closed, Position::Open) => Some(
            "the file says open, nothing stands: `drawbridge nat close` writes the file, `terraform apply` opens",
        ),
        (Window::Open { .. }, _) if is_ready => Some("`drawbridge nat close`"),
        (Window::Open { .. }, _) => Some("`drawbridge nat close --wait`"),
        (Window::Expired { .. } | Window::Leftover { .. }, _) => {
            Some("`drawbridge nat close` clears what is left")
        }
    };
    let standing: Vec<_> = seen
        .gateways
        .iter()
        .filter(|gateway| gateway.is_standing())
        .cloned()
        .collect();
    let stood = seen.latest().filter(|gateway| gateway.is_standing());
    Ok(Status {
        stood: stood
            .map(|gateway| Stood::new(gateway, &deployment.region, OffsetDateTime::now_utc())),
        deployment: deployment.name,
        window,
        position: seen.position,
        state_gateway: seen.in_state.map(|gateway| gateway.id),
        gateways: standing,
        addresses: seen.addresses,
        waiting,
        reports_unknown,
        next: next.map(str::to_owned),
    })
}

impl Status {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut row = |name: &str, value: String| {
            let _ = writeln!(text, "{name:<9} {value}");
        };
        let none = || "none".to_owned();
        row("window", self.window.to_string());
        row("file", self.position.to_string());
        row("state", self.state_gateway.clone().unwrap_or_else(none));
        let gateway = |gateway: &Gateway| {
            let since = gateway.created_at.format(&Rfc3339).unwrap_or_default();
            format!("{} {} since {since}", gateway.id, gateway.state)
        };
        let address =
            |address: &Address| format!("{} ({})", address.public_ip, address.allocation_id);
        let cloud: Vec<_> = self
            .gateways
            .iter()
            .map(gateway)
            .chain(self.addresses.iter().map(address))
            .collect();
        row(
            "cloud",
            if cloud.is_empty() {
                none()
            } else {
                cloud.join(", ")
            },
        );
        if let Some(stood) = &self.stood {
            row(
                "cost",
                format!(
                    "standing for {}, so far {}",
                    for_people(stood.seconds),
                    stood.cost
                ),
            );
        }
        for host in HOSTS {
            let said = match (&self.waiting, &self.reports_unknown) {
                (Some(waiting), _) => waiting
                    .iter()
                    .find(|waiting| waiting.host == host)
                    .map_or_else(|| "complete".to_owned(), |waiting| waiting.reason.clone()),
                (None, reason) => format!("unknown ({})", reason.as_deref().unwrap_or("no reason")),
            };
            row(host.as_str(), said);
        }
        if let Some(next) = &self.next {
            row("next", next.clone());
        }
        text
    }
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
