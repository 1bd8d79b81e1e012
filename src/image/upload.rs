//! The blocks' way into a snapshot: several at a time, each noted when EBS has confirmed it.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::task::{JoinSet, spawn_blocking};

use super::ImageError;
use super::disk::Disk;
use super::journal::Journal;
use super::manifest::{BlockHash, Manifest, hash, read_block};
use crate::cloud::ebs::Ebs;

/// What happens to the disk, for [`BadDisk`](super::BadDisk).
const DOING: &str = "uploaded";

/// What is sent, and where to.
#[derive(Debug)]
pub struct Upload<'a> {
    /// EBS.
    pub ebs: &'a Ebs,
    /// The disk that `manifest` is of.
    pub disk: &'a Arc<Disk>,
    /// Its blocks.
    pub manifest: &'a Manifest,
    /// `snap-…`, pending.
    pub snapshot: &'a str,
    /// How many blocks are on their way at a time; each takes half a MiB of memory.
    pub at_a_time: usize,
}

impl Upload<'_> {
    /// Sends what is not among `confirmed`, and notes each block in `journal`; `sent` hears how many have arrived. How
    /// many were sent.
    ///
    /// # Errors
    /// The first one that more attempts would not mend; what was confirmed until then is in the journal.
    pub async fn run(
        &self,
        confirmed: &BTreeSet<u32>,
        journal: &mut Journal,
        mut sent: impl FnMut(usize),
    ) -> Result<usize, ImageError> {
        let blocks = self.manifest.blocks.iter();
        let mut missing = blocks.filter(|(block, _)| !confirmed.contains(block));
        let mut count = 0;
        // Dropped, as by Ctrl-C, it ends what is on its way; those blocks are sent again by the next run.
        let mut under_way = JoinSet::new();
        loop {
            while under_way.len() < self.at_a_time {
                let Some((block, hash)) = missing.next() else {
                    break;
                };
                under_way.spawn(self.one(*block, *hash));
            }
            let Some(ended) = under_way.join_next().await else {
                return Ok(count);
            };
            let block = ended.map_err(|error| self.disk.unreadable(DOING, error.into()))??;
            journal.note_block(block)?;
            count += 1;
            sent(count);
        }
    }

    fn one(
        &self,
        block: u32,
        wanted: BlockHash,
    ) -> impl Future<Output = Result<u32, ImageError>> + Send + 'static {
        let (disk, ebs) = (Arc::clone(self.disk), self.ebs.clone());
        let snapshot = self.snapshot.to_owned();
        async move {
            let reading = Arc::clone(&disk);
            let read = spawn_blocking(move || {
                let data = read_block(&reading, block, DOING)?;
                if hash(&data) != wanted {
                    let what = format!("block {block} is not what it was");
                    return Err(reading.changed(DOING, what));
                }
                Ok(data)
            });
            let data = read
                .await
                .map_err(|error| disk.unreadable(DOING, error.into()))??;
            ebs.put(&snapshot, block, data, &wanted).await?;
            Ok(block)
        }
    }
}
