//! `drawbridge-host rotate-password`: replaces the application's password while requests go on.
//!
//! The database and the backend each do their half, side by side: the database host lets the other of the two login
//! roles in and publishes it, the backend switches to it, and only when nobody uses the old one any more does the
//! database host retire it. A run that was cut off anywhere leaves a login that works, and the next run goes on.

use std::time::Duration;

use clap::Args;
use tokio::time::Instant;

use super::Host;
use super::api_folder;
use super::command::CommandError;
use super::file::{self, FileError};
use super::lock::{Lock, LockError};
use super::metadata::{MetadataError, MetadataService};
use super::parameters::{NotWritten, Parameters};
use super::steps::database_role::DatabaseRoleError;
use super::steps::seal::SealError;
use super::steps::wait_for_database;
use super::steps::{READY_URL_NOTE, ReadyUrl};
use super::wait::{GaveUp, Look, until};
use super::{Login, LoginRole};
use crate::appliance::{Duty, Role};

mod backend;
mod database;

/// For finding out whether SSM is reachable at all.
const WINDOW_LIMIT: Duration = Duration::from_secs(20);
/// Between two looks at what the other half does.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Replaces the application's database password without a moment's downtime. Run on the database host and on the backend
/// side by side, as root, while the NAT window is open; safe to run again at any time.
#[derive(Debug, Clone, Args)]
pub struct RotateArgs {
    /// Give up after this many seconds, 5 to 3600. Whatever was reached then works; the next run goes on from there.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(5..=3600))]
    pub timeout: u64,
    /// Backend: where the API says that it is ready, `http://ADDRESS:PORT/PATH` with an IP address of this host. The
    /// default is what the bootstrap used.
    #[arg(long, value_name = "URL", env = "BOOTSTRAP_READY_URL")]
    pub ready_url: Option<ReadyUrl>,
}

/// What a run has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotated {
    /// This login has taken the other one's place.
    To(LoginRole),
    /// An earlier run had been cut off; what it began is done now.
    Finished(LoginRole),
}

impl std::fmt::Display for Rotated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::To(role) => write!(f, "rotated: {role} is the login now, with a new password"),
            Self::Finished(role) => {
                write!(f, "finished an earlier rotation: {role} is the login now")
            }
        }
    }
}

/// Why the password is not rotated. Each text says what still works.
#[derive(Debug, thiserror::Error)]
#[allow(
    missing_docs,
    reason = "the variants without a comment only carry an error whose text says everything"
)]
pub enum RotateError {
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("the instance's metadata cannot be read; nothing was changed: run this again")]
    Metadata(#[from] MetadataError),
    /// The bastion has nothing to do with the database.
    #[error("a {0} knows no database password; run this on the database host and on the backend")]
    OtherRole(Role),
    /// Nothing was published yet, or SSM is not reached.
    #[error(
        "the published login cannot be read, so nothing was changed; open the NAT window (`drawbridge nat open --for 15m`) and run this again"
    )]
    NoWindow(#[source] GaveUp),
    /// The bootstrap has not sealed anything yet.
    #[error(
        "this backend has no sealed password yet; its bootstrap must be complete first (`drawbridge nat status` shows how far it is)"
    )]
    NotBootstrapped,
    /// The roles are not as the bootstrap leaves them.
    #[error(
        "the published login {0} may not log in; run `drawbridge-host bootstrap --again` here, then on the backend"
    )]
    Retired(LoginRole),
    #[error(transparent)]
    Database(#[from] DatabaseRoleError),
    /// The password was set and the world does not know it.
    #[error("the present login stays valid; run this again")]
    NotPublished(#[from] NotWritten),
    /// The backend did not come over.
    #[error(
        "the backend has not switched to {to}; both logins stay valid, so nothing is down. Run this again, here and on the backend, to go on"
    )]
    NotSwitched {
        /// The published login.
        to: LoginRole,
        /// What was seen instead.
        #[source]
        source: GaveUp,
    },
    /// The other half has not published anything new.
    #[error(
        "the database host has published no new login; the present one goes on being used. Run this on both hosts again"
    )]
    NothingNew(#[source] GaveUp),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    File(#[from] FileError),
    /// The API did not like the new login.
    #[error(
        "the API did not become ready with {to} ({reason}); {}",
        match is_back { true => "it is back on the login of before and ready. See `journalctl -u drawbridge-api`, then run this again on both hosts", false => "nor with the login of before. See `journalctl -u drawbridge-api`; `drawbridge-host bootstrap --again` on the database host and then here sets everything anew" }
    )]
    NotReady {
        /// The new login.
        to: LoginRole,
        /// What was seen instead.
        reason: String,
        /// Whether the API is ready again with what it had before.
        is_back: bool,
    },
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// Does this host's half.
///
/// # Errors
/// See [`RotateError`].
pub async fn rotate(
    host: &Host,
    service: &MetadataService,
    args: &RotateArgs,
) -> Result<Rotated, RotateError> {
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    let identity = service.identity().await?;
    let user_data = service.user_data(&identity.region).await?;
    let name = user_data.name.as_str();
    if user_data.role() == Role::Bastion {
        return Err(RotateError::OtherRole(Role::Bastion));
    }
    let _lock = Lock::take(host).await?;
    let parameters = Parameters::connect(&user_data.region).await;
    let published = published(&parameters, name).await?;
    match user_data.duty {
        Duty::Bastion => Err(RotateError::OtherRole(Role::Bastion)),
        Duty::Database { .. } => {
            let half = database::Half {
                host,
                parameters: &parameters,
                name,
                deadline,
            };
            half.rotate(&published).await
        }
        Duty::Backend { database_address } => {
            let noted = file::read(&host.path(READY_URL_NOTE))?;
            let noted = noted.and_then(|url| url.trim().parse().ok());
            let half = backend::Half {
                host,
                parameters: &parameters,
                name,
                database: database_address,
                ready_url: args.ready_url.clone().or(noted).unwrap_or_default(),
                deadline,
            };
            half.rotate().await
        }
    }
}

/// The login that is published now. Also the proof that the window is open, before anything is changed.
async fn published(parameters: &Parameters, name: &str) -> Result<Login, RotateError> {
    until(
        "the published login",
        WINDOW_LIMIT,
        LONGEST_PAUSE,
        async || match wait_for_database::look_at_login(parameters, name).await {
            Ok(login) => Look::Done(login),
            Err(seen) => Look::NotYet(seen),
        },
    )
    .await
    .map_err(RotateError::NoWindow)
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
