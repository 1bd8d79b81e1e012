//! `database-role`: the application's role with a fresh password, and its database.
//!
//! The password exists in this process and, once published, in SSM; Postgres is given its SCRAM verifier only. So a
//! run that was killed before publishing cannot be continued with the same password: the next one sets a new one.

use postgres_protocol::password::scram_sha_256;
use tokio_postgres::Client;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;

use super::postgresql;
use crate::appliance::DATABASE_NAME;
use crate::host::{Host, Secret};

/// Why role or database are not there.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseRoleError {
    /// A statement failed, or the server went away.
    #[error("Postgres refused to {action}")]
    Refused {
        /// What was being done.
        action: &'static str,
        /// The server's answer.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The operating system gave no random numbers.
    #[error("no random numbers for a password")]
    Random(#[from] rand::rngs::SysError),
    /// Set, and yet something else is there: somebody else is changing it.
    #[error(
        "the password of role {DATABASE_NAME} was changed by somebody else at the same moment; run `drawbridge-host bootstrap` again"
    )]
    Changed,
}

/// Even a superuser's log settings must not write the verifier to the log.
const QUIET: &str = "\
    SET log_statement = 'none'; \
    SET log_min_duration_statement = -1; \
    SET log_min_error_statement = 'panic'; \
    SET log_parameter_max_length_on_error = 0";

/// Makes or corrects role and database, sets a new password, and returns it.
pub async fn ensure(host: &Host) -> Result<Secret, DatabaseRoleError> {
    let client = refused(
        "let the superuser in through the socket",
        postgresql::connect(host).await,
    )?;
    refused("be quiet", client.batch_execute(QUIET).await)?;
    if !exists(&client, "SELECT 1 FROM pg_roles WHERE rolname = $1").await? {
        let create = format!("CREATE ROLE {DATABASE_NAME}");
        refused("create the role", client.batch_execute(&create).await)?;
    }
    let password = Secret::random()?;
    let verifier = scram_sha_256(password.expose().as_bytes());
    // The verifier consists of letters, digits and $:+/= by its definition (RFC 5803): nothing to quote.
    let alter = format!(
        "ALTER ROLE {DATABASE_NAME} WITH LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS \
         PASSWORD '{verifier}' VALID UNTIL 'infinity'"
    );
    // The client library logs every statement at level debug; this one nobody may read, whatever the filter.
    let unlogged = client
        .batch_execute(&alter)
        .with_subscriber(NoSubscriber::new());
    refused("set the role's password", unlogged.await)?;
    if !exists(&client, "SELECT 1 FROM pg_database WHERE datname = $1").await? {
        // C collation: the order of an index must not change with the image's C library. C.UTF-8 types: upper() and
        // ILIKE know letters beyond ASCII. template0, because the cluster may have been made with another encoding.
        let create = format!(
            "CREATE DATABASE {DATABASE_NAME} OWNER {DATABASE_NAME} TEMPLATE template0 \
             ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'"
        );
        refused("create the database", client.batch_execute(&create).await)?;
    }
    let own = format!(
        "ALTER DATABASE {DATABASE_NAME} OWNER TO {DATABASE_NAME}; \
         REVOKE ALL ON DATABASE {DATABASE_NAME} FROM PUBLIC"
    );
    refused(
        "give the database to the role",
        client.batch_execute(&own).await,
    )?;
    let query = "SELECT rolpassword FROM pg_authid WHERE rolname = $1";
    let row = refused(
        "show the verifier",
        client.query_one(query, &[&DATABASE_NAME]).await,
    )?;
    match row.try_get::<_, Option<String>>(0) {
        Ok(Some(set)) if set == verifier => Ok(password),
        _ => Err(DatabaseRoleError::Changed),
    }
}

async fn exists(client: &Client, query: &str) -> Result<bool, DatabaseRoleError> {
    let found = client.query_opt(query, &[&DATABASE_NAME]).await;
    Ok(refused("list its roles and databases", found)?.is_some())
}

fn refused<T>(
    action: &'static str,
    answer: Result<T, tokio_postgres::Error>,
) -> Result<T, DatabaseRoleError> {
    answer.map_err(|source| DatabaseRoleError::Refused { action, source })
}
