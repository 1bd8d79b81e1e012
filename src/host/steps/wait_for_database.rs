//! `wait-for-database`: the backend takes over what the database published.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::certificate;
use crate::appliance::parameter::{self, PENDING};
use crate::host::parameters::Parameters;
use crate::host::wait::{GaveUp, Look, until};
use crate::host::{Login, Secret};

const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What the backend needs to reach the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// How to log in.
    pub login: Login,
    /// The only certificate to accept, PEM.
    pub certificate: String,
}

/// Waits for both parameters, as long as the whole bootstrap may take: there is nothing else to do meanwhile.
pub async fn wait(
    parameters: &Parameters,
    name: &str,
    address: Ipv4Addr,
    limit: Duration,
) -> Result<Published, GaveUp> {
    until(
        "the database to publish its login and certificate",
        limit,
        LONGEST_PAUSE,
        async || match look(parameters, name, address).await {
            Ok(published) => Look::Done(published),
            Err(seen) => Look::NotYet(seen),
        },
    )
    .await
}

/// Reads both parameters once, or says what is there instead.
pub async fn look(
    parameters: &Parameters,
    name: &str,
    address: Ipv4Addr,
) -> Result<Published, String> {
    let certificate = read(parameters, &parameter::database_certificate(name)).await?;
    // A certificate for another address is one of a database that is being replaced.
    certificate::verify(certificate.expose(), address)
        .map_err(|error| format!("the published certificate is {error}"))?;
    let login = look_at_login(parameters, name).await?;
    Ok(Published {
        login,
        certificate: certificate.expose().into(),
    })
}

/// Reads the login's parameter once, or says what is there instead.
pub async fn look_at_login(parameters: &Parameters, name: &str) -> Result<Login, String> {
    let parameter = parameter::database_login(name);
    let text = read(parameters, &parameter).await?;
    Login::parse(&text).map_err(|error| format!("{parameter}: {error}"))
}

async fn read(parameters: &Parameters, parameter: &str) -> Result<Secret, String> {
    match parameters.try_get(parameter).await {
        Ok(value) if value.expose() == PENDING => Err(format!("{parameter} is still pending")),
        Ok(value) => Ok(value),
        Err(error) => Err(format!("{parameter}: {error}")),
    }
}
