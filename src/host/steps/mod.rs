//! The steps of the bootstrap, one file each.

use std::time::Duration;

use tokio::time::Instant;

use super::command::CommandError;
use super::file::{self, FileError, Owner};
use super::metadata::{Identity, MetadataError};
use super::parameters::{NotWritten, Parameters};
use super::wait::GaveUp;
use super::{Host, Login, api_folder};
use crate::appliance::{Duty, Step, UserData, path};

mod admin_keys;
pub(super) mod api;
mod certificate;
pub(super) mod database_role;
pub(super) mod postgresql;
pub(super) mod publish;
pub(super) mod ready;
pub(super) mod seal;
mod ssh_host_key;
mod tuning;
mod volume;
pub(super) mod wait_for_database;

pub use postgresql::pg_hba;
pub use ready::ReadyUrl;

/// Where the API says that it is ready, kept for commands that a person starts.
pub(super) const READY_URL_NOTE: &str = "/var/lib/drawbridge/ready-url";

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
#[allow(
    missing_docs,
    reason = "each variant only carries the error of its step, whose text says everything"
)]
pub enum StepError {
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error(transparent)]
    GaveUp(#[from] GaveUp),
    #[error(transparent)]
    NotWritten(#[from] NotWritten),
    #[error(transparent)]
    SshHostKey(#[from] ssh_host_key::SshHostKeyError),
    #[error(transparent)]
    Volume(#[from] volume::VolumeError),
    #[error(transparent)]
    Certificate(#[from] certificate::CertificateError),
    #[error(transparent)]
    DatabaseRole(#[from] database_role::DatabaseRoleError),
    #[error(transparent)]
    Seal(#[from] seal::SealError),
    #[error("this machine has no user {0}; it belongs to the image of the role")]
    NoUser(&'static str),
    /// The sequence of a role and the step's needs disagree: a mistake in the program.
    #[error("step {0} was asked for where it cannot be done; please report this")]
    OutOfPlace(Step),
}

/// Does the steps, and carries from one to the next what must not touch the disk.
pub(super) struct Worker<'a> {
    host: &'a Host,
    identity: Identity,
    user_data: UserData,
    /// None on an instance that is bootstrapped already.
    parameters: Option<Parameters>,
    deadline: Instant,
    ready_url: ReadyUrl,
    /// Database: set in Postgres by this run, to be published by it.
    login: Option<Login>,
    /// Backend: what the database published.
    published: Option<wait_for_database::Published>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(
        host: &'a Host,
        identity: Identity,
        user_data: UserData,
        parameters: Option<Parameters>,
        deadline: Instant,
        ready_url: ReadyUrl,
    ) -> Self {
        Self {
            host,
            identity,
            user_data,
            parameters,
            deadline,
            ready_url,
            login: None,
            published: None,
        }
    }

    pub(super) async fn perform(&mut self, step: Step) -> Result<(), StepError> {
        let Worker {
            host,
            identity,
            user_data,
            parameters,
            ..
        } = &*self;
        let name = user_data.name.as_str();
        let left = self.left();
        match (step, &user_data.duty, parameters) {
            (Step::AdminKeys, ..) => admin_keys::write(host, user_data)?,
            (Step::SshHostKey, ..) => {
                let key = ssh_host_key::ensure(host).await?;
                if let Some(parameters) = parameters {
                    ssh_host_key::publish(parameters, name, user_data.role(), &key, left).await?;
                }
            }
            (Step::Volume, Duty::Database { data_volume, .. }, _) => {
                volume::mount(host, data_volume, owner("postgres")?).await?;
            }
            (Step::Certificate, Duty::Database { .. }, Some(_)) => {
                certificate::ensure(host, identity.address, owner("postgres")?)?;
            }
            (Step::Certificate, Duty::Database { .. }, None) => {
                certificate::check(host, identity.address)?;
            }
            (Step::Postgresql, Duty::Database { backend_cidr, .. }, _) => {
                tuning::write(host, owner("postgres")?)?;
                postgresql::write_access_rules(host, *backend_cidr, owner("postgres")?)?;
                postgresql::start(host).await?;
            }
            (Step::DatabaseRole, Duty::Database { .. }, Some(_)) => {
                self.login = Some(database_role::ensure(host).await?);
            }
            (Step::Publish, Duty::Database { .. }, Some(parameters)) => {
                let login = self.login.as_ref().ok_or(StepError::OutOfPlace(step))?;
                publish::publish(host, parameters, name, login, left).await?;
            }
            (Step::WaitForDatabase, Duty::Backend { database_address }, Some(parameters)) => {
                let found =
                    wait_for_database::wait(parameters, name, *database_address, left).await?;
                self.published = Some(found);
            }
            (Step::Seal, Duty::Backend { database_address }, Some(_)) => {
                let published = self.published.as_ref().ok_or(StepError::OutOfPlace(step))?;
                seal::seal(host, published, *database_address).await?;
            }
            (Step::Api, Duty::Backend { .. }, first_boot) => {
                let url = format!("{}\n", self.ready_url);
                file::write(&host.path(READY_URL_NOTE), url.as_bytes(), 0o644, None)?;
                match first_boot {
                    Some(_) => api::restart().await?,
                    None => api::start().await?,
                }
            }
            (Step::Ready, Duty::Backend { .. }, None) => ready::wait(&self.ready_url).await?,
            (Step::Ready, Duty::Backend { database_address }, Some(parameters)) => {
                let published = self.published.as_ref().ok_or(StepError::OutOfPlace(step))?;
                let look = ready::Look {
                    host,
                    parameters,
                    name,
                    database: *database_address,
                };
                ready::wait_and_heal(&self.ready_url, look, published).await?;
            }
            _ => return Err(StepError::OutOfPlace(step)),
        }
        Ok(())
    }

    /// Time until the whole bootstrap gives up, less a moment, so that the wait that ran out can say what it saw.
    fn left(&self) -> Duration {
        let left = self.deadline.saturating_duration_since(Instant::now());
        left.saturating_sub(Duration::from_secs(1))
    }
}

/// Removes what belongs to another instance: state copied with an image must not share its keys and passwords.
pub(super) fn forget(host: &Host) -> Result<(), StepError> {
    for item in [
        path::SERVER_KEY,
        path::SERVER_CERTIFICATE,
        volume::FORMATTING_NOTE,
    ] {
        file::remove(&host.path(item))?;
    }
    Ok(api_folder::remove(host)?)
}

fn owner(user: &'static str) -> Result<Owner, StepError> {
    match nix::unistd::User::from_name(user) {
        Ok(Some(found)) => Ok((found.uid.as_raw(), found.gid.as_raw())),
        _ => Err(StepError::NoUser(user)),
    }
}
