//! What a disk holds, block by block: read once, before anything is begun.

use std::fmt;
use std::io;
use std::os::unix::fs::FileExt as _;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use ring::digest::{Context, SHA256, digest};

use super::disk::{BadDisk, Disk};

/// EBS's block: <https://docs.aws.amazon.com/ebs/latest/APIReference/API_StartSnapshot.html#API_StartSnapshot_ResponseSyntax>
pub const BLOCK: u64 = 512 * 1024;

/// What happens to the disk, for [`BadDisk`].
const DOING: &str = "read";

/// SHA-256 of a block, its end filled up with zeros.
pub type BlockHash = [u8; 32];

/// The blocks that hold something; all others are zeros, and zeros are what EBS has where nothing was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Size of the disk.
    pub bytes: u64,
    /// In the order of their index.
    pub blocks: Vec<(u32, BlockHash)>,
    /// How many bytes were read for it: holes were not.
    pub read_bytes: u64,
}

/// The name of a disk's content: what two files with the same bytes have in common, however sparse they are.
///
/// SHA-256 of `drawbridge image 1`, the size, and index and hash of every block that is not zeros, each on a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content(String);

impl Content {
    /// 64 hex digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Enough of it to tell images apart by name.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..16]
    }
}

impl fmt::Display for Content {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Manifest {
    /// Reads the disk; `read` hears how many bytes of it are behind, holes included. Blocks the
    /// thread.
    ///
    /// # Errors
    /// [`BadDisk::Changed`] when it is not the same at the end, and when it cannot be read.
    pub fn of(disk: &Disk, mut read: impl FnMut(u64)) -> Result<Self, BadDisk> {
        let mut manifest = Self {
            bytes: disk.bytes(),
            blocks: Vec::new(),
            read_bytes: 0,
        };
        let mut at = 0;
        while let Some(block) =
            next_data(disk, at).map_err(|error| disk.unreadable(DOING, error))?
        {
            let data = read_block(disk, block, DOING)?;
            manifest.read_bytes += BLOCK.min(disk.bytes() - u64::from(block) * BLOCK);
            if data.iter().any(|byte| *byte != 0) {
                manifest.blocks.push((block, hash(&data)));
            }
            at = (u64::from(block) + 1) * BLOCK;
            read(at.min(disk.bytes()));
        }
        disk.check_unchanged(DOING)?;
        Ok(manifest)
    }

    /// The name of all this.
    #[must_use]
    pub fn content(&self) -> Content {
        let mut whole = Context::new(&SHA256);
        whole.update(format!("drawbridge image 1\n{}\n", self.bytes).as_bytes());
        for (block, hash) in &self.blocks {
            whole.update(format!("{block} {}\n", hex(hash)).as_bytes());
        }
        Content(hex(whole.finish().as_ref()))
    }

    /// EBS's checksum of checksums, method LINEAR: SHA-256 of the hashes in the order of their blocks.
    #[must_use]
    pub fn linear(&self) -> BlockHash {
        let mut whole = Context::new(&SHA256);
        for (_, hash) in &self.blocks {
            whole.update(hash);
        }
        as_hash(whole.finish().as_ref())
    }

    /// The size of a volume that holds it, in GiB, which is how EBS counts.
    #[must_use]
    pub fn gib(&self) -> u64 {
        self.bytes.div_ceil(1 << 30)
    }

    /// What the blocks weigh when they are sent.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.blocks.len() as u64 * BLOCK
    }
}

/// The block, its end filled up with zeros; `doing` is `read` or `uploaded`, for the error.
///
/// # Errors
/// When it cannot be read.
pub fn read_block(disk: &Disk, block: u32, doing: &'static str) -> Result<Vec<u8>, BadDisk> {
    let start = u64::from(block) * BLOCK;
    let length = BLOCK.min(disk.bytes().saturating_sub(start));
    let mut data = vec![0; BLOCK as usize];
    disk.file()
        .read_exact_at(&mut data[..length as usize], start)
        .map_err(|error| disk.unreadable(doing, error))?;
    Ok(data)
}

/// SHA-256.
#[must_use]
pub fn hash(data: &[u8]) -> BlockHash {
    as_hash(digest(&SHA256, data).as_ref())
}

fn as_hash(bytes: &[u8]) -> BlockHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(bytes);
    hash
}

/// Lower-case hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first block at or after byte `at`, the start of a block, that is not a hole altogether.
fn next_data(disk: &Disk, at: u64) -> io::Result<Option<u32>> {
    if at >= disk.bytes() {
        return Ok(None);
    }
    let offset = i64::try_from(at).map_err(io::Error::other)?;
    let found = match lseek(disk.file(), offset, Whence::SeekData) {
        Ok(found) => u64::try_from(found).map_err(io::Error::other)?,
        // Nothing but a hole up to the end.
        Err(Errno::ENXIO) => return Ok(None),
        // A file system that knows no holes.
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => at,
        Err(error) => return Err(error.into()),
    };
    if found >= disk.bytes() {
        return Ok(None);
    }
    u32::try_from(found / BLOCK)
        .map(Some)
        .map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::Path;

    use super::*;

    const SIZE: u64 = 40 * BLOCK + 1024;

    /// Data in blocks 0, 7 and the last, which is not a whole one; written zeros in 8; holes elsewhere.
    fn write(path: &Path, is_sparse: bool) {
        let file = File::create(path).unwrap();
        if is_sparse {
            file.set_len(SIZE).unwrap();
        } else {
            file.write_all_at(&vec![0; SIZE as usize], 0).unwrap();
        }
        let mut first = [0; 512];
        (first[450], first[454], first[458]) = (0x83, 1, 1);
        first[510..].copy_from_slice(&[0x55, 0xaa]);
        file.write_all_at(&first, 0).unwrap();
        file.write_all_at(b"x", 7 * BLOCK + 5).unwrap();
        file.write_all_at(&vec![0; BLOCK as usize], 8 * BLOCK)
            .unwrap();
        file.write_all_at(b"end", SIZE - 3).unwrap();
    }

    fn manifest(is_sparse: bool) -> Manifest {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.img");
        write(&path, is_sparse);
        Manifest::of(&Disk::open(&path, SIZE).unwrap(), |_| {}).unwrap()
    }

    #[test]
    fn zeros_are_left_out_and_holes_are_not_read() {
        let [sparse, full] = [true, false].map(manifest);
        let blocks: Vec<_> = sparse.blocks.iter().map(|(block, _)| *block).collect();
        assert_eq!(blocks, [0, 7, 40]);
        assert_eq!(sparse.content(), full.content());
        assert_eq!((sparse.gib(), sparse.data_bytes()), (1, 3 * BLOCK));
        assert_eq!(full.read_bytes, SIZE);
        // Blocks 0, 7, 8 and the end.
        assert_eq!(sparse.read_bytes, 3 * BLOCK + 1024);
    }

    #[test]
    fn the_content_is_known_by_every_block_its_place_and_the_size() {
        let one = manifest(true);
        let mut others = vec![one.clone(), one.clone(), one.clone()];
        others[0].blocks[1].1[31] ^= 1;
        others[1].blocks[1].0 = 6;
        others[2].bytes += 512;
        for other in others {
            assert_ne!(one.content(), other.content());
        }
        assert_eq!(one.content().as_str().len(), 64);
    }

    #[test]
    fn a_disk_that_grows_while_it_is_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.img");
        write(&path, true);
        let disk = Disk::open(&path, SIZE).unwrap();
        let grow = |_| {
            let file = File::options().write(true).open(&path).unwrap();
            file.set_len(SIZE + 512).unwrap();
        };
        let bad = Manifest::of(&disk, grow).unwrap_err();
        assert!(
            bad.to_string().contains("changed while it was read"),
            "{bad}"
        );
    }
}
