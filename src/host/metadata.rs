//! What the instance metadata service (IMDS, version 2 only) tells an instance about itself.

use std::net::Ipv4Addr;
use std::time::Duration;

use aws_config::imds::client::error::ImdsError;
use aws_config::imds::client::{Client, SensitiveString};

use super::wait::{GaveUp, Look, until};
use crate::appliance::{UserData, UserDataError};
use crate::error_chain::chain;

/// The service answers within milliseconds; this much is for an instance whose network is still coming up.
const TOTAL_LIMIT: Duration = Duration::from_secs(60);
/// A single answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Ids, addresses and region names are far below this.
const LONGEST_FACT: usize = 128;

/// What EC2 itself says about the instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `i-…`
    pub instance_id: String,
    /// `ami-…`
    pub image_id: String,
    /// The instance's private address.
    pub address: Ipv4Addr,
    /// Where it runs, e.g. `ap-south-1`.
    pub region: String,
}

/// Why the metadata are not usable.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// No usable answer in time: no network, no service, 401 or 5xx again and again.
    #[error(
        "the instance metadata service is not usable; check metadata_options (http_endpoint, hop limit 1 or more)"
    )]
    NotUsable(#[source] GaveUp),
    /// 403: switched off for this instance.
    #[error(
        "the instance metadata service refuses this instance (403); set http_endpoint = \"enabled\" and reboot"
    )]
    Refused,
    /// 404 for something every instance has.
    #[error("the instance metadata service does not know {item} (404)")]
    Missing {
        /// The path below `/latest/`.
        item: &'static str,
    },
    /// Any other status.
    #[error("the instance metadata service answered {item} with status {status}")]
    Status {
        /// The path below `/latest/`.
        item: &'static str,
        /// The HTTP status.
        status: u16,
    },
    /// An answer of another shape.
    #[error("the instance metadata service answered {item} with something that is not {shape}")]
    Shape {
        /// The path below `/latest/`.
        item: &'static str,
        /// What it must look like.
        shape: &'static str,
    },
    /// The user data are not what Terraform writes.
    #[error(transparent)]
    UserData(#[from] UserDataError),
    /// An image or user data of another region.
    #[error(
        "the user data say region {told}, but this instance runs in {found}; correct the provider's region in terraform/"
    )]
    OtherRegion {
        /// From the user data.
        told: String,
        /// From the metadata service.
        found: String,
    },
}

const INSTANCE_ID: &str = "meta-data/instance-id";
const IMAGE_ID: &str = "meta-data/ami-id";
const ADDRESS: &str = "meta-data/local-ipv4";
const REGION: &str = "meta-data/placement/region";
const USER_DATA: &str = "user-data";

/// Where to ask, and for how long.
pub struct MetadataService {
    client: Client,
    limit: Duration,
}

impl MetadataService {
    /// The service of this instance (`AWS_EC2_METADATA_SERVICE_ENDPOINT` or http://169.254.169.254).
    pub fn here() -> Self {
        Self::new(Client::builder(), TOTAL_LIMIT)
    }

    /// A service at another address, asked for at most `limit`.
    ///
    /// # Errors
    /// When the endpoint is not a URL.
    pub fn at(
        endpoint: &str,
        limit: Duration,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self::new(Client::builder().endpoint(endpoint)?, limit))
    }

    fn new(builder: aws_config::imds::client::Builder, limit: Duration) -> Self {
        // Retries are made by `until`, which is bounded as a whole and remembers the last failure. Two attempts here
        // are for a session token that has just expired.
        let client = builder
            .max_attempts(2)
            .connect_timeout(Duration::from_secs(2))
            .read_timeout(ANSWER_LIMIT)
            .operation_attempt_timeout(ANSWER_LIMIT)
            .build();
        Self { client, limit }
    }

    /// Reads who this instance is.
    ///
    /// # Errors
    /// See [`MetadataError`]. What will not heal by itself is reported at once.
    pub async fn identity(&self) -> Result<Identity, MetadataError> {
        Ok(Identity {
            instance_id: self.id(INSTANCE_ID, "i-", "an instance id").await?,
            image_id: self.id(IMAGE_ID, "ami-", "an image id").await?,
            address: self
                .fact(ADDRESS)
                .await?
                .parse()
                .map_err(|_| MetadataError::Shape {
                    item: ADDRESS,
                    shape: "an IPv4 address",
                })?,
            region: self.fact(REGION).await?,
        })
    }

    /// Reads what Terraform tells the instance that runs in this region.
    ///
    /// # Errors
    /// See [`MetadataError`]. What will not heal by itself is reported at once.
    pub async fn user_data(&self, region: &str) -> Result<UserData, MetadataError> {
        let user_data = match self.get(USER_DATA).await {
            // An instance without user data answers 404.
            Err(MetadataError::Missing { .. }) => return Err(UserDataError::Empty.into()),
            answer => UserData::parse(answer?.as_ref())?,
        };
        if user_data.region != region {
            let found = region.escape_default().to_string();
            return Err(MetadataError::OtherRegion {
                told: user_data.region,
                found,
            });
        }
        Ok(user_data)
    }

    async fn id(
        &self,
        item: &'static str,
        prefix: &str,
        shape: &'static str,
    ) -> Result<String, MetadataError> {
        let text = self.fact(item).await?;
        let good = text.starts_with(prefix)
            && text.len() > prefix.len()
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if good {
            Ok(text)
        } else {
            Err(MetadataError::Shape { item, shape })
        }
    }

    async fn fact(&self, item: &'static str) -> Result<String, MetadataError> {
        let text = self.get(item).await?;
        let text = text.as_ref().trim();
        if text.is_empty() || text.len() > LONGEST_FACT {
            return Err(MetadataError::Shape {
                item,
                shape: "a short text",
            });
        }
        Ok(text.into())
    }

    async fn get(&self, item: &'static str) -> Result<SensitiveString, MetadataError> {
        let path = format!("/latest/{item}");
        let answer = until(item, self.limit, LONGEST_PAUSE, async || {
            match self.client.get(path.as_str()).await {
                Ok(text) => Look::Done(Ok(text)),
                Err(error) => match status(&error) {
                    Some(403) => Look::Done(Err(MetadataError::Refused)),
                    Some(404) => Look::Done(Err(MetadataError::Missing { item })),
                    Some(401) => {
                        Look::NotYet("status 401: the service accepts no session token".into())
                    }
                    Some(status) if status < 500 => {
                        Look::Done(Err(MetadataError::Status { item, status }))
                    }
                    Some(status) => Look::NotYet(format!("status {status}")),
                    None => Look::NotYet(chain(&error)),
                },
            }
        })
        .await;
        answer.map_err(MetadataError::NotUsable)?
    }
}

/// The status of an answer. (The error's own text would quote the answer's body.)
fn status(error: &ImdsError) -> Option<u16> {
    match error {
        ImdsError::ErrorResponse(answer) => Some(answer.response().status().as_u16()),
        // The token could not be had because the service answered 403: the library keeps only the text.
        ImdsError::FailedToLoadToken(_) if chain(error).contains("request forbidden") => Some(403),
        _ => None,
    }
}
