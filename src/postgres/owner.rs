//! As whom Postgres runs, and what belongs to it.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown},
    path::Path,
    process::Stdio,
};

use nix::unistd::User;
use tokio::process::Command;

use super::cluster::{ClusterError, file};

/// The user a server runs as when we are root; Postgres refuses root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Owner {
    /// `None` for an ordinary user, who runs Postgres as itself; for root the machine's `postgres`.
    ///
    /// # Errors
    /// [`ClusterError::NoOwner`].
    pub fn for_this_process() -> Result<Option<Self>, ClusterError> {
        if !nix::unistd::geteuid().is_root() {
            return Ok(None);
        }
        match User::from_name("postgres") {
            Ok(Some(user)) => Ok(Some(Self {
                uid: user.uid.as_raw(),
                gid: user.gid.as_raw(),
            })),
            _ => Err(ClusterError::NoOwner),
        }
    }

    /// Whether this user can enter `folder`: the folders above it decide too, such as a `/root` with mode 0700.
    pub async fn can_enter(self, folder: &Path) -> bool {
        let test = Command::new("test")
            .args(["-x".as_ref(), folder.as_os_str()])
            .uid(self.uid)
            .gid(self.gid)
            .stdin(Stdio::null())
            .status();
        test.await.is_ok_and(|status| status.success())
    }
}

/// Makes a folder that only the server's user can enter, or makes sure that the one found is such a folder.
pub(super) fn make_private_folder(path: &Path, owner: Option<Owner>) -> Result<(), ClusterError> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {
            if let Some(owner) = owner {
                chown(path, Some(owner.uid), Some(owner.gid))
                    .map_err(file("give away the folder", path))?;
            }
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(file("create the folder", path)(error)),
    }
    let found = fs::symlink_metadata(path).map_err(file("read", path))?;
    let uid = owner.map_or_else(|| nix::unistd::geteuid().as_raw(), |owner| owner.uid);
    if !found.is_dir() || found.uid() != uid || found.permissions().mode() & 0o077 != 0 {
        return Err(ClusterError::NotOurs {
            path: path.to_owned(),
        });
    }
    Ok(())
}
