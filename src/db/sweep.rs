//! Deletes what has expired, a little at a time, for as long as the server runs.

use std::time::Duration;

use super::{Database, DbError, idempotency};
use crate::error_chain::chain;

/// An expired key is as good as none from the moment it expires, so nobody waits for this.
const INTERVAL: Duration = Duration::from_secs(600);

/// Sweeps at once and then every ten minutes, until it is dropped.
pub async fn sweep_for_ever(database: &Database) {
    loop {
        match sweep(database).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "deleted {count} expired idempotency keys"),
            // The next time will do.
            Err(error) => tracing::warn!(
                "expired idempotency keys could not be deleted: {}",
                chain(&error)
            ),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Batch by batch, each on a connection of its own: requests come first.
async fn sweep(database: &Database) -> Result<usize, DbError> {
    let mut count = 0;
    loop {
        let mut connection = database.connection().await?;
        let deleted = idempotency::sweep(&mut connection).await?;
        count += deleted;
        if deleted < idempotency::SWEEP_LIMIT {
            return Ok(count);
        }
    }
}
