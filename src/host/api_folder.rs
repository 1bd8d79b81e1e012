//! The folder that the API is started from: configuration, certificate and sealed password of one login, which are
//! replaced together.
//!
//! [`path::API`] is a link to one of two folders beside it. The new content is staged in the other one, and one rename
//! of the link switches. Until [`settle`] the former content stays, for [`switch`] to go back to.

use std::path::PathBuf;

use super::Host;
use super::file::{self, FileError};
use crate::appliance::path;

/// The two folders, by their names beside the link.
const SLOTS: [&str; 2] = ["api.1", "api.2"];

/// What the API is started with.
pub struct Content<'a> {
    /// `config.toml`
    pub configuration: &'a str,
    /// `environment`
    pub environment: &'a str,
    /// The database's certificate, PEM.
    pub certificate: &'a str,
    /// The password as systemd-creds has sealed it.
    pub sealed_password: &'a [u8],
}

/// One of the two folders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(usize);

impl Slot {
    fn other(self) -> Self {
        Slot(1 - self.0)
    }

    fn folder(self, host: &Host) -> PathBuf {
        host.path(path::STATE).join(SLOTS[self.0])
    }

    /// Where this folder has what the API will find at `file`, a path below [`path::API`].
    pub fn file(self, host: &Host, file: &str) -> PathBuf {
        let name = file.strip_prefix(path::API).unwrap_or(file);
        self.folder(host).join(name.trim_start_matches('/'))
    }
}

/// The folder in use, if there is one.
pub fn current(host: &Host) -> Option<Slot> {
    let target = std::fs::read_link(host.path(path::API)).ok()?;
    let place = SLOTS.iter().position(|name| target.ends_with(name))?;
    Some(Slot(place))
}

/// The folder not in use, if it is there: what a switch that never came to its end has left behind.
pub fn unsettled(host: &Host) -> Option<Slot> {
    let slot = current(host)?.other();
    slot.folder(host).is_dir().then_some(slot)
}

/// Writes the folder that is not in use. The API does not see it yet.
pub fn stage(host: &Host, content: &Content<'_>) -> Result<Slot, FileError> {
    let slot = current(host).map_or(Slot(0), Slot::other);
    file::remove(&slot.folder(host))?;
    file::folder(&slot.folder(host), 0o755, None)?;
    let put = |name, bytes, mode| file::write(&slot.file(host, name), bytes, mode, None);
    put(path::CONFIG, content.configuration.as_bytes(), 0o644)?;
    put(path::ENVIRONMENT, content.environment.as_bytes(), 0o644)?;
    put(path::DATABASE_CA, content.certificate.as_bytes(), 0o644)?;
    put(path::SEALED_PASSWORD, content.sealed_password, 0o600)?;
    Ok(slot)
}

/// From now on the API starts from this folder. Its next start, that is: it has read the other one.
pub fn switch(host: &Host, to: Slot) -> Result<(), FileError> {
    file::link(&host.path(path::API), SLOTS[to.0].as_ref())
}

/// The content in use is the one to stay; removes the other.
pub fn settle(host: &Host) -> Result<(), FileError> {
    match unsettled(host) {
        Some(slot) => file::remove(&slot.folder(host)),
        None => Ok(()),
    }
}

/// Removes all of it.
pub fn remove(host: &Host) -> Result<(), FileError> {
    file::remove(&host.path(path::API))?;
    (0..SLOTS.len()).try_for_each(|slot| file::remove(&Slot(slot).folder(host)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const FILES: [&str; 4] = [
        path::CONFIG,
        path::ENVIRONMENT,
        path::DATABASE_CA,
        path::SEALED_PASSWORD,
    ];

    fn content(of: &str) -> Content<'_> {
        Content {
            configuration: of,
            environment: of,
            certificate: of,
            sealed_password: of.as_bytes(),
        }
    }

    /// What the API would start with now.
    fn seen(host: &Host) -> [Option<String>; 4] {
        FILES.map(|file| fs::read_to_string(host.path(file)).ok())
    }

    fn all(of: &str) -> [Option<String>; 4] {
        FILES.map(|_| Some(of.to_owned()))
    }

    #[test]
    fn all_of_it_changes_in_one_step_and_back_again() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::under(dir.path());
        file::folder(&host.path(path::STATE), 0o755, None).unwrap();
        let first = stage(&host, &content("one")).unwrap();
        assert_eq!(seen(&host), [None, None, None, None]);
        switch(&host, first).unwrap();
        assert_eq!((seen(&host), unsettled(&host)), (all("one"), None));
        let mode = |file| fs::metadata(host.path(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(path::API), 0o755);
        assert_eq!(FILES.map(mode), [0o644, 0o644, 0o644, 0o600]);

        let second = stage(&host, &content("two")).unwrap();
        assert_eq!((seen(&host), unsettled(&host)), (all("one"), Some(second)));
        switch(&host, second).unwrap();
        assert_eq!((seen(&host), unsettled(&host)), (all("two"), Some(first)));
        switch(&host, first).unwrap();
        assert_eq!(seen(&host), all("one"));
        settle(&host).unwrap();
        assert_eq!((seen(&host), unsettled(&host)), (all("one"), None));

        remove(&host).unwrap();
        assert_eq!(fs::read_dir(host.path(path::STATE)).unwrap().count(), 0);
    }

    #[test]
    fn a_kill_anywhere_leaves_one_whole_content_and_the_next_run_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::under(dir.path());
        file::folder(&host.path(path::STATE), 0o755, None).unwrap();
        switch(&host, stage(&host, &content("one")).unwrap()).unwrap();
        // Killed while staging: half a folder. Killed within the switch: a drafted link.
        let half = stage(&host, &content("two")).unwrap();
        fs::remove_file(half.file(&host, path::DATABASE_CA)).unwrap();
        std::os::unix::fs::symlink(SLOTS[half.0], host.path(path::STATE).join(".api.new")).unwrap();
        assert_eq!(seen(&host), all("one"));
        switch(&host, stage(&host, &content("three")).unwrap()).unwrap();
        settle(&host).unwrap();
        assert_eq!(seen(&host), all("three"));
        assert_eq!(fs::read_dir(host.path(path::STATE)).unwrap().count(), 2);
    }
}
