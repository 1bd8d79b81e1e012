//! What AWS knows: whose account it is (STS), the hosts' published parameters (SSM), the window's deadline (Scheduler),
//! gateway, address and route as they are now and the images (EC2), and the blocks of a snapshot (EBS).
//!
//! EC2 is asked through the `aws` command, because `aws-sdk-ec2` alone takes 8 GB and ten minutes to compile.

mod database;
pub mod ebs;
mod ec2;
pub mod images;
pub mod inventory;
mod schedule;
mod trouble;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_sts::operation::get_caller_identity::GetCallerIdentityOutput;

pub use self::database::PublishedError;
pub use self::ec2::{Address, Gateway, GatewayState, Route};
pub use self::schedule::Schedule;
pub use self::trouble::Trouble;
use crate::appliance::{ReportState, Role, parameter};
use crate::bastion::host_keys::{BadPin, Pins};
use crate::terraform::executable;

/// One attempt; the SDK makes three at most.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(8);
/// Everything about one request, credentials included.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// Whether a text is a region's code, e.g. `ap-south-1`, as terraform/variables.tf checks it.
#[must_use]
pub fn is_region(text: &str) -> bool {
    let parts: Vec<_> = text.split('-').collect();
    let is_word = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase());
    match parts.split_last() {
        Some((number, words)) => {
            words.len() >= 2
                && words.iter().all(is_word)
                && number.len() == 1
                && number.bytes().all(|byte| byte.is_ascii_digit())
        }
        None => false,
    }
}

/// Why AWS could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    /// The request did not succeed.
    #[error("cannot {what} in {region}: {trouble}{}", trouble.remedy())]
    Request {
        /// What was asked.
        what: &'static str,
        /// Where.
        region: String,
        /// What stood in the way.
        trouble: Trouble,
    },
    /// The account could not be asked about at all, so nothing else was believed.
    #[error(
        "cannot ask AWS in {region} whose credentials these are: {trouble}; the state belongs to account {account}"
    )]
    Access {
        /// The account of the state.
        account: String,
        /// Where.
        region: String,
        /// What stood in the way.
        trouble: Trouble,
    },
    /// The credentials are somebody else's.
    #[error(
        "the state belongs to AWS account {account}, but these credentials are for {given} ({arn}): choose those of {account} (AWS_PROFILE, `aws sso login`) and run this again"
    )]
    OtherAccount {
        /// The account of the state.
        account: String,
        /// The account of the credentials.
        given: String,
        /// Whose credentials they are.
        arn: String,
    },
    /// Account and region are right, and yet the deployment is not there.
    #[error(
        "{what} of the state does not exist in {region} of account {account}: AWS_ENDPOINT_URL points somewhere else, or the deployment was deleted without terraform (`terraform plan` shows what is missing)"
    )]
    NotThere {
        /// What was looked for.
        what: String,
        /// Where.
        region: String,
        /// The account of the state and of the credentials.
        account: String,
    },
    /// Nothing was asked.
    #[error(
        "the `aws` command is not on the PATH: install the AWS CLI (https://aws.amazon.com/cli/), or run `nix develop`"
    )]
    NoCommand,
    /// The deployment's own parameter is not there.
    #[error(
        "SSM has no parameter {name} in {region}: does this state belong to this account? `aws sts get-caller-identity` names yours; `terraform apply` creates the parameter"
    )]
    NoParameter {
        /// The parameter.
        name: String,
        /// Where.
        region: String,
    },
    /// A host key parameter holds something else.
    #[error(transparent)]
    BadPin(#[from] BadPin),
}

impl CloudError {
    /// Whether it names who asks and where, and so keeps everything from being done.
    #[must_use]
    pub fn is_about_access(&self) -> bool {
        match self {
            Self::Access { .. }
            | Self::OtherAccount { .. }
            | Self::NotThere { .. }
            | Self::NoCommand => true,
            Self::Request { trouble, .. } => trouble.is_about_access(),
            Self::NoParameter { .. } | Self::BadPin(_) => false,
        }
    }
}

/// One region of the user's account.
#[derive(Clone, Debug)]
pub struct Cloud {
    region: String,
    scheduler: aws_sdk_scheduler::Client,
    ssm: aws_sdk_ssm::Client,
    sts: aws_sdk_sts::Client,
    aws: Option<PathBuf>,
}

impl Cloud {
    /// Takes credentials and endpoint from where the AWS tools take them (`AWS_PROFILE`, `AWS_ENDPOINT_URL`, …), the
    /// region from the deployment. Asks nothing yet.
    pub async fn new(region: &str) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(ATTEMPT_LIMIT)
            .operation_attempt_timeout(ATTEMPT_LIMIT)
            .operation_timeout(REQUEST_LIMIT)
            .build();
        let config = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()))
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(3))
            .load()
            .await;
        let aws = executable("aws", std::env::var_os("PATH").as_deref());
        Self {
            region: region.to_owned(),
            scheduler: aws_sdk_scheduler::Client::new(&config),
            ssm: aws_sdk_ssm::Client::new(&config),
            sts: aws_sdk_sts::Client::new(&config),
            aws,
        }
    }

    /// Whose credentials these are.
    ///
    /// # Errors
    /// When STS cannot be asked.
    pub async fn account(&self) -> Result<String, CloudError> {
        let caller = self.caller().await.map_err(|trouble| CloudError::Request {
            what: "find out whose credentials these are",
            region: self.region.clone(),
            trouble,
        })?;
        Ok(caller.account.unwrap_or_default())
    }

    async fn caller(&self) -> Result<GetCallerIdentityOutput, Trouble> {
        let asked = self.sts.get_caller_identity().send().await;
        asked.map_err(|error| Trouble::of_sdk(&error))
    }

    /// Where.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Sees that the credentials are for `account`, before anything else that AWS says is believed.
    ///
    /// # Errors
    /// [`CloudError::OtherAccount`], and [`CloudError::Access`] when it cannot be found out.
    pub async fn check_account(&self, account: &str) -> Result<(), CloudError> {
        let caller = self.caller().await.map_err(|trouble| CloudError::Access {
            account: account.to_owned(),
            region: self.region.clone(),
            trouble,
        })?;
        let given = caller.account.unwrap_or_default();
        if given == account {
            return Ok(());
        }
        Err(CloudError::OtherAccount {
            account: account.to_owned(),
            given,
            arn: caller.arn.unwrap_or_default(),
        })
    }

    /// The host keys that the hosts of `deployment` have published, and which instances did, where their reports say so.
    ///
    /// # Errors
    /// When SSM cannot be asked, lacks a key's parameter, or holds something that is not a key.
    pub async fn host_keys(&self, deployment: &str) -> Result<Pins, CloudError> {
        let names = Role::ALL.map(|role| {
            let key = parameter::ssh_host_key(deployment, role);
            (role, key, parameter::bootstrap_report(deployment, role))
        });
        let all = names.iter().flat_map(|(_, key, report)| [key, report]);
        let values = self.found("read the published host keys", all).await?;
        let mut pins = Pins::default();
        for (role, key, report) in &names {
            let value = values.get(key).ok_or_else(|| self.missing(key))?;
            pins.insert_published(*role, key, value)?;
            if let Some(ReportState::Reported(report)) =
                values.get(report).map(|value| ReportState::parse(value))
            {
                pins.insert_reporter(*role, &report);
            }
        }
        Ok(pins)
    }

    /// What the bootstrap reports of `roles` say, in the same order.
    ///
    /// # Errors
    /// When SSM cannot be asked or lacks a parameter.
    pub async fn reports(
        &self,
        deployment: &str,
        roles: &[Role],
    ) -> Result<Vec<(Role, ReportState)>, CloudError> {
        let names: Vec<_> = roles
            .iter()
            .map(|role| (*role, parameter::bootstrap_report(deployment, *role)))
            .collect();
        let values = self
            .parameters(
                "read the bootstrap reports",
                names.iter().map(|(_, name)| name),
            )
            .await?;
        Ok(names
            .iter()
            .map(|(role, name)| (*role, ReportState::parse(&values[name])))
            .collect())
    }

    /// All of `names` (ten at most, SSM's limit) in one request; a missing one is an error.
    async fn parameters(
        &self,
        what: &'static str,
        names: impl Iterator<Item = &String> + Clone,
    ) -> Result<BTreeMap<String, String>, CloudError> {
        let values = self.found(what, names.clone()).await?;
        match names.into_iter().find(|name| !values.contains_key(*name)) {
            Some(name) => Err(self.missing(name)),
            None => Ok(values),
        }
    }

    /// Those of `names` (ten at most) that there are.
    async fn found(
        &self,
        what: &'static str,
        names: impl Iterator<Item = &String>,
    ) -> Result<BTreeMap<String, String>, CloudError> {
        let request = self
            .ssm
            .get_parameters()
            .set_names(Some(names.cloned().collect()));
        let answer = request.send().await.map_err(|error| CloudError::Request {
            what,
            region: self.region.clone(),
            trouble: Trouble::of_sdk(&error),
        })?;
        let found = answer.parameters.unwrap_or_default().into_iter();
        Ok(found
            .filter_map(|parameter| Some((parameter.name?, parameter.value?)))
            .collect())
    }

    fn missing(&self, name: &str) -> CloudError {
        CloudError::NoParameter {
            name: name.to_owned(),
            region: self.region.clone(),
        }
    }
}
