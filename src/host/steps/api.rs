//! `api`: starts the API's unit.

use std::time::Duration;

use crate::host::command::{self, CommandError};

const UNIT: &str = "drawbridge-api.service";
/// Longer than systemd's own limit for a unit to start (90 s), so that its reason is what is reported.
const START_LIMIT: Duration = Duration::from_secs(120);

/// Starts it, if it does not run.
pub async fn start() -> Result<(), CommandError> {
    systemctl("start").await
}

/// Starts it, or starts it anew if it runs: the password it read at its start may have been replaced.
pub async fn restart() -> Result<(), CommandError> {
    systemctl("restart").await
}

async fn systemctl(verb: &str) -> Result<(), CommandError> {
    command::run("systemctl", &[verb, UNIT], None, START_LIMIT)
        .await?
        .checked()?;
    Ok(())
}
