//! From folders to AMIs. Everything is looked at before anything is begun, and everything that stands already is used.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::spawn_blocking;

use super::disk::Disk;
use super::info::ImageInfo;
use super::journal::{Begun, Journal, Unfinished};
use super::manifest::{BLOCK, Content, Manifest, hex};
use super::source::Source;
use super::target::Target;
use super::upload::Upload;
use super::variables::{FILE, Variables};
use super::{Folder, ImageError, System, tags};
use crate::appliance::Role;
use crate::cloud::ebs::{Ebs, NewSnapshot};
use crate::cloud::images::{Image, NewImage, Snapshot};
use crate::interrupt::Interrupt;
use crate::nat::until;
use crate::progress::Progress;

/// EBS gives up a snapshot that no block was written to for so long: a day to go on with an upload that was ended.
pub const IDLE: Duration = Duration::from_secs(24 * 60 * 60);
/// EBS copies the blocks to where snapshots are kept; minutes for a few GiB, and nobody promises how many.
const COMPLETION_LIMIT: Duration = Duration::from_secs(60 * 60);
/// The same where EBS has refused to: if it was asked before, this much later it shows.
const REFUSED_COMPLETION_LIMIT: Duration = Duration::from_secs(10 * 60);
/// An AMI of a completed snapshot is there at once or in a minute.
const AVAILABLE_LIMIT: Duration = Duration::from_secs(10 * 60);
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// How to publish.
#[derive(Debug)]
pub struct Options {
    /// Where the images come from, for their tags.
    pub source: Source,
    /// How many blocks are on their way at a time.
    pub at_a_time: usize,
    /// The terraform directory.
    pub directory: PathBuf,
}

/// What was published.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Twelve digits.
    pub account: String,
    /// Where.
    pub region: String,
    /// One for each role.
    pub images: Vec<Published>,
    /// The file that Terraform reads.
    pub file: PathBuf,
    /// Whether it says something else now.
    pub is_file_changed: bool,
}

/// One role's image.
#[derive(Debug, Serialize)]
pub struct Published {
    /// Whose.
    pub role: Role,
    /// For which processor.
    pub system: System,
    /// `ami-…`
    pub image: String,
    /// The snapshot it is made of, where this run saw it.
    pub snapshot: Option<String>,
    /// What it took.
    pub outcome: Outcome,
    /// The name of the disk's content.
    pub content: String,
    /// Size of the disk.
    pub bytes: u64,
    /// Blocks of 512 KiB that are not zeros.
    pub blocks: usize,
    /// Of them, those sent by this run.
    pub sent: usize,
    /// How long this role took.
    pub seconds: f64,
    /// How fast its blocks were sent; none when there were none to send.
    pub bytes_per_second: Option<u64>,
}

/// What publishing took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The image of this content was there.
    Existed,
    /// Its snapshot was there.
    Registered,
    /// An upload that was ended before was finished.
    Resumed,
    /// All of it.
    Uploaded,
}

/// A disk that has been looked at and read.
struct Read {
    info: ImageInfo,
    disk: Arc<Disk>,
    manifest: Manifest,
    content: Content,
}

/// Publishes `folders` and writes their ids for Terraform.
///
/// # Errors
/// [`ImageError`]; what was begun is gone on with by the next run.
pub async fn publish(
    target: &Target,
    folders: Vec<Folder>,
    options: &Options,
    progress: &Progress,
) -> Result<Report, ImageError> {
    // A file that cannot be changed afterwards would be found out an upload too late.
    Variables::read(&options.directory)?;
    // So would a second disk that is no disk: first a glance at all, then all of each.
    for folder in &folders {
        open(folder)?;
    }
    let mut disks = Vec::new();
    for folder in folders {
        disks.push(read(folder, progress).await?);
    }
    let ebs = Ebs::new(target.cloud.region()).await;
    let mut images = Vec::new();
    for read in &disks {
        let work = Work {
            target,
            ebs: &ebs,
            read,
            options,
            progress,
        };
        images.push(work.publish().await?);
    }
    let ids = images.iter().map(|one| (one.role, one.image.clone()));
    let is_file_changed =
        Variables::update(&options.directory, &ids.collect()).map_err(ImageError::NotListed)?;
    Ok(Report {
        account: target.account.clone(),
        region: target.cloud.region().to_owned(),
        images,
        file: options.directory.join(FILE),
        is_file_changed,
    })
}

fn open(folder: &Folder) -> Result<Disk, ImageError> {
    let path = folder.path.join(&folder.info.file);
    Ok(Disk::open(&path, folder.info.logical_bytes)?)
}

async fn read(folder: Folder, progress: &Progress) -> Result<Read, ImageError> {
    let disk = Arc::new(open(&folder)?);
    let (reading, shown, role) = (Arc::clone(&disk), progress.clone(), folder.info.role);
    let what = format!("reading the {role}'s image");
    let manifest = spawn_blocking(move || {
        Manifest::of(&reading, |done| shown.portion(&what, done, reading.bytes()))
    });
    let manifest = manifest
        .await
        .map_err(|error| disk.unreadable("read", error.into()))??;
    Ok(Read {
        content: manifest.content(),
        info: folder.info,
        disk,
        manifest,
    })
}

struct Work<'a> {
    target: &'a Target,
    ebs: &'a Ebs,
    read: &'a Read,
    options: &'a Options,
    progress: &'a Progress,
}

/// What to do about the snapshot.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// It is complete.
    Register(String),
    /// It is pending, and has these blocks.
    Resume(String, BTreeSet<u32>),
    /// EBS may have begun it, and answers with its id if it has.
    AskAgain(NewSnapshot),
    /// There is none; the reason, where one had been begun.
    Begin(Option<String>),
}

/// `snapshots` are those with this content, role and system.
fn decide(unfinished: Option<Unfinished>, content: &Content, snapshots: &[Snapshot]) -> Next {
    let is_complete =
        |one: &&Snapshot| one.state == "completed" && !one.tags.contains_key(tags::PRUNED);
    let complete = snapshots.iter().filter(is_complete);
    if let Some(newest) = complete.max_by_key(|one| one.started_at) {
        return Next::Register(newest.id.clone());
    }
    let Some(unfinished) = unfinished else {
        return Next::Begin(None);
    };
    let named = unfinished.snapshot.as_deref().unwrap_or("a snapshot");
    if unfinished.begun.content != content.as_str() {
        return Next::Begin(Some(format!(
            "{named} was begun for other content and is left: EBS gives it up after a day, and `drawbridge image prune` removes it"
        )));
    }
    let Some(id) = unfinished.snapshot else {
        return Next::AskAgain(unfinished.begun.new);
    };
    match snapshots.iter().find(|one| one.id == id) {
        Some(one) if one.state == "pending" => Next::Resume(id, unfinished.confirmed),
        Some(one) => Next::Begin(Some(format!(
            "{id}, begun by an earlier run, is {} now",
            one.state
        ))),
        None => Next::Begin(Some(format!("{id}, begun by an earlier run, is gone"))),
    }
}

impl Work<'_> {
    async fn publish(&self) -> Result<Published, ImageError> {
        let start = Instant::now();
        let Read {
            info,
            manifest,
            content,
            ..
        } = self.read;
        let mut published = Published {
            role: info.role,
            system: info.system,
            image: String::new(),
            snapshot: None,
            outcome: Outcome::Existed,
            content: content.to_string(),
            bytes: manifest.bytes,
            blocks: manifest.blocks.len(),
            sent: 0,
            seconds: 0.0,
            bytes_per_second: None,
        };
        self.progress
            .begin(&format!("looking for the {}'s image", info.role));
        let mut journal = Journal::take(self.journal())?;
        if let Some(image) = self.image().await? {
            published.snapshot = image.snapshots.into_iter().next();
            published.image = image.id;
        } else {
            let snapshot = self.snapshot(&mut journal, &mut published).await?;
            published.image = self.register(&snapshot).await?;
            published.snapshot = Some(snapshot);
        }
        self.await_available(&published.image).await?;
        journal.end()?;
        published.seconds = start.elapsed().as_secs_f64();
        Ok(published)
    }

    fn journal(&self) -> PathBuf {
        let info = &self.read.info;
        let (account, region) = (&self.target.account, self.target.cloud.region());
        let name = format!("{}-{}-{account}-{region}.jsonl", info.role, info.system);
        let directory = &self.options.directory;
        let beside = directory.parent().unwrap_or(directory);
        beside.join(".drawbridge/publish").join(name)
    }

    /// The AMI of this content.
    async fn image(&self) -> Result<Option<Image>, ImageError> {
        let identity = tags::identity(&self.read.info, &self.read.content);
        let images = self.target.cloud.images(&identity).await?;
        Ok(images.into_iter().max_by_key(|image| image.created_at))
    }

    async fn snapshots(&self) -> Result<Vec<Snapshot>, ImageError> {
        let identity = tags::identity(&self.read.info, &self.read.content);
        Ok(self.target.cloud.snapshots(&identity).await?)
    }

    /// A completed snapshot of this content.
    async fn snapshot(
        &self,
        journal: &mut Journal,
        published: &mut Published,
    ) -> Result<String, ImageError> {
        let Read {
            info,
            disk,
            manifest,
            content,
        } = self.read;
        let role = info.role;
        let next = decide(journal.read()?, content, &self.snapshots().await?);
        let (id, confirmed) = match next {
            Next::Register(id) => {
                self.progress.say(&format!(
                    "{role}: {id} holds it already, nothing is uploaded"
                ));
                published.outcome = Outcome::Registered;
                return Ok(id);
            }
            Next::Resume(id, confirmed) => {
                self.progress.say(&format!(
                    "{role}: going on with {id}, which has {} of {} blocks",
                    confirmed.len(),
                    manifest.blocks.len()
                ));
                published.outcome = Outcome::Resumed;
                (id, confirmed)
            }
            Next::AskAgain(new) => (self.start(&new, journal).await?, BTreeSet::new()),
            Next::Begin(reason) => {
                if let Some(reason) = reason {
                    self.progress
                        .say(&format!("{role}: beginning anew: {reason}"));
                }
                let new = self.new_snapshot();
                journal.begin(&Begun {
                    content: content.to_string(),
                    new: new.clone(),
                })?;
                (self.start(&new, journal).await?, BTreeSet::new())
            }
        };
        if published.outcome != Outcome::Resumed {
            published.outcome = Outcome::Uploaded;
        }
        let upload = Upload {
            ebs: self.ebs,
            disk,
            manifest,
            snapshot: &id,
            at_a_time: self.options.at_a_time,
        };
        let (start, total) = (Instant::now(), manifest.data_bytes());
        let what = format!("uploading the {role}'s image");
        let before = confirmed.len();
        published.sent = upload
            .run(&confirmed, journal, |sent| {
                let done = (before + sent) as u64 * BLOCK;
                self.progress.portion(&what, done, total);
            })
            .await?;
        if published.sent > 0 {
            let bytes = published.sent as f64 * BLOCK as f64;
            published.bytes_per_second = Some((bytes / start.elapsed().as_secs_f64()) as u64);
        }
        disk.check_unchanged("uploaded")?;
        self.progress.begin(&format!("completing {id}"));
        let completed = self
            .ebs
            .complete(&id, manifest.blocks.len(), &manifest.linear())
            .await;
        match completed {
            // An earlier run may have been ended after it asked for this: then it is done, or being done. If it does not
            // come to be, the refusal was meant.
            Err(error) if published.sent == 0 && !error.is_about_access() => {
                self.progress.say(&format!("{role}: {error}"));
                let done = self.await_completed(&id, REFUSED_COMPLETION_LIMIT).await;
                done.map_err(|_| error)?;
            }
            completed => {
                completed?;
                self.await_completed(&id, COMPLETION_LIMIT).await?;
            }
        }
        Ok(id)
    }

    fn new_snapshot(&self) -> NewSnapshot {
        let Read {
            info,
            manifest,
            content,
            ..
        } = self.read;
        NewSnapshot {
            token: token(),
            gib: manifest.gib(),
            description: tags::name(info, content),
            tags: tags::all(info, content, &self.options.source),
            idle: IDLE,
        }
    }

    async fn start(&self, new: &NewSnapshot, journal: &mut Journal) -> Result<String, ImageError> {
        let (snapshot, answered) = self.ebs.start(new).await?;
        if i64::from(answered) != BLOCK as i64 {
            return Err(ImageError::BlockSize { snapshot, answered });
        }
        journal.note_snapshot(&snapshot)?;
        Ok(snapshot)
    }

    async fn await_completed(&self, id: &str, limit: Duration) -> Result<(), ImageError> {
        let what = format!("{id} to be completed");
        self.await_state(&what, limit, async || {
            let all = self.snapshots().await?;
            let found = all.into_iter().find(|one| one.id == id);
            let state = found.map_or_else(|| "gone".to_owned(), |one| one.state);
            match state.as_str() {
                "completed" => Ok(None),
                // EC2's lists may lag behind.
                "pending" | "gone" => Ok(Some(state)),
                _ => Err(ImageError::Lost {
                    snapshot: id.to_owned(),
                    state,
                }),
            }
        })
        .await
    }

    async fn register(&self, snapshot: &str) -> Result<String, ImageError> {
        let Read { info, content, .. } = self.read;
        self.progress
            .begin(&format!("registering the {}'s image", info.role));
        let name = tags::name(info, content);
        let description = format!("Drawbridge {}, NixOS {}", info.role, info.label);
        let description: String = description.chars().filter(|c| !c.is_control()).collect();
        let new = NewImage {
            name: &name,
            description: &description,
            architecture: info.system.architecture(),
            boot_mode: info.boot_mode.as_str(),
            snapshot,
            tags: &tags::all(info, content, &self.options.source),
        };
        match self.target.cloud.register_image(&new).await {
            Ok(image) => Ok(image),
            // The answer to an attempt that succeeded was lost, or somebody else was faster.
            Err(error) => match self.image().await? {
                Some(image) => Ok(image.id),
                None => Err(error.into()),
            },
        }
    }

    async fn await_available(&self, id: &str) -> Result<(), ImageError> {
        let what = format!("{id} to be available");
        self.await_state(&what, AVAILABLE_LIMIT, async || {
            let image = self.image().await?;
            let image = image.filter(|image| image.id == id);
            let state = image.map_or_else(|| "not listed".to_owned(), |image| image.state);
            match state.as_str() {
                "available" => Ok(None),
                "pending" | "transient" | "not listed" => Ok(Some(state)),
                _ => Err(ImageError::BadImage {
                    image: id.to_owned(),
                    state,
                }),
            }
        })
        .await
    }

    /// Looks until `look` sees nothing any more that has to be waited for.
    async fn await_state(
        &self,
        what: &str,
        limit: Duration,
        look: impl AsyncFn() -> Result<Option<String>, ImageError>,
    ) -> Result<(), ImageError> {
        self.progress.line(&format!("waiting for {what}"));
        // Ctrl-C ends all of this from outside.
        let seen = until(limit, LOOK_EVERY, &Interrupt::never(), || async {
            match look().await {
                Ok(Some(seen)) => Err(format!("waited for {what}; last seen: {seen}")),
                Ok(None) => Ok(Ok(())),
                Err(error) => Ok(Err(error)),
            }
        })
        .await;
        seen.map_err(ImageError::GaveUp)?
    }
}

/// What makes two requests one: for each begin another, of 256 bits nobody guesses.
fn token() -> String {
    use ring::rand::{SecureRandom as _, SystemRandom};
    let mut bytes = [0; 32];
    // Where the kernel has no randomness, the time does: it only has to differ.
    if SystemRandom::new().fill(&mut bytes).is_err() {
        let now = time::OffsetDateTime::now_utc().unix_timestamp_nanos();
        bytes[..16].copy_from_slice(&now.to_le_bytes());
    }
    hex(&bytes)
}

#[cfg(test)]
#[path = "publish_tests.rs"]
mod tests;
