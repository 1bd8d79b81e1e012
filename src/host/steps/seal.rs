//! `seal`: keeps the login so that it survives reboots and its password is never on disk in clear, and tells the API
//! where the database is.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use super::wait_for_database::Published;
use crate::appliance::{API_PORT, DATABASE_NAME, DATABASE_PORT, path};
use crate::host::api_folder::{self, Content, Slot};
use crate::host::command::{self, CommandError};
use crate::host::file::FileError;
use crate::host::{Host, LoginRole, Secret};

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

/// Writes what the API is started with and makes it what the next start takes.
pub async fn seal(host: &Host, published: &Published, database: Ipv4Addr) -> Result<(), SealError> {
    let slot = stage(host, published, database).await?;
    api_folder::switch(host, slot)?;
    Ok(api_folder::settle(host)?)
}

/// Writes what the API is started with beside what is there, and makes sure that the password opens again.
pub async fn stage(
    host: &Host,
    published: &Published,
    database: Ipv4Addr,
) -> Result<Slot, SealError> {
    let sealed = encrypt(&published.login.password).await?;
    let content = Content {
        configuration: &configuration(database, published.login.role),
        environment: &environment(database, published.login.role),
        certificate: &published.certificate,
        sealed_password: &sealed,
    };
    let slot = api_folder::stage(host, &content)?;
    match decrypt(&slot.file(host, path::SEALED_PASSWORD)).await? == published.login.password {
        true => Ok(slot),
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

/// Opens a password that was sealed on this host.
pub async fn decrypt(sealed: &Path) -> Result<Secret, CommandError> {
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

fn configuration(database: Ipv4Addr, user: LoginRole) -> String {
    let ca = path::DATABASE_CA;
    format!(
        "# Written by drawbridge-host. The password is a systemd credential.\n\
         [http]\nlisten = \"0.0.0.0:{API_PORT}\"\n\n\
         [database]\nhost = \"{database}\"\nuser = \"{user}\"\nca_file = \"{ca}\"\n"
    )
}

/// The names that libpq and most other clients of Postgres read.
fn environment(database: Ipv4Addr, user: LoginRole) -> String {
    let ca = path::DATABASE_CA;
    format!(
        "# Written by drawbridge-host. The password is a systemd credential.\n\
         PGHOST={database}\nPGPORT={DATABASE_PORT}\nPGDATABASE={DATABASE_NAME}\nPGUSER={user}\n\
         PGSSLMODE=verify-full\nPGSSLROOTCERT={ca}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_the_database_and_its_certificate_and_no_secret() {
        let text = configuration(Ipv4Addr::new(10, 20, 3, 10), LoginRole::B);
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "[http]",
                "listen = \"0.0.0.0:8000\"",
                "",
                "[database]",
                "host = \"10.20.3.10\"",
                "user = \"drawbridge_b\"",
                "ca_file = \"/var/lib/drawbridge/api/database-ca.pem\"",
            ]
        );
    }
}
