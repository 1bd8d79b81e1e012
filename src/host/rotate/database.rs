//! The database host's half: the new login comes first, the old one goes last.

use tokio_postgres::Client;

use super::*;
use crate::host::steps::database_role::{self, disable, enable, may_log_in, sessions};
use crate::host::steps::publish;

/// This long the backend must have been seen on the new login alone before the old one goes: one that does not get
/// ready with it goes back.
const SETTLED: Duration = Duration::from_secs(5);

pub(super) struct Half<'a> {
    pub host: &'a Host,
    pub parameters: &'a Parameters,
    pub name: &'a str,
    pub deadline: Instant,
}

impl Half<'_> {
    pub(super) async fn rotate(&self, published: &Login) -> Result<Rotated, RotateError> {
        let client = database_role::connect(self.host).await?;
        let (role, other) = (published.role, published.role.other());
        if !may_log_in(&client, role).await? {
            return Err(RotateError::Retired(role));
        }
        // Both may log in: an earlier run was cut off. If the backend still has to come over, it is waited for; if it
        // is where it should be, what is left of that run is overwritten by this one.
        if may_log_in(&client, other).await? && !is_over(&client, role).await? {
            tracing::info!("an earlier rotation to {role} is unfinished: going on with it");
            self.retire(&client, other).await?;
            return Ok(Rotated::Finished(role));
        }
        tracing::info!("letting {other} in with a new password; {role} stays valid");
        let fresh = enable(&client, other).await?;
        publish::publish_login(self.parameters, self.name, &fresh, left(self.deadline)).await?;
        tracing::info!("published {other}; waiting for the backend to switch to it");
        self.retire(&client, role).await?;
        Ok(Rotated::To(other))
    }

    /// Ends a login once nobody uses it and the other one is in use.
    async fn retire(&self, client: &Client, old: LoginRole) -> Result<(), RotateError> {
        let new = old.other();
        let mut since = None;
        let what = format!("the backend to use {new} and nobody {old}");
        let switched = until(
            what,
            left(self.deadline),
            SETTLED / 10,
            async || match count(client, new).await {
                Err(error) => Look::Done(Err(error)),
                Ok((new_sessions, 0)) if new_sessions > 0 => {
                    let since = since.get_or_insert_with(Instant::now);
                    match since.elapsed() >= SETTLED {
                        true => Look::Done(Ok(())),
                        false => {
                            Look::NotYet(format!("{new_sessions} sessions of {new}, for a moment"))
                        }
                    }
                }
                Ok((new_sessions, old_sessions)) => {
                    since = None;
                    Look::NotYet(format!(
                        "{new_sessions} sessions of {new}, {old_sessions} of {old}"
                    ))
                }
            },
        )
        .await
        .map_err(|source| RotateError::NotSwitched { to: new, source })?;
        switched?;
        disable(client, old).await?;
        tracing::info!("{old} cannot log in any more");
        Ok(())
    }
}

/// Sessions of a login and of the other one.
async fn count(client: &Client, role: LoginRole) -> Result<(i64, i64), DatabaseRoleError> {
    Ok((
        sessions(client, role).await?,
        sessions(client, role.other()).await?,
    ))
}

/// Whether this login is in use and the other one is not.
async fn is_over(client: &Client, role: LoginRole) -> Result<bool, DatabaseRoleError> {
    Ok(matches!(count(client, role).await?, (1.., 0)))
}
