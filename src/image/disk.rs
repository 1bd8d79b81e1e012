//! The raw disk: what it must look like, and whether it is still the same file.
//!
//! What EC2 makes of a file that is not a raw disk is an image that registers well and never boots, so everything that
//! can be seen beforehand is looked at here.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

const SECTOR: u64 = 512;

/// An open raw disk that has been looked at.
#[derive(Debug)]
pub struct Disk {
    file: File,
    path: PathBuf,
    before: Print,
}

/// By what a changed file is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Print {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

/// Why a file is not published.
#[derive(Debug, thiserror::Error)]
pub enum BadDisk {
    /// What was uploaded of it is not made an image.
    #[error("cannot read {}: {problem}; build it anew with `nix build .#ami-ROLE`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// `read` or `uploaded`.
        doing: &'static str,
        /// Why.
        problem: io::Error,
    },
    /// Nothing was begun.
    #[error("{} is a folder or a device, not a file: name the folder that `nix build .#ami-ROLE` made", path.display())]
    NoFile {
        /// The file.
        path: PathBuf,
    },
    /// Nothing was begun.
    #[error("{} is empty: the build or the copy did not finish; build it anew with `nix build .#ami-ROLE`", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Nothing was begun.
    #[error("{} is {format}, and only a raw disk can become a snapshot: {remedy}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What it is.
        format: &'static str,
        /// What makes a raw disk of it.
        remedy: &'static str,
    },
    /// Nothing was begun.
    #[error("{} has {found} bytes where image-info.json says {wanted}: it is {}; copy or build it anew", path.display(), if found < wanted { "truncated, or still being written" } else { "still growing, or something was appended" })]
    Size {
        /// The file.
        path: PathBuf,
        /// Bytes.
        found: u64,
        /// Bytes.
        wanted: u64,
    },
    /// Nothing was begun.
    #[error("{} has {found} bytes, which is no multiple of 512, as the size of a disk is: it is truncated; copy or build it anew", path.display())]
    Odd {
        /// The file.
        path: PathBuf,
        /// Bytes.
        found: u64,
    },
    /// Nothing was begun.
    #[error("{} has no {missing}: it is not a disk that can boot, or not the beginning of one; name the folder that `nix build .#ami-ROLE` made", path.display())]
    NoDisk {
        /// The file.
        path: PathBuf,
        /// What every such disk has.
        missing: &'static str,
    },
    /// Nothing was begun.
    #[error("{} ends before its partitions do ({what}): it is truncated; copy or build it anew", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// What is missing.
        what: String,
    },
    /// What was uploaded of it is not made an image.
    #[error("{} changed while it was {doing} ({what}): {}run this again when nothing writes to it any more", path.display(), if *doing == "read" { "nothing was begun; " } else { "no image was made of it; " })]
    Changed {
        /// The file.
        path: PathBuf,
        /// `read` or `uploaded`.
        doing: &'static str,
        /// What is different.
        what: String,
    },
}

impl BadDisk {
    /// Whether nothing was begun.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        !matches!(self, Self::Changed { doing, .. } | Self::Unreadable { doing, .. } if *doing != "read")
    }
}

const QEMU: &str =
    "`qemu-img convert -O raw` makes one of it, or build it with `nix build .#ami-ROLE`";
const UNPACK: &str = "unpack it first, or build it with `nix build .#ami-ROLE`";

/// By their first bytes.
const FORMATS: [(&[u8], &str, &str); 11] = [
    (b"QFI\xfb", "a qcow2 image", QEMU),
    (b"vhdxfile", "a VHDX image", QEMU),
    (b"conectix", "a VHD image", QEMU),
    (b"KDMV", "a VMDK image", QEMU),
    (b"COWD", "a VMDK image", QEMU),
    (b"# Disk DescriptorFile", "a VMDK image's description", QEMU),
    (b"<<< ", "a VDI image", QEMU),
    (b"\x1f\x8b", "compressed with gzip", UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", UNPACK),
    (b"\xfd7zXZ\0", "compressed with xz", UNPACK),
    (b"BZh", "compressed with bzip2", UNPACK),
];

impl Disk {
    /// Opens the file and looks at it: `bytes` is what its size has to be.
    ///
    /// # Errors
    /// [`BadDisk`] that says what it is instead.
    pub fn open(path: &Path, bytes: u64) -> Result<Self, BadDisk> {
        let unreadable = |problem| BadDisk::Unreadable {
            path: path.to_owned(),
            doing: "read",
            problem,
        };
        let mut file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(BadDisk::NoFile {
                path: path.to_owned(),
            });
        }
        let before = Print::of(&metadata);
        let mut start = Vec::new();
        (&mut file)
            .take(2 * SECTOR)
            .read_to_end(&mut start)
            .map_err(unreadable)?;
        let read = |at: u64| {
            let mut sector = [0; SECTOR as usize];
            file.read_exact_at(&mut sector, at).map(|()| sector)
        };
        judge(path, before.bytes, bytes, &start, read)?;
        Ok(Self {
            file,
            path: path.to_owned(),
            before,
        })
    }

    /// Its size in bytes, holes included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.before.bytes
    }

    /// The open file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// For a read that failed while it was `doing`: `read` or `uploaded`.
    pub fn unreadable(&self, doing: &'static str, problem: io::Error) -> BadDisk {
        // Shorter than it was: the read met the end.
        if problem.kind() == io::ErrorKind::UnexpectedEof {
            return self.changed(doing, "it has become shorter");
        }
        BadDisk::Unreadable {
            path: self.path.clone(),
            doing,
            problem,
        }
    }

    /// For a difference that was seen while it was `doing`: `read` or `uploaded`.
    pub fn changed(&self, doing: &'static str, what: impl Into<String>) -> BadDisk {
        BadDisk::Changed {
            path: self.path.clone(),
            doing,
            what: what.into(),
        }
    }

    /// Sees that the file, and what its name leads to, is what it was when it was opened.
    ///
    /// # Errors
    /// [`BadDisk::Changed`] with what is different.
    pub fn check_unchanged(&self, doing: &'static str) -> Result<(), BadDisk> {
        let named = std::fs::metadata(&self.path);
        let now = named.map_err(|error| self.changed(doing, format!("it is gone: {error}")))?;
        let held = self
            .file
            .metadata()
            .map_err(|problem| self.unreadable(doing, problem))?;
        for print in [Print::of(&held), Print::of(&now)] {
            if let Some(what) = self.before.difference(print) {
                return Err(self.changed(doing, what));
            }
        }
        Ok(())
    }
}

impl Print {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }

    fn difference(self, now: Self) -> Option<String> {
        if (self.device, self.inode) != (now.device, now.inode) {
            Some("another file has its name".to_owned())
        } else if self.bytes != now.bytes {
            Some(format!("it had {} bytes and has {}", self.bytes, now.bytes))
        } else if self.modified != now.modified {
            Some("it was written to".to_owned())
        } else {
            None
        }
    }
}

fn judge(
    path: &Path,
    found: u64,
    wanted: u64,
    start: &[u8],
    read: impl Fn(u64) -> io::Result<[u8; SECTOR as usize]>,
) -> Result<(), BadDisk> {
    let path = || path.to_owned();
    if found == 0 {
        return Err(BadDisk::Empty { path: path() });
    }
    let known = FORMATS.iter().find(|(magic, ..)| start.starts_with(magic));
    if let Some((_, format, remedy)) = known {
        return Err(BadDisk::Format {
            path: path(),
            format,
            remedy,
        });
    }
    // A VHD of fixed size is a raw disk with this footer.
    let last = found.checked_sub(SECTOR).and_then(|at| read(at).ok());
    if last.is_some_and(|sector| sector.starts_with(b"conectix")) {
        return Err(BadDisk::Format {
            path: path(),
            format: "a VHD image of fixed size",
            remedy: QEMU,
        });
    }
    if found != wanted {
        return Err(BadDisk::Size {
            path: path(),
            found,
            wanted,
        });
    }
    if !found.is_multiple_of(SECTOR) {
        return Err(BadDisk::Odd {
            path: path(),
            found,
        });
    }
    if start.get(510..512) != Some(&[0x55, 0xaa]) {
        return Err(BadDisk::NoDisk {
            path: path(),
            missing: "boot signature (55 aa at the end of its first sector)",
        });
    }
    let truncated = |what: String| Err(BadDisk::Truncated { path: path(), what });
    let partitions = Partition::all(start);
    if partitions.is_empty() {
        return Err(BadDisk::NoDisk {
            path: path(),
            missing: "partition table",
        });
    }
    let sectors = found / SECTOR;
    if !partitions.iter().any(|partition| partition.kind == GPT) {
        return match partitions.iter().find(|one| one.end() > sectors) {
            Some(beyond) => truncated(format!(
                "a partition ends at sector {}, the file at {sectors}",
                beyond.end()
            )),
            None => Ok(()),
        };
    }
    if start.get(512..520) != Some(b"EFI PART") {
        return Err(BadDisk::NoDisk {
            path: path(),
            missing: "GPT where its protective MBR announces one",
        });
    }
    // The second header stands in the disk's last sector; the first one says where that is.
    let second = start.get(512 + 32..512 + 40).map_or(u64::MAX, number);
    let has_second = second < sectors
        && read(second * SECTOR).is_ok_and(|sector| sector.starts_with(b"EFI PART"));
    if !has_second {
        return truncated(format!(
            "the second GPT header belongs at sector {second}, the file ends at {sectors}"
        ));
    }
    Ok(())
}

/// The partition type that says: look at the GPT.
const GPT: u8 = 0xee;

struct Partition {
    kind: u8,
    first: u64,
    sectors: u64,
}

impl Partition {
    fn all(start: &[u8]) -> Vec<Self> {
        let entries = (0..4).filter_map(|entry| start.get(446 + entry * 16..462 + entry * 16));
        let read = entries.map(|entry| Self {
            kind: entry[4],
            first: number(&entry[8..12]),
            sectors: number(&entry[12..16]),
        });
        read.filter(|one| one.kind != 0 && one.sectors != 0)
            .collect()
    }

    fn end(&self) -> u64 {
        self.first + self.sectors
    }
}

/// Little-endian, as both kinds of tables have them.
fn number(bytes: &[u8]) -> u64 {
    let digits = bytes.iter().rev();
    digits.fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
