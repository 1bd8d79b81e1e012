//! `database-role`: the application's database, the role that owns it, and the two roles the application logs in as,
//! one of them with a fresh password.
//!
//! The password exists in this process and, once published, in SSM; Postgres is given its SCRAM verifier only. So a
//! run that was killed before publishing cannot be continued with the same password: the next one sets a new one.

use postgres_protocol::password::scram_sha_256;
use tokio_postgres::Client;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;

use super::postgresql;
use crate::appliance::DATABASE_NAME;
use crate::host::{Host, Login, LoginRole, Secret};

/// Why roles or database are not there.
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
        "the password of role {0} was changed by somebody else at the same moment; run `drawbridge-host bootstrap --again`"
    )]
    Changed(LoginRole),
}

/// Even a superuser's log settings must not write the verifier to the log.
const QUIET: &str = "\
    SET log_statement = 'none'; \
    SET log_min_duration_statement = -1; \
    SET log_min_error_statement = 'panic'; \
    SET log_parameter_max_length_on_error = 0";

/// Somebody else's open transaction must not hold a run up for ever.
const LOCK_LIMIT: &str = "SET lock_timeout = '30s'";

/// What no role of the application's may do.
const NO_PRIVILEGES: &str =
    "NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS INHERIT VALID UNTIL 'infinity'";

/// A superuser's session whose statements are not logged.
pub async fn connect(host: &Host) -> Result<Client, DatabaseRoleError> {
    let client = refused(
        "let the superuser in through the socket",
        postgresql::connect(host).await,
    )?;
    refused("be quiet", client.batch_execute(QUIET).await)?;
    refused(
        "limit waits for locks",
        client.batch_execute(LOCK_LIMIT).await,
    )?;
    Ok(client)
}

/// Makes or corrects roles and database, gives one login role a new password, and returns it. From then on the other
/// one cannot log in.
pub async fn ensure(host: &Host) -> Result<Login, DatabaseRoleError> {
    let client = connect(host).await?;
    make_roles(&client).await?;
    // The one in use, so that running this again and again ends the same way.
    let role = match may_log_in(&client, LoginRole::B).await? {
        true if !may_log_in(&client, LoginRole::A).await? => LoginRole::B,
        _ => LoginRole::A,
    };
    let login = enable(&client, role).await?;
    disable(&client, role.other()).await?;
    make_database(&client).await?;
    Ok(login)
}

async fn make_roles(client: &Client) -> Result<(), DatabaseRoleError> {
    let logins = LoginRole::ALL.map(LoginRole::name);
    for role in [DATABASE_NAME].into_iter().chain(logins) {
        if !exists(client, "SELECT 1 FROM pg_roles WHERE rolname = $1", role).await? {
            let create = format!("CREATE ROLE {role} NOLOGIN");
            refused("create a role", client.batch_execute(&create).await)?;
        }
    }
    let owner = format!("ALTER ROLE {DATABASE_NAME} WITH NOLOGIN {NO_PRIVILEGES} PASSWORD NULL");
    refused("correct the owner", client.batch_execute(&owner).await)?;
    for role in logins {
        // Whatever a session makes belongs to the owner, whichever of the two it logged in as.
        let member = format!(
            "ALTER ROLE {role} WITH {NO_PRIVILEGES}; GRANT {DATABASE_NAME} TO {role}; \
             ALTER ROLE {role} SET role = '{DATABASE_NAME}'"
        );
        refused("correct a role", client.batch_execute(&member).await)?;
    }
    Ok(())
}

async fn make_database(client: &Client) -> Result<(), DatabaseRoleError> {
    let query = "SELECT 1 FROM pg_database WHERE datname = $1";
    if !exists(client, query, DATABASE_NAME).await? {
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
    let own = client.batch_execute(&own).await;
    refused("give the database to the role", own)
}

/// Gives a role a new password and lets it log in.
pub async fn enable(client: &Client, role: LoginRole) -> Result<Login, DatabaseRoleError> {
    let password = Secret::random()?;
    let verifier = scram_sha_256(password.expose().as_bytes());
    // The verifier consists of letters, digits and $:+/= by its definition (RFC 5803): nothing to quote.
    let alter = format!("ALTER ROLE {role} WITH LOGIN PASSWORD '{verifier}'");
    // The client library logs every statement at level debug; this one nobody may read, whatever the filter.
    let unlogged = client
        .batch_execute(&alter)
        .with_subscriber(NoSubscriber::new());
    refused("set a role's password", unlogged.await)?;
    let query = "SELECT rolpassword FROM pg_authid WHERE rolname = $1";
    let row = refused(
        "show the verifier",
        client.query_one(query, &[&role.name()]).await,
    )?;
    match row.try_get::<_, Option<String>>(0) {
        Ok(Some(set)) if set == verifier => Ok(Login { role, password }),
        _ => Err(DatabaseRoleError::Changed(role)),
    }
}

/// Ends a role's right to log in, and forgets its password. Its sessions stay.
pub async fn disable(client: &Client, role: LoginRole) -> Result<(), DatabaseRoleError> {
    let alter = format!("ALTER ROLE {role} WITH NOLOGIN PASSWORD NULL");
    refused("retire a login", client.batch_execute(&alter).await)
}

/// Whether a role may log in.
pub async fn may_log_in(client: &Client, role: LoginRole) -> Result<bool, DatabaseRoleError> {
    let query = "SELECT 1 FROM pg_roles WHERE rolname = $1 AND rolcanlogin";
    exists(client, query, role.name()).await
}

/// How many sessions of the backend have logged in as a role. Not those that come by this machine: people with a tunnel
/// use the same roles, and nobody is to wait for them.
pub async fn sessions(client: &Client, role: LoginRole) -> Result<i64, DatabaseRoleError> {
    let query = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 \
                 AND NOT (client_addr <<= '127.0.0.0/8' OR client_addr = '::1')";
    let row = refused(
        "count sessions",
        client.query_one(query, &[&role.name()]).await,
    )?;
    refused("count sessions", row.try_get(0))
}

async fn exists(client: &Client, query: &str, name: &str) -> Result<bool, DatabaseRoleError> {
    let found = client.query_opt(query, &[&name]).await;
    Ok(refused("list its roles and databases", found)?.is_some())
}

fn refused<T>(
    action: &'static str,
    answer: Result<T, tokio_postgres::Error>,
) -> Result<T, DatabaseRoleError> {
    answer.map_err(|source| DatabaseRoleError::Refused { action, source })
}
