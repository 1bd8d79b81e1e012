//! Where the rehearsal keeps things: a folder on a file system of its own that vanishes with the process, for all that
//! is pretended, and one on disk for the few files that people use.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// Says that a folder is a rehearsal's, and so one that may be removed with all that is in it.
const MARK: &str = ".drawbridge-rehearsal";
/// How much of a log an error shows.
const TAIL_LINES: usize = 15;

/// The folders of one rehearsal.
pub struct World {
    /// In memory; gone when the rehearsal ends, however it ends.
    pub inside: PathBuf,
    /// On disk, `.drawbridge/rehearsal`: ssh_config, known_hosts and the operator's key.
    pub outside: PathBuf,
}

impl World {
    /// Path of the in-memory folder for a rehearsal that keeps its files in `outside`. It depends on nothing else, so
    /// that the next start can recognise what a killed run has left in the kernel.
    pub fn inside_path(outside: &Path) -> PathBuf {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        let mut hasher = DefaultHasher::new();
        outside.hash(&mut hasher);
        PathBuf::from(format!("/run/drawbridge-{:016x}", hasher.finish()))
    }

    /// Creates the in-memory folder. `/run` has to be the rehearsal's own by now.
    ///
    /// # Errors
    /// If a folder cannot be created.
    pub fn create(outside: &Path) -> Result<World> {
        let inside = World::inside_path(outside);
        for folder in [&inside, &outside.to_owned()] {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let mark = outside.join(MARK);
        fs::write(&mark, "").with_context(|| format!("cannot write {}", mark.display()))?;
        Ok(World {
            inside,
            outside: outside.to_owned(),
        })
    }

    /// Gives the folder on disk to whoever called sudo, so that the ssh lines work for them: OpenSSH wants a key that
    /// is its user's own.
    ///
    /// # Errors
    /// If a file's owner cannot be changed.
    pub fn give_to_caller(&self) -> Result<()> {
        let id = |name| {
            std::env::var(name)
                .ok()
                .and_then(|id| id.parse::<u32>().ok())
        };
        let (Some(user), Some(group)) = (id("SUDO_UID"), id("SUDO_GID")) else {
            return Ok(());
        };
        let entries = fs::read_dir(&self.outside)
            .with_context(|| format!("cannot list {}", self.outside.display()))?;
        let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
        for path in files.chain([self.outside.clone()]) {
            chown(&path, Some(user), Some(group))
                .with_context(|| format!("cannot give {} to user {user}", path.display()))?;
        }
        Ok(())
    }

    /// Removes the folder on disk, if there is one.
    ///
    /// # Errors
    /// If it holds files and no rehearsal has made it; it is left as it is then.
    pub fn remove_outside(outside: &Path) -> Result<()> {
        let mut entries = match fs::read_dir(outside) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.with_context(|| format!("cannot list {}", outside.display()))?,
        };
        ensure!(
            entries.next().is_none() || outside.join(MARK).exists(),
            "{} holds files that are no rehearsal's, and a rehearsal begins with an empty folder: name another one with \
             --work-dir",
            outside.display()
        );
        fs::remove_dir_all(outside).with_context(|| format!("cannot remove {}", outside.display()))
    }
}

/// The last lines of a log, for an error text.
pub fn log_tail(path: &Path) -> String {
    let text = match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => return format!("({} cannot be read: {error})", path.display()),
    };
    if text.is_empty() {
        "(empty)".to_owned()
    } else {
        tail(&text)
    }
}

/// The last lines of a text.
pub fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
