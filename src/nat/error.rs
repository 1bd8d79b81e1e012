//! Why a command about the window ended without a report.

use super::position::PositionError;
use crate::cloud::{CloudError, Trouble};
use crate::terraform::TerraformError;
use crate::terraform::state::StateError;

/// Why a command about the window ended without a report.
#[derive(Debug, thiserror::Error)]
pub enum NatError {
    /// Terraform, the only one that changes anything.
    #[error(transparent)]
    Terraform(TerraformError),
    /// AWS, or the place where the state is kept (a bucket, say), does not let terraform in.
    #[error("terraform is not let in: {trouble}{}", trouble.remedy())]
    StateAccess {
        /// What stood in the way.
        trouble: Trouble,
    },
    /// The state is not what this program understands.
    #[error(transparent)]
    State(#[from] StateError),
    /// AWS could not be asked.
    #[error(transparent)]
    Cloud(#[from] CloudError),
    /// The position file.
    #[error(transparent)]
    Position(#[from] PositionError),
    /// Ctrl-C or SIGTERM before anything was decided.
    #[error("interrupted; nothing was changed: run this again")]
    Interrupted,
    /// Terraform may have stopped half-way.
    #[error(
        "the apply did not finish; the window may be half closed: run `drawbridge nat close` again, it goes on from there"
    )]
    Apply(#[source] TerraformError),
    /// An apply has finished, and more than it could take along stands.
    #[error(
        "a part is closed, but not everything: run `drawbridge nat close` again, it goes on from there"
    )]
    PartlyClosed(#[source] Box<NatError>),
}

impl From<TerraformError> for NatError {
    fn from(error: TerraformError) -> Self {
        // A state in a bucket is read with the same credentials as everything else, and before it.
        if let TerraformError::Failed { command, message } = &error {
            // These two ask nobody but the place where the state is; the others ask AWS about all that is in it.
            let asks_for_the_state_alone = ["output", "state"].contains(&command.as_str());
            let trouble = Trouble::of_text(message);
            let is_clear = match trouble {
                Trouble::NoCredentials
                | Trouble::ExpiredCredentials
                | Trouble::RejectedCredentials => true,
                Trouble::NotAllowed { .. } | Trouble::NoAnswer { .. } => asks_for_the_state_alone,
                Trouble::Other { .. } => false,
            };
            if is_clear {
                return Self::StateAccess { trouble };
            }
        }
        Self::Terraform(error)
    }
}

impl NatError {
    /// Whether it names what stands in the way and nothing was changed, as a refusal does.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Terraform(error) => matches!(error, TerraformError::Locked { .. }),
            Self::StateAccess { .. } => true,
            Self::Cloud(error) => error.is_about_access(),
            Self::State(_)
            | Self::Position(_)
            | Self::Interrupted
            | Self::Apply(_)
            | Self::PartlyClosed(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(message: &str) -> NatError {
        NatError::from(TerraformError::Failed {
            command: "output".into(),
            message: message.into(),
        })
    }

    #[test]
    fn a_state_behind_expired_credentials_is_a_refusal_and_another_failure_is_not() {
        let expired = failed(
            "Error refreshing state: operation error S3: HeadObject, api error ExpiredToken: The provided token has expired.",
        );
        assert!(expired.is_refusal());
        assert!(expired.to_string().contains("aws sso login"), "{expired}");
        assert!(failed("Error: No valid credential sources found").is_refusal());
        // Another account's credentials, and an endpoint that is not there: Terraform 1.11's words.
        let forbidden = failed(
            "Error: Failed to load state: Unable to access object \"drawbridge/terraform.tfstate\" in S3 bucket \"states\": operation error S3: HeadObject, https response error StatusCode: 403, api error Forbidden: Forbidden",
        );
        assert!(forbidden.is_refusal(), "{forbidden}");
        let silent = "dial tcp 127.0.0.1:9: connect: connection refused";
        assert!(failed(silent).is_refusal());
        let planning = NatError::from(TerraformError::Failed {
            command: "plan".into(),
            message: silent.into(),
        });
        assert!(!planning.is_refusal(), "{planning}");
        let other = failed("Error: Unsupported argument");
        assert!(!other.is_refusal() && other.to_string().contains("Unsupported"));
    }

    #[test]
    fn what_fails_after_a_change_is_no_refusal() {
        let expired = failed("Error: ExpiredToken");
        assert!(expired.is_refusal());
        let later = NatError::PartlyClosed(Box::new(expired));
        assert!(!later.is_refusal());
        let text = crate::error_chain::chain(&later);
        assert!(
            text.contains("nat close") && text.contains("have expired"),
            "{text}"
        );
    }
}
