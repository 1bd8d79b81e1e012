//! Systems on a running host: what `drawbridge-host system` answers, and what it writes down while it replaces one.
//!
//! An activation goes staged → migrating → switching → waiting → confirmed, or ends as rolled back or failed. The host
//! writes each step before it takes it; the operator reads them.

use std::fmt;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::Role;
use super::store::StorePath;

/// First bytes of the stream that `system receive` reads. Then come paths: one byte with the length of the path's name,
/// the name, and the archive, which is exactly as long as the staged list says. A length of 0 ends the stream.
pub const STREAM_MAGIC: &[u8] = b"drawbridge closure 1\n";
/// What a system says of itself, below its toplevel: [`Description`] as JSON.
pub const DESCRIPTION: &str = "etc/drawbridge/system.json";
/// Exit status of `drawbridge-host system` where something stands in the way and nothing was changed.
pub const REFUSED: u8 = 4;

/// What a system says of itself; nixos/system.nix writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// What host it is for.
    pub role: Role,
    /// Program and arguments that bring the database's schema up to date, if it has such a thing: run before the switch
    /// with the API's configuration and password.
    pub migrate: Option<Vec<String>>,
}

/// How far an activation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Everything is on the disk, nothing has begun.
    Staged,
    /// The new system's migrations run; the old system serves.
    Migrating,
    /// The new system's units are being started.
    Switching,
    /// The new system runs and waits to be confirmed. A reboot, or no word in time, brings the old one back.
    Waiting,
    /// It was not confirmed; the old system's units are being started.
    RollingBack,
    /// The new system is the one that boots.
    Confirmed,
    /// The old system runs again.
    RolledBack,
    /// It ended before anything was switched; the old system was not touched.
    Failed,
}

impl Phase {
    /// Whether nothing more happens by itself.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Confirmed | Self::RolledBack | Self::Failed)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Staged => "staged",
            Self::Migrating => "migrating",
            Self::Switching => "switching",
            Self::Waiting => "waiting for confirmation",
            Self::RollingBack => "rolling back",
            Self::Confirmed => "confirmed",
            Self::RolledBack => "rolled back",
            Self::Failed => "failed",
        })
    }
}

/// A numbered system on a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// From 1, the image's own. Never given twice.
    pub number: u64,
    /// The system.
    pub toplevel: StorePath,
}

/// The last activation of a host: `/var/lib/drawbridge/system/state.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activation {
    /// How far it is.
    pub phase: Phase,
    /// Whether `to` was here already: an older generation again.
    #[serde(default)]
    pub is_back: bool,
    /// What is activated.
    pub to: Generation,
    /// What ran before, and runs again if this one is not confirmed.
    pub from: Generation,
    /// Seconds from the end of the switch until the old system comes back by itself.
    pub confirm_timeout: u64,
    /// Why it ended as it did; empty while all is well.
    #[serde(default)]
    pub reason: String,
    /// When the phase began.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// Which boot of the machine this is about (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
}

/// What `system stage` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// The system is the one that runs and boots: there is nothing to do.
    pub is_current: bool,
    /// Number it will have.
    pub generation: u64,
    /// Paths that the host lacks.
    pub missing: Vec<StorePath>,
    /// Bytes that the missing paths take, by the sizes of their archives.
    pub missing_bytes: u64,
}

/// What `system status` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemStatus {
    /// The system that runs, where it is one of the store.
    pub current: Option<StorePath>,
    /// The generation that boots.
    pub boots: Option<Generation>,
    /// Every generation that is kept.
    pub generations: Vec<Generation>,
    /// The last activation, if there was one.
    pub activation: Option<Activation>,
}

impl SystemStatus {
    /// The newest generation before the one that boots.
    #[must_use]
    pub fn previous(&self) -> Option<&Generation> {
        let boots = self.boots.as_ref()?;
        self.generations
            .iter()
            .filter(|one| one.number < boots.number)
            .max_by_key(|one| one.number)
    }
}

/// What `system probe` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The system that runs.
    pub current: Option<StorePath>,
    /// What the host's own service says: the API that it is ready, Postgres that it answers.
    pub healthy: bool,
    /// What was seen, e.g. `http://127.0.0.1:8000/ready answers 200`.
    pub seen: String,
}
