//! Which images go: older ones, with their snapshots, and what earlier runs have left. Never one in use.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;

use super::target::Target;
use super::{ImageError, tags};
use crate::cloud::images::{Image, Snapshot};
use crate::progress::Progress;

/// What stands in the account, and what of it is used.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Every AMI of the account.
    pub images: Vec<Image>,
    /// The snapshots with our tag.
    pub snapshots: Vec<Snapshot>,
    /// Image, and who needs it.
    pub uses: Vec<(String, String)>,
}

/// What prune would do, and why not more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The images that go, each with its snapshots.
    pub images: Vec<Removal>,
    /// Snapshots that go by themselves: nothing is made of them.
    pub snapshots: Vec<Leftover>,
    /// Images of ours that stay, with the reason.
    pub kept: Vec<Kept>,
}

/// An image that goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Removal {
    /// `ami-…`
    pub image: String,
    /// Its name.
    pub name: String,
    /// When it was registered.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// `snap-…`, ours and needed by no other image.
    pub snapshots: Vec<String>,
}

/// A snapshot that no image is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Leftover {
    /// `snap-…`
    pub snapshot: String,
    /// What it is.
    pub why: &'static str,
    /// When it was begun.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// Size of its volume.
    pub gib: u64,
}

/// An image that stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// `ami-…`
    pub image: String,
    /// Its name.
    pub name: String,
    /// Why.
    pub why: String,
}

/// How much stays.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// So many of the newest images of each role and system.
    pub keep: usize,
    /// Snapshots younger than this may be of a run that is under way.
    pub unfinished_after: Duration,
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.images.is_empty() && self.snapshots.is_empty()
    }
}

/// Decides; asks nothing.
#[must_use]
pub fn decide(seen: &Seen, rules: Rules, now: OffsetDateTime) -> Plan {
    let mut plan = Plan::default();
    let mut kinds: BTreeMap<(&str, &str), Vec<&Image>> = BTreeMap::new();
    for image in seen.images.iter().filter(|image| is_ours(&image.tags)) {
        let tag = |key| image.tags.get(key).map(String::as_str);
        // Who tagged one by hand and left these out means something else by it.
        if let (Some(role), Some(system)) = (tag(tags::ROLE), tag(tags::SYSTEM)) {
            kinds.entry((role, system)).or_default().push(image);
        }
    }
    let mut going = BTreeSet::new();
    for images in kinds.values_mut() {
        images.sort_by_key(|image| std::cmp::Reverse((image.created_at, &image.id)));
        for (place, image) in images.iter().enumerate() {
            let users: Vec<_> = seen
                .uses
                .iter()
                .filter(|(used, _)| *used == image.id)
                .collect();
            let why = if !users.is_empty() {
                let names = users.iter().map(|(_, by)| by.as_str());
                format!("used by {}", names.collect::<Vec<_>>().join(", "))
            } else if place < rules.keep {
                format!("one of the {} newest", rules.keep)
            } else {
                going.insert(image.id.as_str());
                plan.images.push(Removal {
                    image: image.id.clone(),
                    name: image.name.clone(),
                    created_at: image.created_at,
                    snapshots: Vec::new(),
                });
                continue;
            };
            plan.kept.push(Kept {
                image: image.id.clone(),
                name: image.name.clone(),
                why,
            });
        }
    }
    // Of those that stay, whoever made them.
    let needed: BTreeSet<&String> = seen
        .images
        .iter()
        .filter(|image| !going.contains(image.id.as_str()))
        .flat_map(|image| &image.snapshots)
        .collect();
    let ours = seen.snapshots.iter().filter(|one| is_ours(&one.tags));
    for snapshot in ours.filter(|one| !needed.contains(&one.id)) {
        let owner = seen.images.iter().find(|image| {
            going.contains(image.id.as_str()) && image.snapshots.contains(&snapshot.id)
        });
        if let Some(owner) = owner {
            let mut removals = plan.images.iter_mut();
            if let Some(removal) = removals.find(|removal| removal.image == owner.id) {
                removal.snapshots.push(snapshot.id.clone());
            }
        } else if let Some(why) = leftover(snapshot, rules, now) {
            plan.snapshots.push(Leftover {
                snapshot: snapshot.id.clone(),
                why,
                started_at: snapshot.started_at,
                gib: snapshot.gib,
            });
        }
    }
    plan
}

fn is_ours(found: &BTreeMap<String, String>) -> bool {
    found
        .get(tags::PROJECT.0)
        .is_some_and(|value| value == tags::PROJECT.1)
}

fn leftover(snapshot: &Snapshot, rules: Rules, now: OffsetDateTime) -> Option<&'static str> {
    // Only what publishing made: a backup that somebody tags as the project's is none of this.
    if !snapshot.tags.contains_key(tags::CONTENT) {
        return None;
    }
    if snapshot.tags.contains_key(tags::PRUNED) {
        return Some("its image was removed by an earlier prune");
    }
    let is_old = now - snapshot.started_at >= rules.unfinished_after;
    match snapshot.state.as_str() {
        "error" => Some("an upload that EBS gave up"),
        "pending" if is_old => Some("an upload that never ended"),
        "completed" if is_old => Some("no image was made of it, or somebody deregistered it"),
        _ => None,
    }
}

/// Looks at everything. `listed` is what Terraform's file names: image, and who needs it.
///
/// # Errors
/// When EC2 cannot be asked: what is in use must be known.
pub async fn look(target: &Target, listed: Vec<(String, String)>) -> Result<Seen, ImageError> {
    let cloud = &target.cloud;
    let ours = [tags::PROJECT];
    let (images, snapshots, instances, templates) = tokio::try_join!(
        cloud.images(&[]),
        cloud.snapshots(&ours),
        cloud.images_of_instances(),
        cloud.images_of_launch_templates(),
    )?;
    let mut uses = listed;
    uses.extend(instances);
    uses.extend(templates);
    Ok(Seen {
        images,
        snapshots,
        uses,
    })
}

/// Does it, image by image. A run that is ended anywhere leaves nothing that the next one does not find: a snapshot is
/// marked before its image goes.
///
/// # Errors
/// The first thing that EC2 refuses; what comes after it is left as it is.
pub async fn prune(target: &Target, plan: &Plan, progress: &Progress) -> Result<(), ImageError> {
    let cloud = &target.cloud;
    for removal in &plan.images {
        progress.line(&format!("removing {}", removal.image));
        for snapshot in &removal.snapshots {
            cloud
                .tag_snapshot(snapshot, tags::PRUNED, &removal.image)
                .await?;
        }
        cloud.deregister_image(&removal.image).await?;
        for snapshot in &removal.snapshots {
            cloud.delete_snapshot(snapshot).await?;
        }
        let snapshots = removal.snapshots.join(", ");
        progress.say(&format!("removed {} with {snapshots}", removal.image));
    }
    for leftover in &plan.snapshots {
        progress.line(&format!("removing {}", leftover.snapshot));
        cloud.delete_snapshot(&leftover.snapshot).await?;
        progress.say(&format!("removed {} ({})", leftover.snapshot, leftover.why));
    }
    Ok(())
}

#[cfg(test)]
#[path = "prune_tests.rs"]
mod tests;
