//! One at a time: a person's `bootstrap` and the unit's, or a `rotate-password`, would otherwise each set a password.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use super::Host;
use super::file::{self, FileError};
use super::wait::{Look, until};
use crate::appliance::path;

/// The children of one that was killed hold the lock until they have gone as well.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why the lock cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another one is running.
    #[error(
        "another bootstrap or rotate-password is running on this host; wait for its end (`journalctl -fu drawbridge-bootstrap` shows the unit's)"
    )]
    Busy,
    /// The state folder is not usable.
    #[error(transparent)]
    State(#[from] FileError),
}

/// Held until it is dropped, or the process has ended.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Takes the lock, and makes the state folder it is in.
    ///
    /// # Errors
    /// [`LockError`].
    pub async fn take(host: &Host) -> Result<Self, LockError> {
        let folder = host.path(path::STATE);
        file::folder(&folder, 0o755, None)?;
        let taken = Self::take_file(&folder.join(".bootstrap.lock"), PATIENCE).await?;
        taken.ok_or(LockError::Busy)
    }

    /// Takes the lock of this name, in a folder that is there. Nothing where another process keeps it for longer than
    /// `patience`.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub async fn take_file(name: &Path, patience: Duration) -> Result<Option<Self>, FileError> {
        let look = async || match try_lock(name) {
            Ok(Some(file)) => Look::Done(Ok(Some(Lock { _file: file }))),
            Ok(None) => Look::NotYet("another process has it".into()),
            Err(error) => Look::Done(Err(error)),
        };
        let taken = until("the lock", patience, PATIENCE / 10, look);
        taken.await.unwrap_or(Ok(None))
    }
}

fn try_lock(name: &Path) -> Result<Option<Flock<File>>, FileError> {
    let file = File::create(name).map_err(FileError::while_doing("write", name))?;
    Ok(Flock::lock(file, FlockArg::LockExclusiveNonblock).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_one_at_a_time_and_a_moments_patience() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::under(dir.path());
        let first = Lock::take(&host).await.unwrap();
        assert!(matches!(Lock::take(&host).await, Err(LockError::Busy)));
        let soon = tokio::spawn(async move {
            tokio::time::sleep(PATIENCE / 4).await;
            drop(first);
        });
        Lock::take(&host).await.unwrap();
        soon.await.unwrap();
    }
}
