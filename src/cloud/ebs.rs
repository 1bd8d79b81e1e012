//! Writing a snapshot block by block, by the EBS direct APIs.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_config::retry::{ErrorKind, RetryConfig};
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_ebs::Client;
use aws_sdk_ebs::config::http::HttpResponse;
use aws_sdk_ebs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ebs::primitives::{ByteStream, SdkBody};
use aws_sdk_ebs::types::{ChecksumAggregationMethod, ChecksumAlgorithm, Tag};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::time::sleep;

use super::{CloudError, Trouble};

/// For one attempt: 32 blocks of half a MiB at a time take a minute where 2 Mbit/s lead out.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(90);
const CONNECT_LIMIT: Duration = Duration::from_secs(8);
/// With the pauses between them this outlasts a minute of throttling or a change of network, and a new snapshot that
/// EBS does not know everywhere yet.
const ATTEMPTS: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// What a snapshot is begun with. EBS takes the same token with anything else different for a mistake, so all of it is
/// kept until the snapshot's id is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSnapshot {
    /// Two requests with the same one make one snapshot; 64 ASCII characters at most.
    pub token: String,
    /// Size of the volume.
    pub gib: u64,
    /// For people.
    pub description: String,
    /// All of its tags.
    pub tags: BTreeMap<String, String>,
    /// After so much time without a block EBS gives it up.
    pub idle: Duration,
}

/// The EBS direct APIs of one region.
#[derive(Clone, Debug)]
pub struct Ebs {
    client: Client,
    region: String,
}

impl Ebs {
    /// Takes credentials and endpoint from where the AWS tools take them. Asks nothing yet.
    pub async fn new(region: &str) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_LIMIT)
            .operation_attempt_timeout(ATTEMPT_LIMIT)
            .build();
        let config = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()))
            .timeout_config(timeouts)
            // Tried again below, where it is known what the snapshot's state makes of an answer.
            .retry_config(RetryConfig::disabled())
            .load()
            .await;
        Self {
            client: Client::new(&config),
            region: region.to_owned(),
        }
    }

    /// Begins a snapshot. Its id, and the size of its blocks in bytes.
    ///
    /// # Errors
    /// When EBS says no, or does not answer several times.
    pub async fn start(&self, new: &NewSnapshot) -> Result<(String, i32), CloudError> {
        let what = "begin a snapshot";
        let answer = self
            .again(what, || {
                let minutes = i32::try_from(new.idle.as_secs() / 60).unwrap_or(i32::MAX);
                let tags = new
                    .tags
                    .iter()
                    .map(|(key, value)| Tag::builder().key(key).value(value).build());
                self.client
                    .start_snapshot()
                    .volume_size(i64::try_from(new.gib).unwrap_or(i64::MAX))
                    .description(&new.description)
                    .client_token(&new.token)
                    .timeout(minutes)
                    .set_tags(Some(tags.collect()))
                    .send()
            })
            .await?;
        let id = answer.snapshot_id.ok_or_else(|| self.misread(what))?;
        Ok((id, answer.block_size.unwrap_or_default()))
    }

    /// Writes one block of a pending snapshot. The same block may be written twice, if it is the same.
    ///
    /// # Errors
    /// As [`Ebs::start`].
    pub async fn put(
        &self,
        snapshot: &str,
        block: u32,
        data: Vec<u8>,
        hash: &[u8; 32],
    ) -> Result<(), CloudError> {
        let what = "write a block of the snapshot";
        let checksum = STANDARD.encode(hash);
        let length = i32::try_from(data.len()).unwrap_or(i32::MAX);
        let index = i32::try_from(block).unwrap_or(i32::MAX);
        let data = SdkBody::from(data);
        let answer = self
            .again(what, || {
                // One of bytes can always be cloned, and shares them; EBS would refuse an empty one.
                let body = data.try_clone().unwrap_or_else(SdkBody::empty);
                self.client
                    .put_snapshot_block()
                    .snapshot_id(snapshot)
                    .block_index(index)
                    .data_length(length)
                    .checksum(&checksum)
                    .checksum_algorithm(ChecksumAlgorithm::ChecksumAlgorithmSha256)
                    .block_data(ByteStream::new(body))
                    .send()
            })
            .await?;
        match answer.checksum {
            Some(stored) if stored != checksum => Err(self.misread(what)),
            _ => Ok(()),
        }
    }

    /// Ends a snapshot of `blocks` written blocks; `linear` is the hash of their hashes in order.
    ///
    /// # Errors
    /// As [`Ebs::start`].
    pub async fn complete(
        &self,
        snapshot: &str,
        blocks: usize,
        linear: &[u8; 32],
    ) -> Result<(), CloudError> {
        self.again("complete the snapshot", || {
            self.client
                .complete_snapshot()
                .snapshot_id(snapshot)
                .changed_blocks_count(i32::try_from(blocks).unwrap_or(i32::MAX))
                .checksum(STANDARD.encode(linear))
                .checksum_algorithm(ChecksumAlgorithm::ChecksumAlgorithmSha256)
                .checksum_aggregation_method(ChecksumAggregationMethod::ChecksumAggregationLinear)
                .send()
        })
        .await
        .map(drop)
    }

    fn misread(&self, what: &'static str) -> CloudError {
        let message =
            "EBS answers with something else than it was asked for: check AWS_ENDPOINT_URL";
        self.failed(
            what,
            Trouble::Other {
                message: message.to_owned(),
            },
        )
    }

    fn failed(&self, what: &'static str, trouble: Trouble) -> CloudError {
        CloudError::Request {
            what,
            region: self.region.clone(),
            trouble,
        }
    }

    /// Sends until there is an answer that more attempts would not change.
    async fn again<T, E, F>(
        &self,
        what: &'static str,
        mut send: impl FnMut() -> F,
    ) -> Result<T, CloudError>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            let error = match send().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if attempt >= ATTEMPTS || !may_pass(&error) {
                return Err(self.failed(what, Trouble::of_sdk(&error)));
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Err(self.misread(what))
    }
}

/// Whether the same request may be answered otherwise soon.
fn may_pass<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    match error {
        SdkError::TimeoutError(_) => true,
        // One that was cut off; but no page that says who may not come in.
        SdkError::ResponseError(response) => !response.raw().status().is_client_error(),
        // Not without credentials, which are looked for on the way.
        SdkError::DispatchFailure(failure) => {
            failure.is_timeout()
                || failure.is_io()
                // Closed in the middle.
                || failure.as_other() == Some(ErrorKind::TransientError)
        }
        SdkError::ServiceError(service) => {
            let code = service.err().code().unwrap_or_default();
            service.raw().status().is_server_error()
                || [
                    "InternalServerException",
                    "RequestThrottledException",
                    "ThrottlingException",
                    // Of a snapshot that was begun a moment ago.
                    "ResourceNotFoundException",
                ]
                .contains(&code)
        }
        _ => false,
    }
}
