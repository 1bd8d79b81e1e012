//! `nix build .#ami-ROLE`, for those who have Nix at hand.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::info::System;
use crate::appliance::Role;
use crate::terraform::executable;

/// A first build compiles the API and its dependencies and makes a disk in a virtual machine: tens of minutes; hours
/// where there is no KVM.
const LIMIT: Duration = Duration::from_secs(4 * 60 * 60);

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Nothing was run.
    #[error(
        "nix is not on the PATH: build the images where it is (https://nixos.org/download) and name their folders with --image {role}=FOLDER"
    )]
    NoNix {
        /// The first one to build.
        role: Role,
    },
    /// Nothing was run.
    #[error(
        "found no flake.nix in {} or above it: run this inside the repository, or name finished images with --image {role}=FOLDER", looked.display()
    )]
    NoFlake {
        /// Where.
        looked: PathBuf,
        /// The first one to build.
        role: Role,
    },
    /// nix has said why.
    #[error(
        "`nix build {what}` ended with {how}: its own words are above; nothing was published: mend that and run this again"
    )]
    Failed {
        /// What was to be built.
        what: String,
        /// How it ended.
        how: String,
    },
}

/// The nearest folder with a `flake.nix`, here or above.
#[must_use]
pub fn find_flake(start: &Path) -> Option<PathBuf> {
    let mut folders = start.ancestors();
    let found = folders.find(|folder| folder.join("flake.nix").is_file())?;
    Some(found.to_owned())
}

/// Builds the image of `role`, which takes its time, with nix's own words on stderr. The folder that holds it; a link
/// `result-ami-ROLE-SYSTEM` in `flake` keeps it from being collected.
///
/// # Errors
/// [`BuildError`]
pub async fn build(flake: &Path, role: Role, system: System) -> Result<PathBuf, BuildError> {
    let nix = executable("nix", std::env::var_os("PATH").as_deref());
    let nix = nix.ok_or(BuildError::NoNix { role })?;
    let what = format!(".#packages.{system}.ami-{role}");
    let link = flake.join(format!("result-ami-{role}-{system}"));
    let failed = |how: String| BuildError::Failed {
        what: what.clone(),
        how,
    };
    let mut command = Command::new(nix);
    command
        .args(["--extra-experimental-features", "nix-command flakes"])
        .args(["build", &what, "--out-link"])
        .arg(&link)
        .current_dir(flake)
        .stdin(Stdio::null())
        // stdout is the result's.
        .stdout(Stdio::null())
        .kill_on_drop(true);
    match timeout(LIMIT, command.status()).await {
        Err(_) => Err(failed(format!("no result in {} h", LIMIT.as_secs() / 3600))),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Ok(Ok(status)) if !status.success() => Err(failed(status.to_string())),
        Ok(Ok(_)) => Ok(link),
    }
}
