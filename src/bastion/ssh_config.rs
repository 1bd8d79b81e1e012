//! `drawbridge ssh-config`: the same way in for plain OpenSSH (`ssh -F .drawbridge/ssh_config backend`), and so for
//! scp, rsync and git.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::Access;
use super::exec::command_line;
use super::host_keys::alias;
use crate::appliance::Role;

/// The way in, as OpenSSH wants it written. A host without a pinned key is written all the same and refused by OpenSSH;
/// without an identity OpenSSH makes its own choice (agent, then `~/.ssh/id_*`).
#[derive(Debug)]
pub struct SshConfig<'a>(pub &'a Access);

/// The files that were written, absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// For `ssh -F`.
    pub ssh_config: PathBuf,
    /// The pinned keys, named in `ssh_config`.
    pub known_hosts: PathBuf,
}

impl SshConfig<'_> {
    /// Writes `ssh_config` and `known_hosts` into `folder` (made if missing), each in one step.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path) -> std::io::Result<Written> {
        fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        let written = Written {
            ssh_config: folder.join("ssh_config"),
            known_hosts: folder.join("known_hosts"),
        };
        let Access {
            deployment,
            pins,
            identity,
            ..
        } = self.0;
        let known_hosts = pins.known_hosts(&deployment.name);
        replace(&written.known_hosts, &known_hosts.to_string())?;
        let identity = identity.as_deref().map(Path::canonicalize).transpose()?;
        replace(
            &written.ssh_config,
            &self.text(&written, identity.as_deref()),
        )?;
        Ok(written)
    }

    /// The text of `ssh_config`. All paths should be absolute: OpenSSH resolves relative ones against the folder it is
    /// started in.
    #[must_use]
    pub fn text(&self, files: &Written, identity: Option<&Path>) -> String {
        let Access {
            deployment,
            bastion,
            login,
            ..
        } = self.0;
        let name = &deployment.name;
        let mut text =
            format!("# Written by `drawbridge ssh-config` for {name}; it is overwritten.\n");
        let hosts = [
            (Role::Bastion, &deployment.bastion.public_ip),
            (Role::Backend, &deployment.backend.private_ip),
            (Role::Database, &deployment.database.private_ip),
        ];
        for (role, address) in hosts {
            let _ = writeln!(text, "\nHost {role}\n  HostKeyAlias {}", alias(name, role));
            match (role, bastion) {
                (Role::Bastion, Some(endpoint)) => {
                    let _ = writeln!(
                        text,
                        "  HostName {}\n  Port {}",
                        endpoint.host, endpoint.port
                    );
                }
                (Role::Bastion, None) => {
                    let _ = writeln!(text, "  HostName {address}");
                }
                // Not ProxyJump: it hands the path of `-F` on without quotes, so a folder with a space would not do.
                _ => {
                    let config = files.ssh_config.display().to_string().replace('%', "%%");
                    let jump = command_line(&["ssh", "-F", &config, "-l", &login.jump, "-W"]);
                    let port = login.port;
                    let _ = writeln!(
                        text,
                        "  HostName {address}\n  Port {port}\n  ProxyCommand {jump} '[%h]:%p' {}",
                        Role::Bastion
                    );
                }
            }
        }
        let known_hosts = quoted(&files.known_hosts);
        let user = &login.user;
        let _ = write!(
            text,
            "\nHost {} {} {}\n  User {user}\n  UserKnownHostsFile {known_hosts}\n  GlobalKnownHostsFile /dev/null\n  \
             StrictHostKeyChecking yes\n  UpdateHostKeys no\n  CheckHostIP no\n  ForwardAgent no\n  \
             PasswordAuthentication no\n  ServerAliveInterval 15\n  ServerAliveCountMax 3\n  ConnectTimeout 10\n",
            Role::Bastion,
            Role::Backend,
            Role::Database
        );
        if let Some(identity) = identity {
            let _ = writeln!(
                text,
                "  IdentityFile {}\n  IdentitiesOnly yes",
                quoted(identity)
            );
        }
        text
    }
}

// OpenSSH expands `%` in these keywords; a quotation mark cannot be escaped in all versions, and nobody's path has one.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('%', "%%"))
}

fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or_else(|| Path::new("."));
    let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
    temporary.write_all(text.as_bytes())?;
    temporary.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Login;
    use super::super::host_keys::Pins;
    use super::*;
    use crate::terraform::tests::sample;

    #[test]
    fn private_hosts_are_reached_through_the_bastion_and_keys_are_checked() {
        let access = Access {
            deployment: sample(),
            pins: Pins::default(),
            bastion: Some("127.0.0.1:2222".parse().unwrap()),
            identity: None,
            login: Login::default(),
        };
        let config = SshConfig(&access);
        let files = Written {
            ssh_config: "/a b/100%/ssh_config".into(),
            known_hosts: "/a b/100%/known_hosts".into(),
        };
        let text = config.text(&files, None);
        assert!(text.contains("Host bastion\n  HostKeyAlias drawbridge-bastion\n  HostName 127.0.0.1\n  Port 2222\n"), "{text}");
        assert!(
            text.contains("  HostName 10.20.3.10\n  Port 22\n  ProxyCommand ssh -F '/a b/100%%/ssh_config' -l tunnel -W '[%h]:%p' bastion\n"),
            "{text}"
        );
        assert!(text.contains("  StrictHostKeyChecking yes\n"), "{text}");
        assert!(text.contains("  User admin\n"), "{text}");
        assert!(
            text.contains("  UserKnownHostsFile \"/a b/100%%/known_hosts\"\n"),
            "{text}"
        );
        assert!(!text.contains("IdentityFile"), "{text}");
    }
}
