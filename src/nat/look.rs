//! Looks at the three places that tell the window's position: the file, Terraform's state, the cloud.

use super::error::NatError;
use super::position::Position;
use super::window::{InState, Seen};
use crate::cloud::{Cloud, CloudError};
use crate::error_chain::chain;
use crate::terraform::state::State;
use crate::terraform::{Deployment, Terraform};

/// The deployment, and what of the window the state holds.
///
/// # Errors
/// When terraform cannot tell.
pub async fn applied(terraform: &Terraform) -> Result<(Deployment, InState), NatError> {
    let (deployment, state) = tokio::try_join!(terraform.deployment(), terraform.state_pull())?;
    Ok((deployment, InState::of(&State::parse(&state)?)))
}

/// Looks at file and cloud. The account comes first: with somebody else's credentials, or at another endpoint, nothing
/// stands anywhere, and that would look like a closed window.
///
/// # Errors
/// When file or cloud cannot be read. Route and deadline may stay unknown: [`Seen`] then says why.
pub async fn look(
    terraform: &Terraform,
    cloud: &Cloud,
    deployment: &Deployment,
    in_state: InState,
) -> Result<Seen, NatError> {
    let position = Position::read(terraform.directory())?;
    let (account, table) = (&deployment.account_id, &deployment.private_route_table_id);
    let schedule = async {
        match &in_state.schedule {
            Some(name) => cloud.schedule(name).await,
            None => Ok(None),
        }
    };
    // Asked side by side, but the account's answer ends it at once when it is a refusal.
    let everything = async {
        Ok(tokio::join!(
            cloud.gateways(&deployment.name, &deployment.vpc_id),
            cloud.window_addresses(&deployment.name),
            cloud.private_route(account, table),
            schedule
        ))
    };
    let ((), (gateways, addresses, route, schedule)) =
        tokio::try_join!(cloud.check_account(account), everything)?;
    if let Err(error @ CloudError::NotThere { .. }) = route {
        return Err(error.into());
    }
    let gateways = gateways?;
    let ours = gateways
        .iter()
        .find(|gateway| gateway.is_tagged && gateway.is_standing());
    let schedule = match ours {
        // A terraform that was killed may have made one without writing it down.
        Some(gateway) if in_state.schedule.is_none() => {
            cloud.schedule_of(&deployment.name, &gateway.id).await
        }
        _ => schedule,
    };
    Ok(Seen {
        position,
        in_state,
        route_table: table.clone(),
        gateways,
        addresses: addresses?,
        route: route.map_err(|error| chain(&error)),
        schedule: schedule.map_err(|error| chain(&error)),
    })
}
