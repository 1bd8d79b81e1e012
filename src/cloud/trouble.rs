//! AWS says in forty ways that the credentials are no good. Here it becomes one line with the next thing to try.

use std::fmt;

use aws_sdk_ssm::config::http::HttpResponse;
use aws_sdk_ssm::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

/// What stands between us and AWS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// There are none.
    NoCredentials,
    /// They were good once.
    ExpiredCredentials,
    /// AWS does not know them, or they belong to another partition or region.
    RejectedCredentials,
    /// They are good for something else.
    NotAllowed {
        /// AWS's words: they name the action that is missing.
        message: String,
    },
    /// No connection, or no answer in time.
    NoAnswer {
        /// What happened.
        message: String,
    },
    /// Anything else.
    Other {
        /// AWS's words.
        message: String,
    },
}

impl Trouble {
    /// What to try next, in brackets, where its own words do not say it.
    #[must_use]
    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            Self::NotAllowed { .. } => {
                " (terraform/deployer-policy.json names what is needed, publisher-policy.json for images)"
            }
            Self::Other { .. } => " (run this again; `aws sts get-caller-identity` shows who asks)",
            Self::NoCredentials
            | Self::ExpiredCredentials
            | Self::RejectedCredentials
            | Self::NoAnswer { .. } => "",
        }
    }

    /// Whether it is about who asks and how, and not about what was asked: nothing else would be answered either.
    #[must_use]
    pub fn is_about_access(&self) -> bool {
        match self {
            Self::NoCredentials
            | Self::ExpiredCredentials
            | Self::RejectedCredentials
            | Self::NoAnswer { .. } => true,
            Self::NotAllowed { .. } | Self::Other { .. } => false,
        }
    }

    /// Reads an SDK error.
    pub(super) fn of_sdk<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let text = DisplayErrorContext(error).to_string();
        match error {
            SdkError::TimeoutError(_) => Self::NoAnswer {
                message: "no answer in time".to_owned(),
            },
            SdkError::ServiceError(service) => {
                let code = service.err().code().unwrap_or_default();
                let message = service.err().message().unwrap_or(code);
                Self::of_text(&format!("{code}: {message}"))
            }
            SdkError::DispatchFailure(failure) if failure.is_timeout() || failure.is_io() => {
                Self::NoAnswer {
                    message: shorten(&text),
                }
            }
            _ => Self::of_text(&text),
        }
    }

    /// Reads the text of an SDK error, of the `aws` command's stderr, or of Terraform's backend.
    pub(crate) fn of_text(text: &str) -> Self {
        let has = |marks: &[&str]| marks.iter().any(|mark| text.contains(mark));
        if has(&[
            "ExpiredToken",
            "RequestExpired",
            "token has expired",
            "Token has expired",
            "refresh failed",
            "profile has expired",
            "Error loading SSO Token",
        ]) {
            Self::ExpiredCredentials
        } else if has(&[
            "Unable to locate credentials",
            "credentials provider was not enabled",
            "no providers in chain",
            "No valid credential sources found",
            "CredentialsNotLoaded",
            "could not be found)",
        ]) {
            Self::NoCredentials
        } else if has(&[
            "UnrecognizedClient",
            "InvalidClientTokenId",
            "AuthFailure",
            "InvalidSignature",
            "SignatureDoesNotMatch",
            "IncompleteSignature",
        ]) {
            Self::RejectedCredentials
        } else if has(&[
            "AccessDenied",
            "UnauthorizedOperation",
            "not authorized",
            // S3 gives no code in answer to a HEAD.
            "api error Forbidden",
        ]) {
            Self::NotAllowed {
                message: shorten(text),
            }
        } else if has(&[
            "Could not connect",
            "timed out",
            "timeout",
            "Connection was closed",
            "dns error",
            "Connection refused",
            // Terraform's words.
            "connection refused",
            "no such host",
        ]) {
            Self::NoAnswer {
                message: shorten(text),
            }
        } else {
            Self::Other {
                message: shorten(text),
            }
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCredentials => formatter.write_str("no AWS credentials (set AWS_PROFILE, or run `aws configure` or `aws sso login`)"),
            Self::ExpiredCredentials => {
                formatter.write_str("the AWS credentials have expired (`aws sso login`, or renew the session, and run this again)")
            }
            Self::RejectedCredentials => {
                formatter.write_str("AWS does not accept the credentials (`aws sts get-caller-identity` shows whose they are)")
            }
            Self::NotAllowed { message } => write!(formatter, "not allowed: {message}"),
            Self::NoAnswer { message } => {
                write!(formatter, "AWS does not answer ({message}): check the network, AWS_ENDPOINT_URL and the region")
            }
            Self::Other { message } => formatter.write_str(message),
        }
    }
}

// Both tools can answer with a page; the first few hundred characters hold the code and the reason.
fn shorten(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(400).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_troubles_are_told_apart() {
        let read = Trouble::of_text;
        assert_eq!(
            read("Unable to locate credentials. You can configure"),
            Trouble::NoCredentials
        );
        assert_eq!(
            read("An error occurred (ExpiredToken) when calling"),
            Trouble::ExpiredCredentials
        );
        assert_eq!(
            read(
                "The SSO session associated with this profile has expired or is otherwise invalid."
            ),
            Trouble::ExpiredCredentials
        );
        assert_eq!(
            read("Error loading SSO Token: Token for https://x.awsapps.com/start does not exist"),
            Trouble::ExpiredCredentials
        );
        assert_eq!(
            read("An error occurred (AuthFailure) when calling the DescribeNatGateways"),
            Trouble::RejectedCredentials
        );
        assert!(matches!(
            read("(UnauthorizedOperation) You are not authorized"),
            Trouble::NotAllowed { .. }
        ));
        assert!(matches!(
            read("Could not connect to the endpoint URL: \"http://x\""),
            Trouble::NoAnswer { .. }
        ));
        assert_eq!(
            read("a\n  b"),
            Trouble::Other {
                message: "a b".into()
            }
        );
    }
}
