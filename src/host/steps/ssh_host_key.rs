//! `ssh-host-key`: the key by which administrators recognise this host, published so that they can pin it.

use std::time::Duration;

use crate::appliance::{Role, SshPublicKey, parameter, path};
use crate::host::Host;
use crate::host::command::{self, CommandError};
use crate::host::file::{self, FileError};
use crate::host::parameters::{NotWritten, Parameters, Value};

const KEYGEN_LIMIT: Duration = Duration::from_secs(30);

/// Why there is no host key to publish.
#[derive(Debug, thiserror::Error)]
pub enum SshHostKeyError {
    /// ssh-keygen failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file holds something else.
    #[error(
        "{} does not hold an ed25519 key; remove it and reboot, a new one is made",
        path::SSH_HOST_KEY
    )]
    NotEd25519,
}

/// Makes the host key if sshd's own unit has not, and returns its public half.
///
/// The private key is asked, not the `.pub` file: what is pinned must be what sshd will show.
pub async fn ensure(host: &Host) -> Result<SshPublicKey, SshHostKeyError> {
    let key = host.path(path::SSH_HOST_KEY);
    if !key.exists() {
        make(host).await?;
    }
    let arguments = ["-y".as_ref(), "-f".as_ref(), key.as_os_str()];
    let stdout = command::run("ssh-keygen", &arguments, None, KEYGEN_LIMIT)
        .await?
        .checked()?;
    let public = String::from_utf8_lossy(&stdout)
        .parse::<SshPublicKey>()
        .map_err(|_| SshHostKeyError::NotEd25519)?
        .without_comment();
    if public.key_type() != "ssh-ed25519" {
        return Err(SshHostKeyError::NotEd25519);
    }
    let public_file = host.path(path::SSH_HOST_PUBLIC_KEY);
    let written = file::read(&public_file)?.and_then(|line| line.parse::<SshPublicKey>().ok());
    if written.map(|key| key.without_comment()).as_ref() != Some(&public) {
        file::write(&public_file, format!("{public}\n").as_bytes(), 0o644, None)?;
    }
    Ok(public)
}

/// Under another name first: a kill half-way must not leave half a key where sshd looks for one.
async fn make(host: &Host) -> Result<(), SshHostKeyError> {
    let key = host.path(path::SSH_HOST_KEY);
    let draft = key.with_extension("new");
    if let Some(parent) = key.parent() {
        file::folder(parent, 0o755, None)?;
    }
    file::remove(&draft)?;
    let arguments = [
        "-q".as_ref(),
        "-t".as_ref(),
        "ed25519".as_ref(),
        "-N".as_ref(),
        "".as_ref(),
        "-C".as_ref(),
        "".as_ref(),
        "-f".as_ref(),
        draft.as_os_str(),
    ];
    command::run("ssh-keygen", &arguments, None, KEYGEN_LIMIT)
        .await?
        .checked()?;
    file::remove(&draft.with_extension("new.pub"))?;
    std::fs::rename(&draft, &key).map_err(FileError::while_doing("write", &key))?;
    Ok(())
}

/// Publishes it, without a comment.
pub async fn publish(
    parameters: &Parameters,
    name: &str,
    role: Role,
    key: &SshPublicKey,
    limit: Duration,
) -> Result<(), NotWritten> {
    let parameter = parameter::ssh_host_key(name, role);
    parameters
        .put(&parameter, Value::Plain(key.as_str()), limit)
        .await
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_host_key_is_made_once_and_its_public_half_follows_it() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::under(dir.path());
        let first = ensure(&host).await.unwrap();
        assert_eq!(first.as_str().split(' ').count(), 2);
        let mode = std::fs::metadata(host.path(path::SSH_HOST_KEY))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);

        std::fs::write(host.path(path::SSH_HOST_PUBLIC_KEY), "ssh-ed25519 stale").unwrap();
        assert_eq!(ensure(&host).await.unwrap(), first);
        let line = std::fs::read_to_string(host.path(path::SSH_HOST_PUBLIC_KEY)).unwrap();
        assert_eq!(line.trim(), first.as_str());
        assert_eq!(std::fs::read_dir(host.path("/etc/ssh")).unwrap().count(), 2);
    }

    #[tokio::test]
    async fn a_key_of_another_type_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::under(dir.path());
        let key = host.path(path::SSH_HOST_KEY);
        std::fs::create_dir_all(key.parent().unwrap()).unwrap();
        let arguments = ["-q", "-t", "ecdsa", "-N", "", "-f", key.to_str().unwrap()];
        command::run("ssh-keygen", &arguments, None, KEYGEN_LIMIT)
            .await
            .unwrap()
            .checked()
            .unwrap();
        assert!(matches!(
            ensure(&host).await,
            Err(SshHostKeyError::NotEd25519)
        ));
    }
}
