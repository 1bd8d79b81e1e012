//! `postgresql`: who may log in, and the server itself. Only after the volume is mounted, so never enabled at boot.

use std::time::Duration;

use tokio_postgres::{Client, NoTls};

use super::StepError;
use ipnet::Ipv4Net;

use crate::appliance::{DATABASE_LOGINS, DATABASE_NAME, path};
use crate::error_chain::chain;
use crate::host::file::{self, FileError, Owner};
use crate::host::wait::{Look, until};
use crate::host::{Host, command};

/// initdb on a new volume, or crash recovery on an old one.
const START_LIMIT: Duration = Duration::from_secs(300);
/// From the unit being started to the socket answering.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// pg_hba.conf: the superuser through the socket only, the application over TLS only, from the backend's subnet and from
/// this machine, which is where sshd connects from for whoever has a tunnel.
#[must_use]
pub fn pg_hba(backend: Ipv4Net) -> String {
    let logins = DATABASE_LOGINS.join(",");
    format!(
        "# Written by drawbridge-host at every boot. Everybody not listed is refused.\n\
         local   all           postgres                 peer map=postgres\n\
         hostssl {DATABASE_NAME}    {logins}    {backend}    scram-sha-256\n\
         hostssl {DATABASE_NAME}    {logins}    127.0.0.1/32    scram-sha-256\n\
         hostssl {DATABASE_NAME}    {logins}    ::1/128    scram-sha-256\n"
    )
}

const PG_IDENT: &str = "\
# Written by drawbridge-host at every boot. Local users who may act as the superuser.
postgres   root       postgres
postgres   postgres   postgres
";

/// Writes pg_hba.conf and pg_ident.conf.
pub fn write_access_rules(host: &Host, backend: Ipv4Net, postgres: Owner) -> Result<(), FileError> {
    let owner = Some((0, postgres.1));
    let hba = host.path(path::PG_HBA);
    if let Some(parent) = hba.parent() {
        file::folder(parent, 0o750, owner)?;
    }
    file::write(&hba, pg_hba(backend).as_bytes(), 0o640, owner)?;
    file::write(
        &host.path(path::PG_IDENT),
        PG_IDENT.as_bytes(),
        0o640,
        owner,
    )
}

/// Starts Postgres and waits until it answers.
pub async fn start(host: &Host) -> Result<(), StepError> {
    command::run(
        "systemctl",
        &["start", "postgresql.target"],
        None,
        START_LIMIT,
    )
    .await?
    .checked()?;
    let client = until(
        "Postgres",
        ANSWER_LIMIT,
        Duration::from_secs(1),
        async || match connect(host).await {
            Ok(client) => Look::Done(client),
            Err(error) => Look::NotYet(chain(&error)),
        },
    )
    .await?;
    // A server that ran already may still have the rules and certificate of before.
    let reload = client.batch_execute("SELECT pg_reload_conf()").await;
    if let Err(error) = reload {
        let error = chain(&error);
        tracing::warn!(error, "Postgres did not reload its rules: {error}");
    }
    Ok(())
}

/// A superuser's connection through the unix socket; the server knows this process by its user id (peer).
pub async fn connect(host: &Host) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::Config::new()
        .host_path(host.path(path::POSTGRES_SOCKET))
        .user("postgres")
        .dbname("postgres")
        .application_name("drawbridge-host")
        .connect_timeout(CONNECT_LIMIT)
        .connect(NoTls)
        .await?;
    // Ends by itself when the client is dropped; its errors reach whoever waits for an answer.
    tokio::spawn(connection);
    Ok(client)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_superuser_here_and_the_application_from_there_and_here_may_log_in() {
        let text = pg_hba("10.20.2.0/24".parse().unwrap());
        let rules: Vec<Vec<&str>> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().collect())
            .collect();
        let over_tls = |from| {
            let logins = "drawbridge_a,drawbridge_b";
            vec!["hostssl", "drawbridge", logins, from, "scram-sha-256"]
        };
        assert_eq!(
            rules,
            [
                vec!["local", "all", "postgres", "peer", "map=postgres"],
                over_tls("10.20.2.0/24"),
                over_tls("127.0.0.1/32"),
                over_tls("::1/128"),
            ]
        );
    }
}
