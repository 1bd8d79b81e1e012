//! Images and snapshots, through the `aws` command.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::ec2::Tag;
use super::{Cloud, CloudError, Trouble};

/// An AMI of this account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// `ami-…`
    pub id: String,
    /// Unique in account and region.
    pub name: String,
    /// `pending`, `available`, `failed`…
    pub state: String,
    /// When it was registered.
    pub created_at: OffsetDateTime,
    /// The snapshots its disks are made of.
    pub snapshots: BTreeSet<String>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

/// An instance as EC2 lists it, for an hour after its end too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// `i-…`
    pub id: String,
    /// `pending`, `running`, `stopping`, `stopped`, `shutting-down` or `terminated`.
    pub state: String,
    /// When it was started last.
    pub launched_at: OffsetDateTime,
}

/// A snapshot of this account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// `snap-…`
    pub id: String,
    /// `pending`, `completed` or `error`.
    pub state: String,
    /// When it was begun.
    pub started_at: OffsetDateTime,
    /// Size of the volume it is of.
    pub gib: u64,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

/// What an AMI is registered with, beside what all of ours have.
#[derive(Clone, Debug)]
pub struct NewImage<'a> {
    /// Unique in account and region.
    pub name: &'a str,
    /// For people.
    pub description: &'a str,
    /// `x86_64` or `arm64`.
    pub architecture: &'a str,
    /// `legacy-bios`, `uefi` or `uefi-preferred`.
    pub boot_mode: &'a str,
    /// Of the root disk.
    pub snapshot: &'a str,
    /// All of its tags.
    pub tags: &'a BTreeMap<String, String>,
}

/// The device name of the root disk, which `nixos/` mounts by label and EC2 wants named.
pub const ROOT_DEVICE: &str = "/dev/xvda";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawImage {
    image_id: String,
    #[serde(default)]
    name: String,
    state: String,
    creation_date: String,
    #[serde(default)]
    block_device_mappings: Vec<Mapping>,
    #[serde(default)]
    tags: Vec<Tag>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Mapping {
    ebs: Option<Disk>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Disk {
    snapshot_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawSnapshot {
    snapshot_id: String,
    state: String,
    start_time: String,
    volume_size: u64,
    #[serde(default)]
    tags: Vec<Tag>,
}

impl Cloud {
    /// The AMIs of this account, those with all of `tags`; with no tags, every one.
    ///
    /// # Errors
    /// When EC2 cannot be asked or answers in another shape.
    pub async fn images(&self, tags: &[(&str, &str)]) -> Result<Vec<Image>, CloudError> {
        let filters = filters(tags);
        let mut ask = vec!["describe-images", "--owners", "self"];
        if !filters.is_empty() {
            ask.push("--filters");
        }
        ask.extend(filters.iter().map(String::as_str));
        self.list_images("list the images", &ask).await
    }

    /// Those of these AMIs that exist, whoever's they are.
    ///
    /// # Errors
    /// When EC2 cannot be asked or answers in another shape.
    pub async fn images_of_ids(&self, ids: &[&str]) -> Result<Vec<Image>, CloudError> {
        let filter = format!("Name=image-id,Values={}", ids.join(","));
        let ask = [
            "describe-images",
            "--include-deprecated",
            "--filters",
            &filter,
        ];
        self.list_images("look for the hosts' images", &ask).await
    }

    async fn list_images(
        &self,
        what: &'static str,
        ask: &[&str],
    ) -> Result<Vec<Image>, CloudError> {
        let found: Vec<RawImage> = self.rows(what, ask, "Images").await?;
        let read = |raw: RawImage| {
            Ok(Image {
                created_at: self.time(what, &raw.creation_date)?,
                id: raw.image_id,
                name: raw.name,
                state: raw.state,
                snapshots: raw
                    .block_device_mappings
                    .into_iter()
                    .filter_map(|mapping| mapping.ebs?.snapshot_id)
                    .collect(),
                tags: by_key(raw.tags),
            })
        };
        found.into_iter().map(read).collect()
    }

    /// Which of these AMIs there are, of whomever, and this account may start instances from.
    ///
    /// # Errors
    /// When EC2 cannot be asked or answers in another shape.
    pub async fn known_images(&self, ids: &[&str]) -> Result<BTreeSet<String>, CloudError> {
        // Asked by a filter, a missing one is no error.
        let filter = format!("Name=image-id,Values={}", ids.join(","));
        let ask = ["describe-images", "--filters", &filter];
        let found: Vec<RawImage> = self.rows("look for the images", &ask, "Images").await?;
        Ok(found.into_iter().map(|image| image.image_id).collect())
    }

    /// Those of these instances that EC2 still lists.
    ///
    /// # Errors
    /// When EC2 cannot be asked or answers in another shape.
    pub async fn instances_of_ids(&self, ids: &[&str]) -> Result<Vec<Running>, CloudError> {
        let what = "look for the hosts' instances";
        let filter = format!("Name=instance-id,Values={}", ids.join(","));
        let query = "Reservations[].Instances[].[InstanceId, State.Name, LaunchTime]";
        let ask = ["describe-instances", "--filters", &filter, "--query", query];
        let found = self.value(what, &ask).await?;
        let read: Vec<(String, String, String)> =
            serde_json::from_value(found).map_err(|error| self.misread(what, error.to_string()))?;
        let read = read.into_iter().map(|(id, state, launched)| {
            Ok(Running {
                launched_at: self.time(what, &launched)?,
                id,
                state,
            })
        });
        read.collect()
    }

    /// The snapshots of this account with all of `tags`.
    ///
    /// # Errors
    /// When EC2 cannot be asked or answers in another shape.
    pub async fn snapshots(&self, tags: &[(&str, &str)]) -> Result<Vec<Snapshot>, CloudError> {
        let what = "list the snapshots";
        let filters = filters(tags);
        let mut ask = vec!["describe-snapshots", "--owner-ids", "self", "--filters"];
        ask.extend(filters.iter().map(String::as_str));
        let found: Vec<RawSnapshot> = self.rows(what, &ask, "Snapshots").await?;
        let read = |raw: RawSnapshot| {
            Ok(Snapshot {
                started_at: self.time(what, &raw.start_time)?,
                id: raw.snapshot_id,
                state: raw.state,
                gib: raw.volume_size,
                tags: by_key(raw.tags),
            })
        };
        found.into_iter().map(read).collect()
    }

    /// Makes an AMI of a completed snapshot: ENA, IMDSv2 only, and a gp3 root disk that ends with its instance.
    ///
    /// # Errors
    /// When EC2 says no or cannot be asked.
    pub async fn register_image(&self, new: &NewImage<'_>) -> Result<String, CloudError> {
        let what = "register the image";
        let disk = json!([{
            "DeviceName": ROOT_DEVICE,
            "Ebs": {"SnapshotId": new.snapshot, "VolumeType": "gp3", "DeleteOnTermination": true},
        }]);
        let tags: Vec<_> = new
            .tags
            .iter()
            .map(|(key, value)| json!({"Key": key, "Value": value}))
            .collect();
        let tags = json!([{"ResourceType": "image", "Tags": tags}]);
        let answer: Value = self
            .value(
                what,
                &[
                    "register-image",
                    "--name",
                    new.name,
                    "--description",
                    new.description,
                    "--architecture",
                    new.architecture,
                    "--boot-mode",
                    new.boot_mode,
                    "--virtualization-type",
                    "hvm",
                    "--ena-support",
                    "--imds-support",
                    "v2.0",
                    "--root-device-name",
                    ROOT_DEVICE,
                    "--block-device-mappings",
                    &disk.to_string(),
                    "--tag-specifications",
                    &tags.to_string(),
                ],
            )
            .await?;
        let id = answer["ImageId"].as_str().map(str::to_owned);
        id.ok_or_else(|| self.misread(what, "no ImageId".to_owned()))
    }

    /// Takes an AMI away. One that is gone already is as good.
    ///
    /// # Errors
    /// When EC2 says no or cannot be asked.
    pub async fn deregister_image(&self, id: &str) -> Result<(), CloudError> {
        let ask = ["deregister-image", "--image-id", id];
        let asked = self.ec2("deregister the image", &ask).await;
        gone(
            asked,
            &["InvalidAMIID.NotFound", "InvalidAMIID.Unavailable"],
        )
    }

    /// Deletes a snapshot. One that is gone already is as good.
    ///
    /// # Errors
    /// When EC2 says no, as for one that an image needs, or cannot be asked.
    pub async fn delete_snapshot(&self, id: &str) -> Result<(), CloudError> {
        let ask = ["delete-snapshot", "--snapshot-id", id];
        let asked = self.ec2("delete the snapshot", &ask).await;
        gone(asked, &["InvalidSnapshot.NotFound"])
    }

    /// Gives a snapshot one more tag.
    ///
    /// # Errors
    /// When EC2 says no or cannot be asked.
    pub async fn tag_snapshot(&self, id: &str, key: &str, value: &str) -> Result<(), CloudError> {
        let tag = json!([{"Key": key, "Value": value}]).to_string();
        let ask = ["create-tags", "--resources", id, "--tags", &tag];
        self.ec2("tag the snapshot", &ask).await.map(drop)
    }

    /// The images of all instances that are not terminated, stopped ones included: instance by image.
    ///
    /// # Errors
    /// When EC2 cannot be asked or answers in another shape.
    pub async fn images_of_instances(&self) -> Result<Vec<(String, String)>, CloudError> {
        let what = "list the instances";
        let states =
            "Name=instance-state-name,Values=pending,running,shutting-down,stopping,stopped";
        let query = "Reservations[].Instances[].[ImageId, InstanceId]";
        self.pairs(
            what,
            &["describe-instances", "--filters", states, "--query", query],
        )
        .await
    }

    /// The images that the default and the latest version of each launch template name: template by image.
    ///
    /// # Errors
    /// When EC2 cannot be asked or answers in another shape.
    pub async fn images_of_launch_templates(&self) -> Result<Vec<(String, String)>, CloudError> {
        let what = "list the launch templates";
        let query = "LaunchTemplateVersions[].[LaunchTemplateData.ImageId, LaunchTemplateId]";
        self.pairs(
            what,
            &[
                "describe-launch-template-versions",
                "--versions",
                "$Latest",
                "$Default",
                "--query",
                query,
            ],
        )
        .await
    }

    async fn pairs(
        &self,
        what: &'static str,
        arguments: &[&str],
    ) -> Result<Vec<(String, String)>, CloudError> {
        let found = self.value(what, arguments).await?;
        let read: Vec<(Option<String>, String)> =
            serde_json::from_value(found).map_err(|error| self.misread(what, error.to_string()))?;
        let named = read
            .into_iter()
            .filter_map(|(image, by)| Some((image?, by)));
        Ok(named.collect())
    }

    async fn rows<T: DeserializeOwned>(
        &self,
        what: &'static str,
        arguments: &[&str],
        field: &str,
    ) -> Result<Vec<T>, CloudError> {
        let mut answer = self.value(what, arguments).await?;
        serde_json::from_value(answer[field].take())
            .map_err(|error| self.misread(what, format!("{field}: {error}")))
    }

    async fn value(&self, what: &'static str, arguments: &[&str]) -> Result<Value, CloudError> {
        let answer = self.ec2(what, arguments).await?;
        serde_json::from_str(&answer).map_err(|error| self.misread(what, error.to_string()))
    }

    fn time(&self, what: &'static str, text: &str) -> Result<OffsetDateTime, CloudError> {
        OffsetDateTime::parse(text, &Rfc3339)
            .map_err(|_| self.misread(what, format!("`{text}` is not a time")))
    }
}

fn by_key(tags: Vec<Tag>) -> BTreeMap<String, String> {
    let pairs = tags.into_iter().map(|tag| (tag.key, tag.value));
    pairs.collect()
}

// In the shorthand EC2's `*` and `?` stand for anything and a comma ends a value; none of ours has one.
fn filters(tags: &[(&str, &str)]) -> Vec<String> {
    let filter = |(key, value): &(&str, &str)| format!("Name=tag:{key},Values={value}");
    tags.iter().map(filter).collect()
}

fn gone(asked: Result<String, CloudError>, codes: &[&str]) -> Result<(), CloudError> {
    match asked {
        Err(CloudError::Request {
            trouble: Trouble::Other { message },
            ..
        }) if codes.iter().any(|code| message.contains(code)) => Ok(()),
        asked => asked.map(drop),
    }
}
