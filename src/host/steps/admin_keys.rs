//! `admin-keys`: who may log in to this host, and as whom. At every boot, so that changed user data take effect with a
//! reboot.

use std::path::Path;

use crate::appliance::{LOGIN_USER, SshPublicKey, TUNNEL_USER, UserData, path};
use crate::host::Host;
use crate::host::file::{self, FileError};

/// Replaces the authorized keys of both logins. Whoever may sign in as `admin` may jump as `tunnel`.
pub fn write(host: &Host, user_data: &UserData) -> Result<(), FileError> {
    let folder = host.path(path::AUTHORIZED_KEYS);
    // sshd reads them as the user who logs in, so they are readable by all; only root may change them.
    if let Some(parent) = folder.parent() {
        file::folder(parent, 0o755, None)?;
    }
    file::folder(&folder, 0o755, None)?;
    replace(&folder.join(LOGIN_USER), user_data.admin_keys.iter())?;
    let both = user_data.tunnel_keys.iter().chain(&user_data.admin_keys);
    replace(&folder.join(TUNNEL_USER), both)
}

/// A key that is there twice, be it with another comment, is written once.
fn replace<'a>(
    target: &Path,
    keys: impl Iterator<Item = &'a SshPublicKey>,
) -> Result<(), FileError> {
    let mut written = Vec::new();
    let mut text = String::new();
    for key in keys {
        let bare = key.without_comment();
        if !written.contains(&bare) {
            written.push(bare);
            text.push_str(key.as_str());
            text.push('\n');
        }
    }
    file::write(target, text.as_bytes(), 0o644, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::appliance::Duty;

    const BLOBS: [&str; 2] = [
        "AAAAC3NzaC1lZDI1NTE5AAAAIJ0hQUfnGVXl+vU0Rr2Yl1mY5sVmJ2bJ2wF4l0dXo9aB",
        "AAAAC3NzaC1lZDI1NTE5AAAAIJx0hGm7dZ1s8dVYhVb1uWq0yq3P2m9c1r5mJ0m7vX3d",
    ];

    fn line(blob: usize, comment: &str) -> String {
        format!("ssh-ed25519 {} {comment}", BLOBS[blob])
    }

    fn keys(lines: &[String]) -> Vec<SshPublicKey> {
        lines.iter().map(|line| line.parse().unwrap()).collect()
    }

    #[test]
    fn the_keys_replace_those_of_before_and_admins_may_jump() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::under(dir.path());
        let written = |admin_keys: &[String], tunnel_keys: &[String]| {
            let user_data = UserData {
                name: "drawbridge".into(),
                region: "ap-south-1".into(),
                admin_keys: keys(admin_keys),
                tunnel_keys: keys(tunnel_keys),
                duty: Duty::Bastion,
            };
            write(&host, &user_data).unwrap();
            [LOGIN_USER, TUNNEL_USER].map(|user| {
                std::fs::read_to_string(host.path(path::AUTHORIZED_KEYS).join(user)).unwrap()
            })
        };
        let (ada, eve) = (line(0, "ada"), line(1, "eve"));
        assert_eq!(
            written(std::slice::from_ref(&ada), std::slice::from_ref(&eve)),
            [format!("{ada}\n"), format!("{eve}\n{ada}\n")]
        );
        // In both lists, under two names: one line is enough.
        let again = line(0, "ada@elsewhere");
        assert_eq!(
            written(std::slice::from_ref(&ada), std::slice::from_ref(&again)),
            [format!("{ada}\n"), format!("{again}\n")]
        );
        assert_eq!(
            written(std::slice::from_ref(&eve), &[]),
            [format!("{eve}\n"), format!("{eve}\n")]
        );
    }
}
