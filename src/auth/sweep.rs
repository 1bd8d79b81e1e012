//! Takes away the sessions that nobody can use any more.

use std::{convert::Infallible, time::Duration};

use tokio::time::sleep;

use super::Accounts;
use crate::{
    db::{Database, DbError, sessions},
    error_chain::chain,
};

/// Between two looks. What has expired is refused in any case; this is about space only.
const INTERVAL: Duration = Duration::from_secs(600);
/// Deleted by one statement, which then holds its locks for milliseconds.
const BATCH: i64 = 1000;
/// Between two statements.
const PAUSE: Duration = Duration::from_millis(100);

/// Deletes expired sessions in batches, every ten minutes, for ever; drop it to end it.
pub async fn sweep_sessions(accounts: Accounts, database: Database) -> Infallible {
    loop {
        match sweep_once(&accounts, &database).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "{count} expired sessions were deleted"),
            // Before the first migration there is nothing to sweep.
            Err(DbError::NotMigrated) => {
                sleep(PAUSE).await;
                continue;
            }
            Err(error) => tracing::warn!("expired sessions stay for now: {}", chain(&error)),
        }
        sleep(INTERVAL).await;
    }
}

async fn sweep_once(accounts: &Accounts, database: &Database) -> Result<usize, DbError> {
    let mut total = 0;
    loop {
        let deleted = {
            let mut connection = database.connection().await?;
            sessions::delete_expired(&mut connection, accounts.idle_hours(), BATCH).await?
        };
        total += deleted;
        if i64::try_from(deleted).is_ok_and(|deleted| deleted < BATCH) {
            return Ok(total);
        }
        sleep(PAUSE).await;
    }
}
