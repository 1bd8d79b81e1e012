//! What a host remembers of its systems, and where they are: state, lists of paths, links to generations.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::SystemError;
use crate::appliance::path;
use crate::appliance::store::{Closure, StorePath};
use crate::appliance::system::{Activation, DESCRIPTION, Description, Generation};
use crate::host::Host;
use crate::host::file::{self, FileError};

/// What is to be activated next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staging {
    /// The generation it will be.
    pub to: Generation,
    /// Its paths; none for the image's own system.
    pub closure: Option<Closure>,
    /// Whether it is a generation that is there already.
    pub is_back: bool,
}

impl Host {
    fn system(&self, name: &str) -> PathBuf {
        self.path(path::SYSTEM).join(name)
    }

    /// A path of the store on this machine.
    pub(super) fn store(&self, path: &StorePath) -> PathBuf {
        self.path(path.as_str())
    }

    fn profiles(&self) -> PathBuf {
        self.path(path::PROFILES)
    }
}

/// Makes the folders that all others need.
pub fn prepare(host: &Host) -> Result<(), FileError> {
    file::folder(&host.path(path::STATE), 0o755, None)?;
    file::folder(&host.system("generations"), 0o755, None)
}

/// The file whose holder may change anything here.
pub fn lock(host: &Host) -> PathBuf {
    host.system(".lock")
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, SystemError> {
    let Some(text) = file::read(path)? else {
        return Ok(None);
    };
    let read = serde_json::from_str(&text);
    read.map(Some).map_err(|source| SystemError::Unreadable {
        path: path.to_owned(),
        source,
    })
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), SystemError> {
    let text = serde_json::to_vec(value).map_err(|source| SystemError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    Ok(file::write(path, &text, 0o644, None)?)
}

/// The last activation.
pub fn activation(host: &Host) -> Result<Option<Activation>, SystemError> {
    read(&host.system("state.json"))
}

/// Writes how far an activation is.
pub fn set_activation(host: &Host, activation: &Activation) -> Result<(), SystemError> {
    write(&host.system("state.json"), activation)
}

/// What was staged last.
pub fn staging(host: &Host) -> Result<Option<Staging>, SystemError> {
    read(&host.system("staged.json"))
}

/// Writes what is staged.
pub fn set_staging(host: &Host, staging: &Staging) -> Result<(), SystemError> {
    write(&host.system("staged.json"), staging)
}

/// Paths of a generation; none where it came with the image.
pub fn closure(host: &Host, number: u64) -> Result<Option<Closure>, SystemError> {
    read(&host.system(&format!("generations/{number}.json")))
}

/// Writes a generation's paths.
pub fn set_closure(host: &Host, number: u64, closure: &Closure) -> Result<(), SystemError> {
    write(&host.system(&format!("generations/{number}.json")), closure)
}

/// Paths that came by a deploy, the only ones that are ever removed.
pub fn received(host: &Host) -> Result<BTreeSet<StorePath>, SystemError> {
    Ok(read(&host.system("received"))?.unwrap_or_default())
}

/// Writes which paths came by a deploy.
pub fn set_received(host: &Host, paths: &BTreeSet<StorePath>) -> Result<(), SystemError> {
    write(&host.system("received"), paths)
}

/// What a system says of itself; nothing where it says nothing.
pub fn description(system: &Path) -> Result<Option<Description>, SystemError> {
    read(&system.join(DESCRIPTION))
}

fn led_to(link: &Path) -> Option<StorePath> {
    let mut at = fs::read_link(link).ok()?;
    // `system` leads to `system-N-link` beside it.
    if at.is_relative() {
        at = fs::read_link(link.parent()?.join(at)).ok()?;
    }
    at.to_str()?.parse().ok()
}

/// The system that runs.
pub fn current(host: &Host) -> Option<StorePath> {
    led_to(&host.path(path::CURRENT_SYSTEM))
}

/// The system that was booted.
pub fn booted(host: &Host) -> Option<StorePath> {
    led_to(&host.path(path::BOOTED_SYSTEM))
}

fn number(link: &Path) -> Option<u64> {
    let name = link.file_name()?.to_str()?;
    let number = name.strip_prefix("system-")?.strip_suffix("-link")?;
    number.parse().ok()
}

/// Every generation by its number.
pub fn generations(host: &Host) -> Result<BTreeMap<u64, StorePath>, SystemError> {
    let folder = host.profiles();
    let listed = match fs::read_dir(&folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        listed => listed.map_err(FileError::while_doing("list", &folder))?,
    };
    let links = listed.flatten().map(|entry| entry.path());
    let found = links.filter_map(|link| Some((number(&link)?, led_to(&link)?)));
    Ok(found.collect())
}

/// The generation that boots.
pub fn boots(host: &Host) -> Option<Generation> {
    let folder = host.profiles();
    let link = folder.join(fs::read_link(folder.join("system")).ok()?);
    Some(Generation {
        number: number(&link)?,
        toplevel: led_to(&link)?,
    })
}

/// Makes a generation the one that boots, as far as links say; the boot loader is told by the system itself.
pub fn set_boots(host: &Host, generation: &Generation) -> Result<(), SystemError> {
    let folder = host.profiles();
    file::folder(&folder, 0o755, None)?;
    let name = format!("system-{}-link", generation.number);
    let toplevel = Path::new(generation.toplevel.as_str());
    file::link(&folder.join(&name), toplevel)?;
    Ok(file::link(&folder.join("system"), Path::new(&name))?)
}

/// Forgets a generation. Its paths go with the next [`super::store::prune`].
pub fn forget(host: &Host, number: u64) -> Result<(), SystemError> {
    file::remove(&host.profiles().join(format!("system-{number}-link")))?;
    Ok(file::remove(
        &host.system(&format!("generations/{number}.json")),
    )?)
}
