//! The store of a host: what it lacks, what is received into it, what may go.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::{FsFlags, statvfs};
use ring::digest::{Context, SHA256};

use super::unpack::{UnpackError, remove, sync, unpack};
use super::{SystemError, files};
use crate::appliance::store::{Closure, ClosurePath, NarHash, STORE, StorePath};
use crate::appliance::system::STREAM_MAGIC;
use crate::host::Host;
use crate::host::file::FileError;

/// Generations that are kept, the one that boots among them.
const KEPT: usize = 3;
/// Begins the name of what is not a path of the store yet, or no longer.
const DRAFT: &str = ".deploy-";
/// This much is received before it is made sure of at once: a lost connection costs at most that.
const SETTLE_BYTES: u64 = 64 << 20;
/// Left free on the disk: a host whose disk is full cannot even write its journal.
const SPARE_BYTES: u64 = 256 << 20;

/// Makes the store writable for this process alone: for everybody else it stays the read-only mount it is. To be called
/// while the process has one thread.
///
/// # Errors
/// If the kernel refuses.
pub fn open(host: &Host) -> Result<(), SystemError> {
    let store = host.path(STORE);
    let tried = || -> nix::Result<()> {
        if !statvfs(&store)?.flags().contains(FsFlags::ST_RDONLY) {
            return Ok(());
        }
        let none = None::<&str>;
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        let again = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
        mount(
            none,
            &store,
            none,
            again | MsFlags::MS_NODEV | MsFlags::MS_NOSUID,
            none,
        )
    };
    tried().map_err(|error| {
        let error = io::Error::from(error);
        FileError::while_doing("make writable", &store)(error).into()
    })
}

/// Paths of a closure that the host lacks.
pub fn missing<'a>(host: &Host, closure: &'a Closure) -> Vec<&'a ClosurePath> {
    let lacks = |one: &&ClosurePath| host.store(&one.path).symlink_metadata().is_err();
    closure.paths().iter().filter(lacks).collect()
}

/// Whether so many bytes of archives fit. A file takes whole blocks, hence the quarter.
///
/// # Errors
/// [`SystemError::NoRoom`].
pub fn check_room(host: &Host, bytes: u64) -> Result<(), SystemError> {
    let store = host.path(STORE);
    let found = statvfs(&store)
        .map_err(|error| FileError::while_doing("look at", &store)(io::Error::from(error)))?;
    let free = found.blocks_available() * found.fragment_size();
    let needed = bytes + bytes / 4 + SPARE_BYTES;
    if bytes > 0 && free < needed {
        return Err(SystemError::NoRoom { free, needed });
    }
    Ok(())
}

/// Receives a stream of archives: see [`STREAM_MAGIC`]. A path of it is there whole or not at all; what was received
/// before a connection broke off stays. Names each path that is there on `said`.
///
/// # Errors
/// The first thing that is wrong with the stream.
pub fn receive(
    host: &Host,
    closure: &Closure,
    input: &mut impl Read,
    said: &mut impl Write,
) -> Result<(), SystemError> {
    let mut receiver = Receiver {
        host,
        store: host.path(STORE),
        drafts: Vec::new(),
        bytes: 0,
    };
    receiver.sweep()?;
    let taken = receiver.take(closure, input, said);
    // A stream that broke off does not take what came before it with it.
    let settled = receiver.settle(said);
    taken.and(settled)
}

struct Receiver<'a> {
    host: &'a Host,
    store: PathBuf,
    drafts: Vec<StorePath>,
    bytes: u64,
}

impl Receiver<'_> {
    fn draft(&self, path: &StorePath) -> PathBuf {
        self.store.join(format!("{DRAFT}{}", path.name()))
    }

    /// Removes what a killed run left.
    fn sweep(&self) -> Result<(), SystemError> {
        sweep(&self.store)
            .map_err(|error| FileError::while_doing("clear", &self.store)(error).into())
    }

    fn take(
        &mut self,
        closure: &Closure,
        input: &mut impl Read,
        said: &mut impl Write,
    ) -> Result<(), SystemError> {
        let mut magic = [0; STREAM_MAGIC.len()];
        input.read_exact(&mut magic).map_err(SystemError::Stream)?;
        if magic != STREAM_MAGIC {
            return Err(SystemError::OtherStream);
        }
        let mut lacking: BTreeSet<StorePath> = missing(self.host, closure)
            .iter()
            .map(|one| one.path.clone())
            .collect();
        while let Some(name) = next_name(input).map_err(SystemError::Stream)? {
            let path = StorePath::named(&name)
                .ok()
                .filter(|path| lacking.remove(path));
            let known = |path| closure.paths().iter().find(|one| one.path == path);
            let Some(wanted) = path.and_then(known) else {
                return Err(SystemError::NotAskedFor(name));
            };
            self.one(wanted, input)?;
            self.bytes += wanted.nar_size;
            self.drafts.push(wanted.path.clone());
            if self.bytes >= SETTLE_BYTES {
                self.settle(said)?;
            }
        }
        Ok(())
    }

    fn one(&self, wanted: &ClosurePath, input: &mut impl Read) -> Result<(), SystemError> {
        let draft = self.draft(&wanted.path);
        let bad = |why: String| SystemError::BadPath {
            path: wanted.path.clone(),
            why,
        };
        let mut hashed = Hashed {
            input: input.take(wanted.nar_size),
            hash: Context::new(&SHA256),
        };
        let unpacked = unpack(&mut hashed, &draft);
        if let Err(error) = unpacked {
            let _ = remove(&draft);
            return Err(match error {
                UnpackError::Io(error) if hashed.input.limit() > 0 => SystemError::Stream(error),
                error => bad(crate::error_chain::chain(&error)),
            });
        }
        let rest = hashed.input.limit();
        let mut hash = NarHash([0; 32]);
        hash.0.copy_from_slice(hashed.hash.finish().as_ref());
        if rest == 0 && hash == wanted.nar_hash {
            return Ok(());
        }
        let _ = remove(&draft);
        Err(bad(if rest > 0 {
            format!("it ends {rest} bytes before it should")
        } else {
            format!("its hash is {hash} and not {}", wanted.nar_hash)
        }))
    }

    /// Gives the paths received so far their names, once they are on the disk: a power cut leaves no half path.
    fn settle(&mut self, said: &mut impl Write) -> Result<(), SystemError> {
        if self.drafts.is_empty() {
            return Ok(());
        }
        let wrong = |error| FileError::while_doing("write to", &self.store)(error);
        sync(&self.store).map_err(wrong)?;
        // Before they are there: what is written down here and is not there does no harm, the other way it would stay.
        let mut received = files::received(self.host)?;
        received.extend(self.drafts.iter().cloned());
        files::set_received(self.host, &received)?;
        for path in &self.drafts {
            fs::rename(self.draft(path), self.host.store(path)).map_err(wrong)?;
        }
        sync(&self.store).map_err(wrong)?;
        for path in self.drafts.drain(..) {
            // Whoever listens may have gone; the paths have come all the same.
            let _ = writeln!(said, "{path}");
        }
        let _ = said.flush();
        self.bytes = 0;
        Ok(())
    }
}

fn sweep(store: &Path) -> io::Result<()> {
    for entry in fs::read_dir(store)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(DRAFT) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn next_name(input: &mut impl Read) -> io::Result<Option<String>> {
    let mut length = [0];
    input.read_exact(&mut length)?;
    if length[0] == 0 {
        return Ok(None);
    }
    let mut name = vec![0; usize::from(length[0])];
    input.read_exact(&mut name)?;
    Ok(Some(String::from_utf8_lossy(&name).into_owned()))
}

/// Hashes what is read.
struct Hashed<R> {
    input: io::Take<R>,
    hash: Context,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}

/// Forgets all generations but the last ones, the one that boots and those that run, and removes what came by a deploy and
/// belongs to none that is kept, nor to `next`. Returns the bytes on disk that are free now.
///
/// # Errors
/// If a file cannot be read or removed; the next run goes on.
pub fn prune(host: &Host, next: Option<&Closure>) -> Result<u64, SystemError> {
    forget_old(host)?;
    let mut needed: BTreeSet<StorePath> = next.into_iter().flat_map(names).collect();
    for number in files::generations(host)?.into_keys() {
        if let Some(closure) = files::closure(host, number)? {
            needed.extend(names(&closure));
        }
    }
    let store = host.path(STORE);
    let mut received = files::received(host)?;
    let unneeded: Vec<StorePath> = received.difference(&needed).cloned().collect();
    let mut freed = 0;
    let wrong = |error| SystemError::from(FileError::while_doing("remove from", &store)(error));
    for path in unneeded {
        let (place, draft) = (
            host.store(&path),
            store.join(format!("{DRAFT}{}", path.name())),
        );
        if place.symlink_metadata().is_ok() {
            freed += size(&place).map_err(wrong)?;
            // In one step: half a path under its own name would be taken for the whole.
            remove(&draft).map_err(wrong)?;
            fs::rename(&place, &draft).map_err(wrong)?;
            remove(&draft).map_err(wrong)?;
        }
        received.remove(&path);
    }
    files::set_received(host, &received)?;
    Ok(freed)
}

fn names(closure: &Closure) -> impl Iterator<Item = StorePath> + '_ {
    closure.paths().iter().map(|one| one.path.clone())
}

/// Forgets generations beyond the last ones, but none that boots or runs.
pub fn forget_old(host: &Host) -> Result<(), SystemError> {
    let in_use: Vec<StorePath> = [files::current(host), files::booted(host)]
        .into_iter()
        .flatten()
        .collect();
    let boots = files::boots(host).map(|one| one.number);
    let generations = files::generations(host)?;
    let old = generations.len().saturating_sub(KEPT);
    for (number, toplevel) in generations.iter().take(old) {
        if Some(*number) != boots && !in_use.contains(toplevel) {
            files::forget(host, *number)?;
        }
    }
    Ok(())
}

fn size(path: &Path) -> io::Result<u64> {
    let found = path.symlink_metadata()?;
    let mut bytes = found.blocks() * 512;
    if found.is_dir() {
        for entry in fs::read_dir(path)? {
            bytes += size(&entry?.path())?;
        }
    }
    Ok(bytes)
}
