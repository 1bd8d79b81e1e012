//! `drawbridge ssh-config`: the same way in for plain OpenSSH (`ssh -F .drawbridge/ssh_config backend`), and so for
//! scp, rsync and git.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use time::OffsetDateTime;

use super::exec::command_line;
use super::host_keys::alias;
use super::record::{PinChanged, Record};
use super::{Access, Endpoint, Login};
use crate::appliance::Role;

/// How the file begins.
const WRITTEN_BY: &str = "# Written by `drawbridge ssh-config`";

/// The way in, as OpenSSH wants it written. A host without a pinned key is written all the same and refused by OpenSSH;
/// without an identity OpenSSH makes its own choice (agent, then `~/.ssh/id_*`).
#[derive(Debug)]
pub struct SshConfig<'a>(pub &'a Access);

/// The two files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// For `ssh -F`.
    pub ssh_config: PathBuf,
    /// The pinned keys, named in `ssh_config`.
    pub known_hosts: PathBuf,
}

impl Written {
    /// Where they are in `folder`.
    #[must_use]
    pub fn within(folder: &Path) -> Self {
        Self {
            ssh_config: folder.join("ssh_config"),
            known_hosts: folder.join("known_hosts"),
        }
    }
}

/// Why the files are not written, or not kept.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Nothing was written.
    #[error(transparent)]
    Changed(#[from] PinChanged),
    /// A file could not be read or written.
    #[error("cannot keep the files for OpenSSH in {}", folder.display())]
    File {
        /// Where.
        folder: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl SshConfig<'_> {
    /// Writes `ssh_config` and `known_hosts` into `folder` (made if missing), each in one step. Returns also a line for each
    /// host whose key changed since they were written last.
    ///
    /// # Errors
    /// [`WriteError::Changed`] for a key that changed without a new instance, unless its host is `accepted`.
    pub fn write(
        &self,
        folder: &Path,
        accepted: &[Role],
    ) -> Result<(Written, Vec<String>), WriteError> {
        let failed = |source| WriteError::File {
            folder: folder.to_owned(),
            source,
        };
        fs::create_dir_all(folder).map_err(failed)?;
        let written = Written::within(&folder.canonicalize().map_err(failed)?);
        let name = &self.0.deployment.name;
        let record = Record::load(&written.known_hosts, name).map_err(failed)?;
        let (record, changes) = record.renewed(self.0, accepted, OffsetDateTime::now_utc())?;
        let absolute = |path: &PathBuf| path.canonicalize();
        let identities = self.0.keys.files().iter().map(absolute);
        let identities: Vec<_> = identities.collect::<io::Result<_>>().map_err(failed)?;
        replace(&written.known_hosts, &record.text(name)).map_err(failed)?;
        replace(&written.ssh_config, &self.text(&written, &identities)).map_err(failed)?;
        Ok((written, changes))
    }

    /// Brings the files in `folder` up to date, if `drawbridge ssh-config` wrote them there once for this deployment: keys
    /// and addresses, not the options they were written with. Returns what changed, a line each.
    ///
    /// # Errors
    /// [`WriteError::Changed`] for a key that changed without a new instance: nobody may be signed in to then. That a file
    /// cannot be written is only told of: OpenSSH refuses by itself what is out of date.
    pub fn keep(&self, folder: &Path) -> Result<Vec<String>, WriteError> {
        let name = &self.0.deployment.name;
        let failed = |source| WriteError::File {
            folder: folder.to_owned(),
            source,
        };
        let Ok(folder) = folder.canonicalize() else {
            return Ok(Vec::new());
        };
        let files = Written::within(&folder);
        let before = Record::load(&files.known_hosts, name).map_err(failed)?;
        if before.is_empty() {
            return Ok(Vec::new());
        }
        let (record, mut changes) = before.renewed(self.0, &[], OffsetDateTime::now_utc())?;
        let mut renewed = Vec::new();
        if record != before {
            renewed.push(("known_hosts", &files.known_hosts, record.text(name)));
        }
        if let Ok(text) = fs::read_to_string(&files.ssh_config)
            && let Some(options) = Options::read(&text)
        {
            let access = Access {
                bastion: options.bastion,
                login: options.login,
                ..self.0.clone()
            };
            let now = SshConfig(&access).text(&files, &options.identities);
            if now != text {
                renewed.push(("ssh_config", &files.ssh_config, now));
            }
        }
        for (name, file, text) in renewed {
            changes.push(match replace(file, &text) {
                Ok(()) => format!("renewed {}", file.display()),
                Err(error) => format!("cannot renew {name}: {error}; run `drawbridge ssh-config`"),
            });
        }
        Ok(changes)
    }

    /// The text of `ssh_config`. All paths should be absolute: OpenSSH resolves relative ones against the folder it is
    /// started in.
    #[must_use]
    pub fn text(&self, files: &Written, identities: &[PathBuf]) -> String {
        let Access {
            deployment,
            bastion,
            login,
            ..
        } = self.0;
        let name = &deployment.name;
        let mut text = format!("{WRITTEN_BY} for {name}; it is overwritten.\n");
        let options = Options {
            bastion: bastion.clone(),
            identities: identities.to_vec(),
            login: login.clone(),
        };
        text.push_str(&options.text());
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
        for identity in identities {
            let _ = writeln!(text, "  IdentityFile {}", quoted(identity));
        }
        if !identities.is_empty() {
            text.push_str("  IdentitiesOnly yes\n");
        }
        text
    }
}

/// With what `drawbridge ssh-config` was called; written down in comments, so that whoever keeps the file current later does
/// not put their own in.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    bastion: Option<Endpoint>,
    identities: Vec<PathBuf>,
    login: Login,
}

impl Options {
    fn text(&self) -> String {
        let mut text = String::new();
        if let Some(bastion) = &self.bastion {
            let _ = writeln!(text, "# --bastion {bastion}");
        }
        for identity in &self.identities {
            let _ = writeln!(text, "# --identity {}", identity.display());
        }
        if self.login != Login::default() {
            let _ = writeln!(text, "# --login {}", self.login);
        }
        text
    }

    /// `None` for a file that is not ours.
    fn read(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        lines.next()?.strip_prefix(WRITTEN_BY)?;
        let mut options = Self {
            bastion: None,
            identities: Vec::new(),
            login: Login::default(),
        };
        for line in lines {
            match line
                .strip_prefix("# --")
                .and_then(|line| line.split_once(' '))
            {
                Some(("bastion", value)) => options.bastion = Some(value.parse().ok()?),
                Some(("identity", value)) => options.identities.push(value.into()),
                Some(("login", value)) => options.login = value.parse().ok()?,
                _ => break,
            }
        }
        Some(options)
    }
}

// OpenSSH expands `%` in these keywords; a quotation mark cannot be escaped in all versions, and nobody's path has one.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('%', "%%"))
}

/// Writes a file for everybody here in one step.
pub(crate) fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or_else(|| Path::new("."));
    let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
    temporary.write_all(text.as_bytes())?;
    temporary.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Keyring;
    use super::super::host_keys::Pins;
    use super::*;
    use crate::terraform::tests::sample;

    #[test]
    fn private_hosts_are_reached_through_the_bastion_and_keys_are_checked() {
        let access = Access {
            deployment: sample(),
            pins: Pins::default(),
            bastion: Some("127.0.0.1:2222".parse().unwrap()),
            keys: Keyring::default(),
            login: Login::default(),
        };
        let config = SshConfig(&access);
        let files = Written {
            ssh_config: "/a b/100%/ssh_config".into(),
            known_hosts: "/a b/100%/known_hosts".into(),
        };
        let text = config.text(&files, &[]);
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

    #[test]
    fn the_options_it_was_written_with_are_found_again() {
        let options = Options {
            bastion: Some("[::1]:2222".parse().unwrap()),
            identities: vec!["/a b/key".into(), "/c".into()],
            login: "me:them:2200".parse().unwrap(),
        };
        let text = format!(
            "{WRITTEN_BY} for x; it is overwritten.\n{}\nHost x\n",
            options.text()
        );
        assert_eq!(Options::read(&text), Some(options));
        assert_eq!(Options::read("Host backend\n"), None);
    }
}
