//! The folder of one `drawbridge dev`: who holds it, and where the database's files can be.

use std::{
    fs,
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use crate::postgres::Owner;

/// Where root's database goes when the folder is out of the reach of the user that must run it.
const ELSEWHERE: &str = "/var/lib/drawbridge-dev";

/// A folder nobody else uses while this value lives.
pub struct Folder {
    path: PathBuf,
    // The kernel lets go of it however this process ends.
    _lock: Flock<fs::File>,
}

impl Folder {
    /// Makes the folder if it is missing, and locks it. `port` is what a second one is told.
    pub fn lock(path: &Path, port: u16) -> Result<Self> {
        fs::create_dir_all(path)
            .with_context(|| format!("cannot create the folder {}", path.display()))?;
        let path = path
            .canonicalize()
            .with_context(|| format!("cannot use the folder {}", path.display()))?;
        let lock = path.join("lock");
        let file = fs::File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock);
        let file = file.with_context(|| format!("cannot open {}", lock.display()))?;
        let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let mut holder = String::new();
                drop(file.read_to_string(&mut holder));
                bail!(
                    "`drawbridge dev` already runs on {} ({}); use that one, end it, or give this one a folder of \
                     its own with --data-dir",
                    path.display(),
                    holder.trim()
                );
            }
            Err((_, error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        };
        let holder = format!(
            "process {}, http://127.0.0.1:{port}/docs\n",
            std::process::id()
        );
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| lock.write_all(holder.as_bytes()))
            .with_context(|| format!("cannot write {}", path.join("lock").display()))?;
        Ok(Self { path, _lock: lock })
    }

    /// The folder itself, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The server's configuration.
    pub fn config(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// The server's process number.
    pub fn server_pid(&self) -> PathBuf {
        self.path.join("serve.pid")
    }

    /// Where the database's files go: in here, or where `owner` can reach them. A clone in root's home is the usual
    /// reason: `/root` has mode 0700.
    pub async fn for_postgres(&self, owner: Option<Owner>) -> Result<PathBuf> {
        let here = self.path.join("postgresql");
        let Some(owner) = owner else {
            return Ok(here);
        };
        if owner.can_enter(&self.path).await {
            // Beside the user's own files, so the folder may be a link from a run before the path was opened up.
            return Ok(here.canonicalize().unwrap_or(here));
        }
        // `-` between the parts and `--` within one, so that two folders never share a name.
        let name = self
            .path
            .display()
            .to_string()
            .replace('-', "--")
            .replace('/', "-");
        let there = Path::new(ELSEWHERE).join(name.trim_start_matches('-'));
        fs::create_dir_all(ELSEWHERE).with_context(|| format!("cannot create {ELSEWHERE}"))?;
        if !there.exists() {
            eprintln!(
                "{} is closed to the user postgres, so the database's files go to {}",
                self.path.display(),
                there.display()
            );
        }
        match std::os::unix::fs::symlink(&there, &here) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(error).with_context(|| format!("cannot create {}", here.display()))
            }
            _ => Ok(there),
        }
    }
}
