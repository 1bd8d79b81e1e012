//! SSM parameters: how the hosts hand over what Terraform must not know. Needs the internet, so first boot only.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_ssm::Client;
use aws_sdk_ssm::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ssm::types::ParameterType;

use super::Secret;
use super::wait::{GaveUp, Look, until};
use crate::error_chain::chain;

/// A NAT route that does not lead anywhere yet swallows packets; a fresh connection a moment later gets through.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const ATTEMPT_LIMIT: Duration = Duration::from_secs(15);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// One attempt failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AttemptFailed(String);

/// A parameter could not be written for as long as was allowed.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot write the parameter {name}; the host needs the NAT window open and its instance role in place (nat_gateway = true, terraform apply)"
)]
pub struct NotWritten {
    name: String,
    #[source]
    source: GaveUp,
}

/// What may be written.
pub enum Value<'a> {
    /// Readable by everybody with access.
    Plain(&'a str),
    /// Stored encrypted (SecureString, the account's default key).
    Secret(&'a Secret),
}

/// The deployment's parameters.
#[derive(Debug, Clone)]
pub struct Parameters {
    client: Client,
}

impl Parameters {
    /// Prepares access in a region; credentials come from the instance role. Contacts nobody yet.
    pub async fn connect(region: &str) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_LIMIT)
            .operation_attempt_timeout(ATTEMPT_LIMIT)
            .operation_timeout(ATTEMPT_LIMIT)
            .build();
        let config = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()))
            .timeout_config(timeouts)
            // Retries are made by `until`: bounded as a whole, and the last failure is kept.
            .retry_config(RetryConfig::disabled())
            .load()
            .await;
        Self {
            client: Client::new(&config),
        }
    }

    /// Overwrites a parameter, trying once.
    ///
    /// # Errors
    /// [`AttemptFailed`] with the service's code and message, or why it was not reached.
    pub async fn try_put(&self, name: &str, value: &Value<'_>) -> Result<(), AttemptFailed> {
        let (kind, text) = match value {
            Value::Plain(text) => (ParameterType::String, *text),
            Value::Secret(secret) => (ParameterType::SecureString, secret.expose()),
        };
        let request = self
            .client
            .put_parameter()
            .name(name)
            .value(text)
            .r#type(kind)
            .overwrite(true);
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) => {
                let text = describe(error);
                Err(AttemptFailed(match value {
                    Value::Plain(_) => text,
                    Value::Secret(secret) => secret.redact(&text),
                }))
            }
        }
    }

    /// Overwrites a parameter, trying again until `limit`: the NAT route, the role's permissions and the service
    /// itself may all take a moment.
    ///
    /// # Errors
    /// [`NotWritten`] with the last failure.
    pub async fn put(
        &self,
        name: &str,
        value: Value<'_>,
        limit: Duration,
    ) -> Result<(), NotWritten> {
        until(
            format!("the parameter {name}"),
            limit,
            LONGEST_PAUSE,
            async || match self.try_put(name, &value).await {
                Ok(()) => Look::Done(()),
                Err(error) => Look::NotYet(error.to_string()),
            },
        )
        .await
        .map_err(|source| NotWritten {
            name: name.into(),
            source,
        })
    }

    /// Reads a parameter, decrypted, trying once.
    ///
    /// # Errors
    /// [`AttemptFailed`] with the service's code and message, or why it was not reached.
    pub async fn try_get(&self, name: &str) -> Result<Secret, AttemptFailed> {
        let request = self.client.get_parameter().name(name).with_decryption(true);
        let answer = request
            .send()
            .await
            .map_err(|error| AttemptFailed(describe(error)))?;
        answer
            .parameter
            .and_then(|parameter| parameter.value)
            .map(Secret::new)
            .ok_or_else(|| AttemptFailed("an answer without a value".into()))
    }
}

/// What went wrong, without the request or answer that the library's own texts include.
fn describe<E>(error: SdkError<E>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match &error {
        SdkError::ServiceError(answer) => {
            let code = answer.err().code().unwrap_or("unknown error");
            let message = answer.err().message().unwrap_or("no message");
            format!("SSM answered {code}: {message}")
        }
        SdkError::TimeoutError(_) => "SSM did not answer in time".into(),
        SdkError::DispatchFailure(failure) => match failure.as_connector_error() {
            Some(inner) => format!("SSM was not reached: {}", chain(inner)),
            None => "SSM was not reached".into(),
        },
        _ => chain(&error),
    }
}
