//! `seal`: keeps the password so that it survives reboots and is never on disk in clear, and tells the API where the
//! database is.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use super::wait_for_database::Published;
use crate::appliance::{API_PORT, path};
use crate::host::command::{self, CommandError};
use crate::host::file::{self, FileError};
use crate::host::{Host, Secret};

const SEAL_LIMIT: Duration = Duration::from_secs(30);

/// Why the password is not sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// systemd-creds failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// What was sealed does not open to what went in.
    #[error(
        "the sealed password does not open again on this host; see `systemd-creds decrypt {}`",
        path::SEALED_PASSWORD
    )]
    NotTheSame,
}

/// Writes the certificate, the API's configuration and the sealed password, which comes last: the API's unit starts
/// only where it exists.
pub async fn seal(host: &Host, published: &Published, database: Ipv4Addr) -> Result<(), SealError> {
    file::write(
        &host.path(path::DATABASE_CA),
        published.certificate.as_bytes(),
        0o644,
        None,
    )?;
    file::write(
        &host.path(path::CONFIG),
        configuration(database).as_bytes(),
        0o644,
        None,
    )?;
    let target = host.path(path::SEALED_PASSWORD);
    if let Some(parent) = target.parent() {
        file::folder(parent, 0o700, None)?;
    }
    let sealed = encrypt(&published.password).await?;
    file::write(&target, &sealed, 0o600, None)?;
    match decrypt(&target).await? == published.password {
        true => Ok(()),
        false => Err(SealError::NotTheSame),
    }
}

/// Bound to the key in /var/lib/systemd of this host: a copy of the file alone is worth nothing elsewhere.
async fn encrypt(password: &Secret) -> Result<Vec<u8>, CommandError> {
    let name = format!("--name={}", path::PASSWORD_CREDENTIAL);
    let arguments = ["encrypt", "--with-key=host", &name, "-", "-"];
    command::run("systemd-creds", &arguments, Some(password), SEAL_LIMIT)
        .await?
        .checked()
}

async fn decrypt(sealed: &Path) -> Result<Secret, CommandError> {
    let name = format!("--name={}", path::PASSWORD_CREDENTIAL);
    let arguments = [
        "decrypt".as_ref(),
        name.as_ref(),
        sealed.as_os_str(),
        "-".as_ref(),
    ];
    let clear = command::run("systemd-creds", &arguments, None, SEAL_LIMIT)
        .await?
        .checked()?;
    Ok(Secret::new(String::from_utf8_lossy(&clear)))
}

fn configuration(database: Ipv4Addr) -> String {
    let ca = path::DATABASE_CA;
    format!(
        "# Written by drawbridge-host at first boot. The password is a systemd credential.\n\
         [http]\nlisten = \"0.0.0.0:{API_PORT}\"\n\n\
         [database]\nhost = \"{database}\"\nca_file = \"{ca}\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_the_database_and_its_certificate_and_no_secret() {
        let text = configuration(Ipv4Addr::new(10, 20, 3, 10));
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "[http]",
                "listen = \"0.0.0.0:8000\"",
                "",
                "[database]",
                "host = \"10.20.3.10\"",
                "ca_file = \"/var/lib/drawbridge/database-ca.pem\"",
            ]
        );
    }
}
