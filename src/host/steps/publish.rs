//! `publish`: hands login and certificate to the backend.

use std::time::Duration;

use super::StepError;
use crate::appliance::{parameter, path};
use crate::host::file;
use crate::host::parameters::{NotWritten, Parameters, Value};
use crate::host::{Host, Login};

/// Writes both parameters. The login last: a backend that sees a new login then sees the certificate it goes with.
pub async fn publish(
    host: &Host,
    parameters: &Parameters,
    name: &str,
    login: &Login,
    limit: Duration,
) -> Result<(), StepError> {
    let certificate = file::read(&host.path(path::SERVER_CERTIFICATE))?.unwrap_or_default();
    let to = parameter::database_certificate(name);
    parameters
        .put(&to, Value::Plain(&certificate), limit)
        .await?;
    publish_login(parameters, name, login, limit).await?;
    Ok(())
}

/// Writes the login's parameter.
pub async fn publish_login(
    parameters: &Parameters,
    name: &str,
    login: &Login,
    limit: Duration,
) -> Result<(), NotWritten> {
    let to = parameter::database_login(name);
    parameters
        .put(&to, Value::Secret(&login.to_secret()), limit)
        .await
}
