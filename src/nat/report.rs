//! What a close tells: for people through the command, for scripts as JSON.

use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;

use super::cost::{Cost, cost};
use super::gate::Waiting;
use super::proof::{ADDRESS_RELEASED, GATEWAY_GONE, Proof};
use crate::cloud::Gateway;
use crate::error_chain::chain;
use crate::exit::Exit;

/// How a close ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Closed now, and everything proven.
    Closed,
    /// It was closed before; nothing was done.
    AlreadyClosed,
    /// The change was made, but a proof does not hold.
    Unproven,
    /// A host is not complete; nothing was changed.
    NotReady,
    /// Something else stands in the way; nothing was changed.
    Refused,
    /// Ctrl-C or SIGTERM.
    Interrupted,
}

/// What a close did and saw. This is what `--json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Name of the deployment.
    pub deployment: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Why nothing was changed, for `refused`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// The hosts that are not complete, for `not-ready`.
    pub waiting: Vec<Waiting>,
    /// What was looked at afterwards.
    pub proofs: Vec<Proof>,
    /// Claims that were not looked at because the caller wanted it so: `no-egress-backend`, for `--without-ssh`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// The window that was closed, when EC2 still lists its gateway.
    pub window: Option<Stood>,
    /// Where the time went, in order.
    pub phases: Vec<Phase>,
    /// Seconds in all.
    pub seconds: f64,
    /// Of these, seconds spent waiting for terraform.
    pub terraform_seconds: f64,
}

/// How long a window stood.
#[derive(Clone, Debug, Serialize)]
pub struct Stood {
    /// `nat-…`
    pub gateway: String,
    /// When the gateway was made.
    #[serde(with = "time::serde::rfc3339")]
    pub opened_at: OffsetDateTime,
    /// When it was deleted, or now.
    #[serde(with = "time::serde::rfc3339")]
    pub closed_at: OffsetDateTime,
    /// Between the two.
    pub seconds: u64,
    /// What it cost.
    pub cost: Cost,
}

/// A part of the work.
#[derive(Clone, Debug, Serialize)]
pub struct Phase {
    /// `look`, `gate`, `adopt`, `plan`, `apply`, `prove`
    pub name: &'static str,
    /// Seconds it took.
    pub seconds: f64,
    /// Of these, seconds in which terraform ran.
    pub terraform_seconds: f64,
}

impl Outcome {
    /// The exit status that tells it.
    #[must_use]
    pub fn exit(self) -> Exit {
        match self {
            Self::Closed | Self::AlreadyClosed => Exit::Done,
            Self::Unproven => Exit::Unproven,
            Self::NotReady => Exit::NotReady,
            Self::Refused => Exit::Refused,
            Self::Interrupted => Exit::Interrupted,
        }
    }
}

impl Stood {
    /// From a gateway's own times.
    #[must_use]
    pub fn new(gateway: &Gateway, region: &str, now: OffsetDateTime) -> Self {
        let closed_at = gateway.deleted_at.unwrap_or(now);
        let seconds = (closed_at - gateway.created_at)
            .whole_seconds()
            .try_into()
            .unwrap_or(0);
        let cost = cost(region, Duration::from_secs(seconds));
        Self {
            gateway: gateway.id.clone(),
            opened_at: gateway.created_at,
            closed_at,
            seconds,
            cost,
        }
    }
}

impl Report {
    /// Whether the cloud was seen to hold neither gateway nor address.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        let holds = |claim: &str| {
            let mut proofs = self.proofs.iter();
            proofs.any(|proof| proof.claim == claim && proof.holds)
        };
        self.outcome == Outcome::AlreadyClosed || (holds(GATEWAY_GONE) && holds(ADDRESS_RELEASED))
    }

    /// The same with the reason why nothing was changed.
    #[must_use]
    pub(super) fn refused(self, refusal: &(dyn std::error::Error + 'static)) -> Self {
        Self {
            refusal: Some(chain(refusal)),
            ..self
        }
    }
}
