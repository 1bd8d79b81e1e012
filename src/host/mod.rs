//! First boot: what an instance does once, after which it never needs the internet again.
//!
//! [`bootstrap`] walks the steps of the host's role ([`crate::appliance::Step::sequence`]), one file per step under
//! [`steps`]. Every step looks, acts only where something is amiss, and looks again, so a run that was killed anywhere
//! is healed by the next one. [`report`] keeps everybody informed.

use std::path::{Path, PathBuf};

mod api_folder;
pub mod bootstrap;
mod command;
pub mod egress;
mod file;
mod lock;
mod memory;
pub mod metadata;
pub mod parameters;
pub mod report;
mod rotate;
mod status;
mod steps;
mod system;
pub mod wait;

pub use crate::appliance::{Login, LoginRole, NotALogin, Secret};
pub use bootstrap::{BootstrapArgs, BootstrapError, bootstrap, run};
pub use report::{ReportArgs, ReportError, show};
pub use rotate::{RotateArgs, RotateError, Rotated, rotate};
pub use status::status;
pub use steps::pg_hba;
pub use system::{SystemArgs, SystemError};

/// The machine the bootstrap works on.
#[derive(Debug, Clone)]
pub struct Host {
    root: PathBuf,
}

impl Host {
    /// This machine.
    pub fn this() -> Self {
        Host { root: "/".into() }
    }

    /// A folder that stands for the root of a machine, for tests of steps that only touch files.
    pub fn under(root: impl Into<PathBuf>) -> Self {
        Host { root: root.into() }
    }

    /// Where an absolute path of [`crate::appliance::path`] is on this machine.
    pub fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(Path::new(absolute.trim_start_matches('/')))
    }
}
