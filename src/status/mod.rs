//! `drawbridge status`: the whole deployment at one moment, on one screen.
//!
//! [`look`] asks hosts ([`inside`]) and cloud side by side; whatever cannot be learnt in time is [`Known::Unknown`] with its reason.
//! [`judge`] decides from what was seen what is wrong, without touching anything; `drawbridge doctor` shares both.
//! [`screen`] is for people.

mod bound;
pub mod inside;
pub mod judge;
pub mod look;
mod screen;

use std::collections::BTreeMap;

use serde::Serialize;
use time::OffsetDateTime;

use crate::appliance::Role;
use crate::appliance::status::{HostStatus, Known, Moment};
use crate::exit::Exit;
use crate::nat::finding::Finding;
use crate::nat::status::Status as Window;

/// What was seen. `--json` prints this; `{"unknown": "why"}` stands in the place of what is not known.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Name of the deployment.
    pub deployment: String,
    /// The AWS account it stands in.
    pub account: String,
    /// Its region.
    pub region: String,
    /// When the look began, by this machine's clock.
    pub taken_at: Moment,
    /// How long it took.
    pub seconds: f64,
    /// The three hosts.
    pub hosts: BTreeMap<Role, Host>,
    /// Whether the API is ready, asked in two ways.
    pub api: Api,
    /// The NAT window, as `drawbridge nat status --json` has it.
    pub window: Known<Window>,
    /// When the last backup was made; null: there is none, and nothing makes any yet.
    pub last_backup: Option<Moment>,
    /// What is wrong, each with the command that mends it.
    pub findings: Vec<Finding>,
    /// Every part that is not known.
    pub unknown: Vec<Unknown>,
}

/// A part that is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unknown {
    /// Which one, e.g. `backend memory`.
    pub part: String,
    /// Why.
    pub reason: String,
}

/// A host, from outside and from inside.
#[derive(Clone, Debug, Serialize)]
pub struct Host {
    /// `i-…` by Terraform's state.
    pub instance_id: String,
    /// IPv4 address inside the VPC.
    pub private_ip: String,
    /// IPv4 address in the internet; null on the private hosts.
    pub public_ip: Option<String>,
    /// `ami-…` it was started from.
    pub image_id: String,
    /// The instance by EC2.
    pub instance: Known<Instance>,
    /// The image by EC2; null: it does not exist any more.
    pub image: Known<Option<Image>>,
    /// How far first boot is, by the report in SSM, judged against the instance that runs now.
    pub bootstrap: Known<Bootstrap>,
    /// What the host says of itself.
    pub host: Known<HostStatus>,
    /// How many seconds the host's clock is ahead of this machine's, negative behind; 0 within what the question took.
    /// Null when it was not told.
    pub clock_ahead_seconds: Option<f64>,
}

/// An instance by EC2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Instance {
    /// `running`, `stopped`…
    pub state: String,
    /// When it was started last.
    pub launched_at: Moment,
}

/// An image by EC2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Image {
    /// Its name.
    pub name: String,
    /// When it was registered.
    pub created_at: Moment,
}

/// How far first boot is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bootstrap {
    /// Whether the instance that runs now has reported complete.
    pub is_complete: bool,
    /// The step it stands at, when it has said so.
    pub step: Option<String>,
    /// The whole story in a few words.
    pub said: String,
}

/// Whether the API is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Api {
    /// As everybody reaches it.
    pub load_balancer: Known<Answer>,
    /// Through ssh on the backend itself, without the load balancer.
    pub direct: Known<Answer>,
}

/// An answer to `GET /ready`, or the lack of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Whether it was 200.
    pub is_ready: bool,
    /// What was seen.
    pub seen: String,
}

impl From<Result<String, String>> for Answer {
    fn from(seen: Result<String, String>) -> Self {
        Self {
            is_ready: seen.is_ok(),
            seen: seen.unwrap_or_else(|seen| seen),
        }
    }
}

impl Status {
    /// How the command ends.
    #[must_use]
    pub fn exit(&self) -> Exit {
        Exit::of_look(!self.findings.is_empty(), !self.unknown.is_empty())
    }

    /// For people; control characters in what others said are escaped.
    #[must_use]
    pub fn text(&self) -> String {
        screen::text(self, OffsetDateTime::now_utc())
    }

    /// Every part that is not known. Where a host as a whole is not, its parts are not named one by one.
    fn all_unknown(&self) -> Vec<Unknown> {
        let mut found = Vec::new();
        for (role, host) in &self.hosts {
            let mut add = |part: &str, reason: Option<&str>| {
                if let Some(reason) = reason {
                    found.push(Unknown {
                        part: format!("{role}{part}"),
                        reason: reason.to_owned(),
                    });
                }
            };
            add(" instance", host.instance.reason());
            add(" image", host.image.reason());
            add(" bootstrap", host.bootstrap.reason());
            let Known::Value(inside) = &host.host else {
                add("", host.host.reason());
                continue;
            };
            add(" clock", inside.time.reason());
            add(" version", inside.version.reason());
            add(" system", inside.system.reason());
            add(" uptime", inside.uptime_seconds.reason());
            add(" processors", inside.processors.reason());
            add(" load", inside.load.reason());
            add(" memory", inside.memory.reason());
            add(" root disk", inside.root_disk.reason());
            add(" failed units", inside.failed_units.reason());
            add(" api unit", inside.api.reason());
            add(" volume", inside.volume.reason());
            add(" postgres", inside.database.reason());
        }
        let api = [
            (
                "api through the load balancer",
                self.api.load_balancer.reason(),
            ),
            ("api directly", self.api.direct.reason()),
            ("window", self.window.reason()),
        ];
        let window = self.window.value();
        let window = [
            (
                "window's deadline",
                window.and_then(|window| window.deadline_unknown.as_deref()),
            ),
            (
                "window's route",
                window.and_then(|window| window.route_unknown.as_deref()),
            ),
        ];
        for (part, reason) in api.into_iter().chain(window) {
            found.extend(reason.map(|reason| Unknown {
                part: part.to_owned(),
                reason: reason.to_owned(),
            }));
        }
        found
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
