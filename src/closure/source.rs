//! Where a system to deploy comes from: built here by Nix, or given.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::path_info::{self, PathInfoError};
use crate::appliance::Role;
use crate::appliance::store::{Closure, STORE, StorePath};
use crate::image::build::find_flake;
use crate::image::info::System;
use crate::terraform::executable;

/// A first build compiles the API and its dependencies.
const BUILD_LIMIT: Duration = Duration::from_secs(4 * 60 * 60);
/// Nix reads its database.
const ASK_LIMIT: Duration = Duration::from_secs(300);
/// What a folder with a closure has beside `nix/store/`.
const LIST: &str = "closure.json";

/// A closure and where its paths are read from.
#[derive(Debug)]
pub struct Source {
    /// The paths.
    pub closure: Closure,
    store: PathBuf,
}

/// Why there is nothing to deploy. Nothing was sent anywhere.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Nothing can be built here.
    #[error(
        "nix is not on the PATH: build the system where it is (https://nixos.org/download), and name it with --closure; `drawbridge deploy --help` says how"
    )]
    NoNix,
    /// Nothing can be built here.
    #[error(
        "found no flake.nix in {} or above it: run this inside the repository, or name a finished system with --closure", looked.display()
    )]
    NoFlake {
        /// Where.
        looked: PathBuf,
    },
    /// nix has said why.
    #[error("`{what}` ended with {how}: {said}; nothing was sent")]
    Nix {
        /// What was run.
        what: String,
        /// How it ended.
        how: String,
        /// Its last words, or where they are.
        said: String,
    },
    /// The list is not one.
    #[error("{} does not list a system", file.display())]
    List {
        /// Where it is.
        file: PathBuf,
        /// Why not.
        #[source]
        source: PathInfoError,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A path of the list is nowhere.
    #[error("{path} is not in {}, though the list names it", store.display())]
    Missing {
        /// The first such path.
        path: StorePath,
        /// Where it was looked for.
        store: PathBuf,
    },
}

impl Source {
    /// Where a path of the closure is on this machine.
    #[must_use]
    pub fn place(&self, path: &StorePath) -> PathBuf {
        self.store.join(path.name())
    }

    /// Builds the system of `role` for the processor of its image, with nix's own words on stderr; a link
    /// `result-system-ROLE` in the flake's folder keeps it from being collected.
    ///
    /// # Errors
    /// [`SourceError`]
    pub async fn build(start: &Path, role: Role, system: System) -> Result<Self, SourceError> {
        let Some(flake) = find_flake(start) else {
            let looked = start.to_owned();
            return Err(SourceError::NoFlake { looked });
        };
        // As `hostName` in flake.nix has it.
        let host = match system {
            System::X86_64 => role.to_string(),
            System::Aarch64 => format!("{role}-aarch64"),
        };
        let what = format!(".#nixosConfigurations.{host}.config.system.build.toplevel");
        let link = flake.join(format!("result-system-{host}"));
        let arguments: [&OsStr; 4] = [
            "build".as_ref(),
            what.as_ref(),
            "--out-link".as_ref(),
            link.as_ref(),
        ];
        nix(&flake, &arguments, Stdio::inherit(), BUILD_LIMIT).await?;
        Self::installed(&link).await
    }

    /// A system that is given: a path of this machine's store or a link to one, the list of one, or a folder with the list
    /// `closure.json` and the paths in `nix/store/`.
    ///
    /// # Errors
    /// [`SourceError`]
    pub async fn given(path: &Path) -> Result<Self, SourceError> {
        let unreadable = |source| SourceError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let real = path.canonicalize().map_err(unreadable)?;
        if real.starts_with(STORE) {
            return Self::installed(&real).await;
        }
        let file = match real.is_dir() {
            true => real.join(LIST),
            false => real,
        };
        let text = fs::read_to_string(&file).map_err(|source| SourceError::Unreadable {
            path: file.clone(),
            source,
        })?;
        let beside = file.parent().map(|folder| folder.join(&STORE[1..]));
        let store = beside.filter(|store| store.is_dir());
        let closure =
            path_info::parse(&text).map_err(|source| SourceError::List { file, source })?;
        Self::checked(closure, store.unwrap_or_else(|| STORE.into()))
    }

    async fn installed(path: &Path) -> Result<Self, SourceError> {
        let arguments: [&OsStr; 4] = [
            "path-info".as_ref(),
            "--json".as_ref(),
            "--recursive".as_ref(),
            path.as_ref(),
        ];
        let text = nix(Path::new("."), &arguments, Stdio::piped(), ASK_LIMIT).await?;
        let closure = path_info::parse(&text).map_err(|source| SourceError::List {
            file: path.to_owned(),
            source,
        })?;
        Self::checked(closure, STORE.into())
    }

    fn checked(closure: Closure, store: PathBuf) -> Result<Self, SourceError> {
        let source = Self { closure, store };
        let is_missing = |path: &&StorePath| source.place(path).symlink_metadata().is_err();
        let paths = source.closure.paths().iter().map(|one| &one.path);
        match paths.clone().find(is_missing).cloned() {
            Some(path) => Err(SourceError::Missing {
                path,
                store: source.store,
            }),
            None => Ok(source),
        }
    }
}

/// Runs nix and returns its standard output.
async fn nix(
    folder: &Path,
    arguments: &[&OsStr],
    stderr: Stdio,
    limit: Duration,
) -> Result<String, SourceError> {
    let program =
        executable("nix", std::env::var_os("PATH").as_deref()).ok_or(SourceError::NoNix)?;
    let words: Vec<_> = arguments
        .iter()
        .map(|word| word.to_string_lossy())
        .collect();
    let failed = |how: String, said: &[u8]| {
        let said = String::from_utf8_lossy(said);
        let last = said.lines().rev().find(|line| !line.trim().is_empty());
        SourceError::Nix {
            what: format!("nix {}", words.join(" ")),
            how,
            said: last.unwrap_or("its own words are above").trim().to_owned(),
        }
    };
    let child = Command::new(program)
        .args(["--extra-experimental-features", "nix-command flakes"])
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .kill_on_drop(true)
        .spawn();
    let child = child.map_err(|error| failed(error.to_string(), b""))?;
    match timeout(limit, child.wait_with_output()).await {
        Err(_) => Err(failed(format!("no result in {} s", limit.as_secs()), b"")),
        Ok(Err(error)) => Err(failed(error.to_string(), b"")),
        Ok(Ok(output)) if !output.status.success() => {
            Err(failed(output.status.to_string(), &output.stderr))
        }
        Ok(Ok(output)) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
    }
}
