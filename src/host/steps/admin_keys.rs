//! `admin-keys`: who may log in to this host. At every boot, so that changed user data take effect with a reboot.

use crate::appliance::{SshPublicKey, path};
use crate::host::Host;
use crate::host::file::{self, FileError};

/// Replaces the authorized keys of the login user.
pub fn write(host: &Host, keys: &[SshPublicKey]) -> Result<(), FileError> {
    let target = host.path(path::AUTHORIZED_KEYS);
    if let Some(parent) = target.parent() {
        file::folder(parent, 0o755, None)?;
    }
    let lines: String = keys.iter().map(|key| format!("{key}\n")).collect();
    // sshd reads it as the user who logs in, so it is readable by all; only root may change it.
    file::write(&target, lines.as_bytes(), 0o644, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_replace_those_of_before() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::under(dir.path());
        let line = |comment: &str| {
            format!(
                "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0hQUfnGVXl+vU0Rr2Yl1mY5sVmJ2bJ2wF4l0dXo9aB {comment}"
            )
        };
        let keys = |names: &[&str]| {
            names
                .iter()
                .map(|n| line(n).parse().unwrap())
                .collect::<Vec<_>>()
        };
        write(&host, &keys(&["ada", "bob"])).unwrap();
        write(&host, &keys(&["ada"])).unwrap();
        let text = std::fs::read_to_string(host.path(path::AUTHORIZED_KEYS)).unwrap();
        assert_eq!(text, line("ada") + "\n");
    }
}
