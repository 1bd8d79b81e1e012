//! The backend's half: starts the API anew with the published login, and goes back if it does not get ready with it.

use std::net::Ipv4Addr;

use super::*;
use crate::appliance::path;
use crate::error_chain::chain;
use crate::host::api_folder::Slot;
use crate::host::steps::wait_for_database::Published;
use crate::host::steps::{api, ready, seal};

/// A start with no migrations to make takes a second or two.
const READY_LIMIT: Duration = Duration::from_secs(45);

/// Even one that begins in the last second is given this long, or it would always be judged a failure. Three of them fit
/// into what the operator's command waits beyond the limit.
const LEAST_READY_LIMIT: Duration = Duration::from_secs(10);

pub(super) struct Half<'a> {
    pub host: &'a Host,
    pub parameters: &'a Parameters,
    pub name: &'a str,
    pub database: Ipv4Addr,
    pub ready_url: ReadyUrl,
    pub deadline: Instant,
}

impl Half<'_> {
    pub(super) async fn rotate(&self) -> Result<Rotated, RotateError> {
        let before = api_folder::current(self.host).ok_or(RotateError::NotBootstrapped)?;
        let sealed = seal::decrypt(&self.host.path(path::SEALED_PASSWORD)).await?;
        if let Some(leftover) = api_folder::unsettled(self.host)
            && let Ok(published) = self.look().await
            && published.login.password == sealed
        {
            let role = published.login.role;
            tracing::info!("an earlier switch to {role} was cut off: finishing it");
            self.start_with(before, leftover, role).await?;
            return Ok(Rotated::Finished(role));
        }
        let published = self.wait_for_another(&sealed).await?;
        let role = published.login.role;
        tracing::info!("switching to {role}");
        let staged = seal::stage(self.host, &published, self.database).await?;
        api_folder::switch(self.host, staged)?;
        self.start_with(staged, before, role).await?;
        Ok(Rotated::To(role))
    }

    async fn look(&self) -> Result<Published, String> {
        wait_for_database::look(self.parameters, self.name, self.database).await
    }

    async fn wait_for_another(
        &self,
        sealed: &crate::host::Secret,
    ) -> Result<Published, RotateError> {
        tracing::info!("waiting for the database host to publish a new login");
        until(
            "a new login",
            left(self.deadline),
            LONGEST_PAUSE,
            async || match self.look().await {
                Ok(found) if found.login.password == *sealed => Look::NotYet(format!(
                    "{} is published, with the password that is in use here",
                    found.login.role
                )),
                Ok(found) => Look::Done(found),
                Err(seen) => Look::NotYet(seen),
            },
        )
        .await
        .map_err(RotateError::NothingNew)
    }

    /// Restarts the API with the folder in use; with the one of before where it does not get ready.
    async fn start_with(&self, now: Slot, before: Slot, to: LoginRole) -> Result<(), RotateError> {
        let Err(reason) = self.restart().await else {
            return Ok(api_folder::settle(self.host)?);
        };
        tracing::warn!("the API is not ready with {to} ({reason}); going back");
        api_folder::switch(self.host, before)?;
        let is_back = match self.restart().await {
            Ok(()) => {
                api_folder::settle(self.host)?;
                true
            }
            // The old login may have been retired meanwhile: then the new one is the only hope, and both stay here.
            Err(_) => {
                api_folder::switch(self.host, now)?;
                let _ = self.restart().await;
                false
            }
        };
        Err(RotateError::NotReady {
            to,
            reason,
            is_back,
        })
    }

    /// The socket stays open meanwhile, so connections wait instead of being refused.
    async fn restart(&self) -> Result<(), String> {
        api::restart().await.map_err(|error| chain(&error))?;
        // The time to go back in is kept.
        let limit = (left(self.deadline) / 3).clamp(LEAST_READY_LIMIT, READY_LIMIT);
        ready::wait_for(&self.ready_url, limit)
            .await
            .map_err(|error| error.to_string())
    }
}
