//! The root file system that hosts with a systemd of their own boot from: a small Debian that scripts/lib/install.sh makes
//! once.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

/// Its folder below `.drawbridge/`. Another recipe (the packages there, or rootfs.sh) gets another number, and is made anew.
pub const FOLDER: &str = "rootfs-trixie-1";

/// The tree, if it is complete.
///
/// # Errors
/// What to do about it if it is not there.
pub fn find(root: &Path) -> Result<PathBuf> {
    let folder = root.join(".drawbridge").join(FOLDER);
    ensure!(
        folder.join("complete").exists(),
        "no root file system in {}: run scripts/rehearse --systemd, which makes it",
        folder.display()
    );
    Ok(folder.join("tree"))
}
