//! Deletes what has expired, a little at a time, for as long as the server runs.

use std::time::Duration;

use diesel_async::AsyncPgConnection;

use super::{Database, DbError, idempotency, sessions};
use crate::error_chain::chain;

/// Between two looks. What has expired is refused in any case; this is about space only.
const INTERVAL: Duration = Duration::from_secs(600);

/// Deleted by one statement, which then holds its locks for milliseconds.
const BATCH: i64 = 1000;

/// Between two statements: requests come first.
const PAUSE: Duration = Duration::from_millis(100);

/// What expires.
#[derive(Clone, Copy)]
enum Kind {
    IdempotencyKeys,
    Sessions { idle_hours: i32 },
}

/// Sweeps at once and then every ten minutes, until it is dropped. Sessions expire after `idle_hours` without use, too.
pub async fn sweep_for_ever(database: &Database, idle_hours: i32) {
    loop {
        for kind in [Kind::IdempotencyKeys, Kind::Sessions { idle_hours }] {
            let what = kind.name();
            match sweep(database, kind).await {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "{count} expired {what} were deleted"),
                // The next time will do.
                Err(error) => tracing::warn!("expired {what} stay for now: {}", chain(&error)),
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Batch by batch, each on a connection of its own.
async fn sweep(database: &Database, kind: Kind) -> Result<usize, DbError> {
    let mut count = 0;
    loop {
        let deleted = {
            let mut connection = database.connection().await?;
            kind.delete_expired(&mut connection).await?
        };
        count += deleted;
        if i64::try_from(deleted).is_ok_and(|deleted| deleted < BATCH) {
            return Ok(count);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::IdempotencyKeys => "idempotency keys",
            Self::Sessions { .. } => "sessions",
        }
    }

    async fn delete_expired(self, connection: &mut AsyncPgConnection) -> Result<usize, DbError> {
        match self {
            Self::IdempotencyKeys => idempotency::delete_expired(connection, BATCH).await,
            Self::Sessions { idle_hours } => {
                sessions::delete_expired(connection, idle_hours, BATCH).await
            }
        }
    }
}
