//! Control groups of rehearsed hosts, one in each hierarchy that matters, so that a guest's systemd has a tree of its own and
//! its host's processes and memory can be told from others. Unlike all else they outlive a rehearsal that is killed.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

/// Hierarchies of cgroup v1 that a guest gets a group in, where a machine still has them.
const V1: [&str; 3] = ["name=systemd", "memory", "pids"];
/// Killed processes are gone within moments.
const EMPTY_LIMIT: Duration = Duration::from_secs(120);

/// The folder in each hierarchy that holds the hosts of this rehearsal.
static NAME: OnceLock<String> = OnceLock::new();

/// Says under which name groups of this rehearsal are made: its in-memory folder's, which a later start knows.
pub fn name_after(inside: &Path) {
    if let Some(name) = inside.file_name() {
        let _ = NAME.set(name.to_string_lossy().into_owned());
    }
}

/// The groups of one host.
pub struct Cgroups {
    folders: Vec<PathBuf>,
}

/// A mounted hierarchy.
struct Hierarchy {
    folder: PathBuf,
    controllers: Vec<String>,
    is_v2: bool,
}

impl Cgroups {
    /// Makes the groups of a host, after removing what an earlier boot has left.
    ///
    /// # Errors
    /// If this machine lets nobody make a group.
    pub fn create(host: &str) -> Result<Cgroups> {
        let name = NAME.get().context("the rehearsal's groups have no name")?;
        let hierarchies = hierarchies()?;
        ensure!(
            hierarchies.iter().any(|hierarchy| hierarchy.is_v2),
            "this machine has no cgroup v2, which systemd needs"
        );
        let folders: Vec<PathBuf> = hierarchies
            .into_iter()
            .map(|hierarchy| hierarchy.folder.join(name).join(host))
            .collect();
        let cgroups = Cgroups { folders };
        cgroups.remove()?;
        for folder in &cgroups.folders {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make the control group {}", folder.display()))?;
        }
        Ok(cgroups)
    }

    /// The files that take a process in.
    pub fn files(&self) -> Vec<String> {
        self.folders
            .iter()
            .map(|folder| folder.join("cgroup.procs").display().to_string())
            .collect()
    }

    /// Kills every process in it. systemd-nspawn's own end does not reach what it has started.
    pub fn kill(&self) {
        for folder in &self.folders {
            // Only cgroup v2 has such a file.
            let _ = fs::write(folder.join("cgroup.kill"), "1");
        }
    }

    /// Kills what is left and removes the groups.
    ///
    /// # Errors
    /// If one is not empty even so.
    pub fn remove(&self) -> Result<()> {
        self.kill();
        self.folders
            .iter()
            .try_for_each(|folder| remove_tree(folder))
    }

    /// The folder whose limit of memory the kernel enforces for this host, and the name of its limit's file.
    ///
    /// # Errors
    /// If no hierarchy here counts memory.
    pub fn memory(&self) -> Result<(PathBuf, &'static str)> {
        for folder in &self.folders {
            for file in ["memory.limit_in_bytes", "memory.max"] {
                if folder.join(file).exists() {
                    return Ok((folder.clone(), file));
                }
            }
        }
        bail!("no control group here counts memory")
    }
}

/// Removes the groups that a killed rehearsal with this in-memory folder has left.
///
/// # Errors
/// If one cannot be removed.
pub fn remove_leftovers(inside: &Path) -> Result<()> {
    let name = inside
        .file_name()
        .context("the in-memory folder has no name")?;
    for hierarchy in hierarchies()? {
        let folder = hierarchy.folder.join(name);
        if folder.exists() {
            let _ = fs::write(folder.join("cgroup.kill"), "1");
            remove_tree(&folder)?;
        }
    }
    Ok(())
}

/// A group goes only after those below it, and only once its last process has been reaped.
fn remove_tree(folder: &Path) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("cannot list {}", folder.display()))?,
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    let deadline = Instant::now() + EMPTY_LIMIT;
    loop {
        match fs::remove_dir(folder) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| {
                    format!("cannot remove the control group {}", folder.display())
                });
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn hierarchies() -> Result<Vec<Hierarchy>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read mountinfo")?;
    Ok(parse(&mounts))
}

fn parse(mounts: &str) -> Vec<Hierarchy> {
    mounts
        .lines()
        .filter_map(|line| {
            let (place, rest) = line.split_once(" - ")?;
            let folder = PathBuf::from(place.split_whitespace().nth(4)?);
            let mut rest = rest.split_whitespace();
            let kind = rest.next()?;
            let controllers: Vec<String> = rest.nth(1)?.split(',').map(str::to_owned).collect();
            Some(Hierarchy {
                folder,
                is_v2: kind == "cgroup2",
                controllers: (kind.starts_with("cgroup")).then_some(controllers)?,
            })
        })
        .filter(|hierarchy| {
            let counts = |name: &&str| hierarchy.controllers.iter().any(|c| c == name);
            hierarchy.is_v2 || V1.iter().any(counts)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchies_of_old_and_new_machines_are_found() {
        let hybrid = "\
30 24 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 30 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
35 30 0:31 / /sys/fs/cgroup/memories rw - cgroup cgroup rw,memories";
        let found = |mounts| -> Vec<PathBuf> {
            parse(mounts)
                .into_iter()
                .map(|hierarchy| hierarchy.folder)
                .collect()
        };
        assert_eq!(
            found(hybrid),
            ["unified", "memory", "systemd"].map(|name| Path::new("/sys/fs/cgroup").join(name))
        );
        let unified = "26 24 0:23 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(found(unified), [PathBuf::from("/sys/fs/cgroup")]);
    }
}
