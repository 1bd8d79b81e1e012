//! `publish`: hands password and certificate to the backend.

use std::time::Duration;

use super::StepError;
use crate::appliance::{parameter, path};
use crate::host::file;
use crate::host::parameters::{Parameters, Value};
use crate::host::{Host, Secret};

/// Writes both parameters. The password last: a backend that sees a new password then sees the certificate it goes
/// with.
pub async fn publish(
    host: &Host,
    parameters: &Parameters,
    name: &str,
    password: &Secret,
    limit: Duration,
) -> Result<(), StepError> {
    let certificate = file::read(&host.path(path::SERVER_CERTIFICATE))?.unwrap_or_default();
    let to = parameter::database_certificate(name);
    parameters
        .put(&to, Value::Plain(&certificate), limit)
        .await?;
    let to = parameter::database_password(name);
    parameters.put(&to, Value::Secret(password), limit).await?;
    Ok(())
}
