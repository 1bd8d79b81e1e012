//! Account and region: those of the deployment whose images they become, if there is one.

use std::env;

use crate::cloud::{Cloud, CloudError, is_region};
use crate::terraform::{Deployment, Terraform, TerraformError};

/// Where images go.
#[derive(Debug)]
pub struct Target {
    /// One region of it.
    pub cloud: Cloud,
    /// Twelve digits.
    pub account: String,
}

/// Why it is not known where images go; nothing was begun.
#[derive(Debug, thiserror::Error)]
pub enum BadTarget {
    /// Nothing says which.
    #[error(
        "no region: name the one that the images are to be used in, e.g. `--region ap-south-1` or AWS_REGION"
    )]
    NoRegion,
    /// A text that is none.
    #[error("the region `{region}` (from {place}) is not a code like ap-south-1: correct it")]
    BadRegion {
        /// What was given.
        region: String,
        /// `--region` or a variable's name.
        place: &'static str,
    },
    /// An AMI is of use in its own region only.
    #[error(
        "the deployment {deployment} stands in {wanted}, and {place} says {given}: images of another region are of no use to it; leave {place} away, or name that deployment's folder with --terraform-dir; nothing was changed"
    )]
    OtherRegion {
        /// The state's.
        deployment: String,
        /// The state's.
        wanted: String,
        /// What was given.
        given: String,
        /// `--region` or a variable's name.
        place: &'static str,
    },
    /// Whose account it is could not be found out, or it is another one.
    #[error(transparent)]
    Cloud(#[from] CloudError),
    /// There is a state, or it is not known whether there is one, and it cannot be read.
    #[error(transparent)]
    State(Box<TerraformError>),
}

impl BadTarget {
    /// Whether it says what stands in the way, and not only that AWS failed.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Cloud(error) => error.is_about_access(),
            Self::State(_) => false,
            _ => true,
        }
    }
}

/// A region as it was given, and where.
type Given = Option<(String, &'static str)>;

impl Target {
    /// Finds region and account out and compares both with the deployment in Terraform's state, if there is one.
    ///
    /// # Errors
    /// [`BadTarget`]
    pub async fn find(
        region: Option<String>,
        terraform: Option<&Terraform>,
    ) -> Result<Self, BadTarget> {
        let deployment = match terraform {
            Some(terraform) => deployment(terraform)
                .await
                .map_err(|error| BadTarget::State(error.into()))?,
            None => None,
        };
        let region = choose(region, |name| env::var(name).ok(), deployment.as_ref())?;
        let cloud = Cloud::new(&region).await;
        let account = match &deployment {
            Some(deployment) => {
                cloud.check_account(&deployment.account_id).await?;
                deployment.account_id.clone()
            }
            None => cloud.account().await?,
        };
        Ok(Self { cloud, account })
    }
}

/// Publishing comes before the first apply, and before the `terraform init` for it: then there is nothing to compare with.
async fn deployment(terraform: &Terraform) -> Result<Option<Deployment>, TerraformError> {
    match terraform.deployment().await {
        Ok(deployment) => Ok(Some(deployment)),
        Err(TerraformError::NotApplied { .. } | TerraformError::NotInitialised { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn choose(
    option: Option<String>,
    variable: impl Fn(&str) -> Option<String>,
    deployment: Option<&Deployment>,
) -> Result<String, BadTarget> {
    let from = |name: &'static str| {
        let value = variable(name).filter(|value| !value.is_empty());
        value.map(|value| (value, name))
    };
    let given: Given = option
        .map(|region| (region, "--region"))
        .or_else(|| from("AWS_REGION"))
        .or_else(|| from("AWS_DEFAULT_REGION"));
    match (given, deployment) {
        (Some((region, place)), _) if !is_region(&region) => {
            Err(BadTarget::BadRegion { region, place })
        }
        (Some((given, place)), Some(deployment)) if given != deployment.region => {
            Err(BadTarget::OtherRegion {
                deployment: deployment.name.clone(),
                wanted: deployment.region.clone(),
                given,
                place,
            })
        }
        (Some((given, _)), _) => Ok(given),
        (None, Some(deployment)) => Ok(deployment.region.clone()),
        (None, None) => Err(BadTarget::NoRegion),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terraform::tests::sample;

    fn choose_of(
        option: Option<&str>,
        variables: &[(&str, &str)],
        is_deployed: bool,
    ) -> Result<String, String> {
        let deployment = is_deployed.then(sample);
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name)?;
            Some(found.1.to_owned())
        };
        choose(option.map(str::to_owned), variable, deployment.as_ref())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_region_is_the_given_one_or_the_deployments_and_never_another() {
        let other = [
            ("AWS_REGION", "eu-west-1"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
        ];
        assert_eq!(
            choose_of(Some("us-gov-west-1"), &other, false).unwrap(),
            "us-gov-west-1"
        );
        assert_eq!(choose_of(None, &other, false).unwrap(), "eu-west-1");
        assert_eq!(choose_of(None, &other[1..], false).unwrap(), "us-east-1");
        assert_eq!(
            choose_of(None, &[("AWS_REGION", "")], true).unwrap(),
            "ap-south-1"
        );
        assert_eq!(
            choose_of(Some("ap-south-1"), &other, true).unwrap(),
            "ap-south-1"
        );
        let said = choose_of(None, &other, true).unwrap_err();
        assert!(
            said.contains("stands in ap-south-1, and AWS_REGION says eu-west-1"),
            "{said}"
        );
        assert!(
            choose_of(None, &[], false)
                .unwrap_err()
                .contains("--region ap-south-1")
        );
        for wrong in [
            "ap-south",
            "ap-south-1a",
            "mumbai",
            "",
            "*-south-1",
            "ap_south_1",
        ] {
            assert!(choose_of(Some(wrong), &[], false).is_err(), "{wrong}");
        }
    }
}
