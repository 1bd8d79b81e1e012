//! PostgreSQL's own programs on this machine: where they are, and as whom they can run.

mod cluster;
mod owner;
mod process;

pub use cluster::{Cluster, ClusterError};
pub use owner::Owner;
pub use process::{is_alive, is_command_with};

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// Where Debian and Ubuntu put each major version: `/usr/lib/postgresql/15/bin`.
const DEBIAN: &str = "/usr/lib/postgresql";

/// No PostgreSQL on this machine.
#[derive(Debug, thiserror::Error)]
#[error(
    "PostgreSQL's programs (initdb, postgres) are neither in PATH nor in {DEBIAN}/*/bin; install them: \
     apt-get install postgresql (Debian, Ubuntu), or run inside `nix develop`"
)]
pub struct NotFound;

/// The folder with `initdb`, `postgres` and their siblings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binaries(PathBuf);

impl Binaries {
    /// Looks in `PATH` first, then for the newest version Debian's packages left.
    ///
    /// # Errors
    /// [`NotFound`], which says what to install.
    pub fn find() -> Result<Self, NotFound> {
        let path = env::var_os("PATH").unwrap_or_default();
        Self::find_in(env::split_paths(&path), Path::new(DEBIAN))
    }

    fn find_in(path: impl IntoIterator<Item = PathBuf>, debian: &Path) -> Result<Self, NotFound> {
        let is_complete = |folder: &PathBuf| {
            ["initdb", "postgres"]
                .iter()
                .all(|name| folder.join(name).is_file())
        };
        // A link in PATH leads to the folder that also holds the siblings.
        let real = |folder: PathBuf| {
            Some(
                folder
                    .join("postgres")
                    .canonicalize()
                    .ok()?
                    .parent()?
                    .to_owned(),
            )
        };
        if let Some(folder) = path.into_iter().filter_map(real).find(is_complete) {
            return Ok(Self(folder));
        }
        fs::read_dir(debian)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                Some((
                    entry.file_name().to_str()?.parse::<u32>().ok()?,
                    entry.path().join("bin"),
                ))
            })
            .filter(|(_, folder)| is_complete(folder))
            .max()
            .map(|(_, folder)| Self(folder))
            .ok_or(NotFound)
    }

    /// The path of one program, such as `initdb`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plant(folder: &Path, programs: &[&str]) {
        fs::create_dir_all(folder).unwrap();
        for program in programs {
            fs::write(folder.join(program), "").unwrap();
        }
    }

    #[test]
    fn the_path_comes_first_then_the_newest_version_by_number() {
        let root = tempfile::tempdir().unwrap();
        let debian = root.path().join("debian");
        plant(&debian.join("9/bin"), &["initdb", "postgres"]);
        plant(&debian.join("15/bin"), &["initdb", "postgres"]);
        plant(&debian.join("17/bin"), &["psql"]);
        let found = Binaries::find_in([root.path().join("empty")], &debian).unwrap();
        assert_eq!(found.program("initdb"), debian.join("15/bin/initdb"));

        let path = root.path().join("path");
        plant(&path, &["initdb", "postgres"]);
        assert_eq!(
            Binaries::find_in([path.clone()], &debian).unwrap(),
            Binaries(path.canonicalize().unwrap())
        );
    }

    #[test]
    fn without_postgres_the_error_says_what_to_install() {
        let root = tempfile::tempdir().unwrap();
        let message = Binaries::find_in([root.path().to_owned()], root.path())
            .unwrap_err()
            .to_string();
        assert!(message.contains("apt-get install postgresql"), "{message}");
    }
}
