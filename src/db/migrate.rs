//! Brings the schema up to date: one process at a time, also when several start at once.

use std::time::Duration;

use diesel::{
    migration::MigrationSource,
    pg::Pg,
    sql_types::{BigInt, Bool, Text},
};
use diesel_async::{AsyncMigrationHarness, AsyncPgConnection, RunQueryDsl};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    ConnectError, Connector, DbError,
    compatibility::{self, Verdict},
    half_built::drop_half_built,
};
use crate::config::DatabaseSettings;
use crate::error_chain::chain;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");

/// The advisory lock's key, "drawbrdg" in ASCII: any number that nothing else in this database uses would do.
const LOCK: i64 = i64::from_be_bytes(*b"drawbrdg");

/// A migration that waits for a table behind somebody's open transaction holds up every request that comes after it.
const LOCK_LIMIT: &str = "SET lock_timeout = '30s'";

/// How long to wait between two looks at a database that is not there or a lock that is taken.
const INTERVAL: Duration = Duration::from_millis(300);

/// Why the schema may not be in place. Each migration is one transaction or one statement that can be repeated, so none
/// is half done.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Nothing was changed.
    #[error(transparent)]
    Settings(ConnectError),
    /// Nothing was changed.
    #[error(
        "gave up on the database after {limit:?} (database.start_timeout_seconds); the last thing seen: {last_seen}"
    )]
    GaveUp {
        /// `database.start_timeout_seconds`.
        limit: Duration,
        /// Why the last attempt failed, or who holds the lock.
        last_seen: String,
    },
    /// The migrations before the failed one are in place.
    #[error("a migration failed: {0}")]
    Failed(String),
    /// Nothing was changed.
    #[error(
        "the database's schema has the migration {unknown}, which this version does not know, and which does not say \
         that this version works with it (the newest it knows is {newest}): run the version that brought that migration, \
         or a later one; or go back to a backup of the database from before it"
    )]
    TooNew {
        /// Fourteen digits, such as `20261121000000`.
        unknown: String,
        /// Likewise.
        newest: String,
    },
}

/// Why an attempt came to nothing.
enum Obstacle {
    /// It may go away: what was seen.
    Passing(String),
    Lasting(MigrateError),
}

impl From<DbError> for Obstacle {
    fn from(error: DbError) -> Self {
        Self::Passing(chain(&error))
    }
}

/// Applies the migrations that are missing, and returns their names; a schema that lacks none is only looked at. Needs tokio's multi-thread runtime, and a task of
/// its own: it blocks the thread while a migration runs.
///
/// # Errors
/// [`MigrateError`]; waits for the database, and for another process's migration, at most
/// `database.start_timeout_seconds` together.
pub async fn migrate(settings: &DatabaseSettings) -> Result<Vec<String>, MigrateError> {
    let connector = Connector::new(settings, None).map_err(MigrateError::Settings)?;
    let deadline = Instant::now() + settings.start_timeout();
    let gave_up = |last_seen| MigrateError::GaveUp {
        limit: settings.start_timeout(),
        last_seen,
    };
    let mut last_seen = String::new();
    loop {
        let seen = match attempt(&connector).await {
            Ok(applied) => return Ok(applied),
            Err(Obstacle::Lasting(error)) => return Err(error),
            Err(Obstacle::Passing(seen)) => seen,
        };
        if seen != last_seen {
            warn!("the schema cannot be brought up to date yet: {seen}");
            last_seen = seen;
        }
        if Instant::now() + INTERVAL >= deadline {
            return Err(gave_up(last_seen));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn attempt(connector: &Connector) -> Result<Vec<String>, Obstacle> {
    let session = connector.connect().await;
    let session = session.map_err(|error| Obstacle::Passing(chain(&error)))?;
    let mut connection = session.into_connection();
    if is_in_place(&connection).await? {
        return Ok(Vec::new());
    }
    lock(&mut connection).await.map_err(Obstacle::Passing)?;
    // Whoever held the lock before may have been another version.
    if is_in_place(&connection).await? {
        return Ok(Vec::new());
    }
    run(connection).await.map_err(Obstacle::Lasting)
}

/// Whether the schema has all that this program knows.
async fn is_in_place(connection: &AsyncPgConnection) -> Result<bool, Obstacle> {
    let applied = compatibility::applied(connection).await?;
    let known = known();
    match compatibility::judge(&known, &applied) {
        Verdict::Lacks => Ok(false),
        Verdict::Fits(unknown) => {
            if unknown.is_empty() {
                info!(count = 0, "the schema is up to date");
            } else {
                let unknown = unknown.join(", ");
                info!(
                    count = 0,
                    "the schema is newer than this version, which works with it all the same: it has {unknown}"
                );
            }
            Ok(true)
        }
        Verdict::TooNew(unknown) => Err(Obstacle::Lasting(MigrateError::TooNew {
            unknown,
            newest: known.into_iter().max().unwrap_or_default(),
        })),
    }
}

/// The migrations this program has, fourteen digits each.
fn known() -> Vec<String> {
    let migrations = MigrationSource::<Pg>::migrations(&MIGRATIONS);
    // The names were checked when they were built in.
    migrations
        .unwrap_or_default()
        .iter()
        .map(|migration| migration.name().version().to_string())
        .collect()
}

/// Takes the lock, or says why not. It never blocks on the lock: a waiter holds a snapshot, and `CREATE INDEX
/// CONCURRENTLY` in the process that migrates waits for all snapshots, so the two would deadlock.
async fn lock(connection: &mut AsyncPgConnection) -> Result<(), String> {
    let is_held = diesel::select(
        diesel::dsl::sql::<Bool>("pg_try_advisory_lock(")
            .bind::<BigInt, _>(LOCK)
            .sql(")"),
    )
    .get_result::<bool>(connection)
    .await
    .map_err(|error| chain(&error))?;
    if is_held {
        return Ok(());
    }
    let holder = diesel::sql_query(
        "SELECT format('%s (process %s) from %s', coalesce(nullif(application_name, ''), 'a session'), a.pid, \
                coalesce(host(client_addr), 'a Unix socket')) AS text \
         FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
         WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 \
           AND (l.classid::bigint << 32 | l.objid::bigint) = $1",
    )
    .bind::<BigInt, _>(LOCK)
    .get_result::<Holder>(connection)
    .await;
    match holder {
        Ok(holder) => Err(format!("the migration lock is held by {}", holder.text)),
        Err(_) => Err("the migration lock was held a moment ago".to_owned()),
    }
}

#[derive(diesel::QueryableByName)]
struct Holder {
    #[diesel(sql_type = Text)]
    text: String,
}

async fn run(mut connection: AsyncPgConnection) -> Result<Vec<String>, MigrateError> {
    let failed = |error| MigrateError::Failed(chain(&error));
    diesel::sql_query(LOCK_LIMIT)
        .execute(&mut connection)
        .await
        .map_err(failed)?;
    drop_half_built(&mut connection).await.map_err(failed)?;
    let mut harness = AsyncMigrationHarness::new(connection);
    let applied: Vec<String> = harness
        .run_pending_migrations(MIGRATIONS)
        .map_err(|error| MigrateError::Failed(chain(error.as_ref())))?
        .iter()
        .map(ToString::to_string)
        .collect();
    // Closing the connection would release the lock as well, but only once the server has noticed.
    let mut connection = harness.into_inner();
    diesel::select(
        diesel::dsl::sql::<Bool>("pg_advisory_unlock(")
            .bind::<BigInt, _>(LOCK)
            .sql(")"),
    )
    .get_result::<bool>(&mut connection)
    .await
    .map_err(|error| MigrateError::Failed(chain(&DbError::from(error))))?;
    info!(
        count = applied.len(),
        "the schema is up to date, {} migrations applied now",
        applied.len()
    );
    Ok(applied)
}
