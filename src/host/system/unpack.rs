//! Writes a Nix archive (NAR) to the disk as Nix itself would: mode 0444 or 0555, times at 1 January 1970 and a second.
//!
//! The archive comes from outside. Names are only ever created below the folder that was just made, in ascending order,
//! so that none can lead out, replace another, or pass through a link.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use std::ffi::OsStr;

/// Folders in each other; nixpkgs stays below thirty.
const DEEPEST: usize = 128;
/// Longest name of a file, and longest target of a link, that Linux takes.
const LONGEST_NAME: u64 = 255;
const LONGEST_TARGET: u64 = 4095;
/// Longest word of the format's own.
const LONGEST_WORD: u64 = 16;
/// What every file of the store is dated.
const TIME: TimeSpec = TimeSpec::new(1, 0);

/// Why an archive was not written.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The bytes ended too early, or could not be read or written.
    #[error("the archive breaks off, or cannot be read or written")]
    Io(#[from] io::Error),
    /// The bytes are no archive, or one that means harm.
    #[error("not an archive of Nix: {0}")]
    Malformed(String),
}

fn malformed<T>(why: impl Into<String>) -> Result<T, UnpackError> {
    Err(UnpackError::Malformed(why.into()))
}

/// Reads one archive and creates it at `target`, which must not be there.
///
/// # Errors
/// [`UnpackError`]; what was written until then stays.
pub fn unpack(input: &mut impl Read, target: &Path) -> Result<(), UnpackError> {
    expect(input, b"nix-archive-1")?;
    expect(input, b"(")?;
    node(input, target, 0)
}

/// After `(`; reads the closing one.
fn node(input: &mut impl Read, target: &Path, depth: usize) -> Result<(), UnpackError> {
    if depth > DEEPEST {
        return malformed(format!("more than {DEEPEST} folders in each other"));
    }
    expect(input, b"type")?;
    match word(input)?.as_slice() {
        b"regular" => regular(input, target),
        b"symlink" => link(input, target),
        b"directory" => directory(input, target, depth),
        other => malformed(format!("no such type: {}", shown(other))),
    }
}

fn regular(input: &mut impl Read, target: &Path) -> Result<(), UnpackError> {
    let mut next = word(input)?;
    let mode = if next == b"executable" {
        expect(input, b"")?;
        next = word(input)?;
        0o555
    } else {
        0o444
    };
    if next != b"contents" {
        return malformed(format!("{} where a file's contents begin", shown(&next)));
    }
    let length = number(input)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(target)?;
    if io::copy(&mut input.by_ref().take(length), &mut file)? != length {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    padding(input, length)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    drop(file);
    dated(target)?;
    expect(input, b")")
}

fn link(input: &mut impl Read, target: &Path) -> Result<(), UnpackError> {
    expect(input, b"target")?;
    let to = bytes(input, LONGEST_TARGET)?;
    if to.is_empty() || to.contains(&0) {
        return malformed("a link to nowhere");
    }
    symlink(OsStr::from_bytes(&to), target)?;
    dated(target)?;
    expect(input, b")")
}

fn directory(input: &mut impl Read, target: &Path, depth: usize) -> Result<(), UnpackError> {
    fs::create_dir(target)?;
    let mut last = Vec::new();
    loop {
        match word(input)?.as_slice() {
            b")" => break,
            b"entry" => {}
            other => return malformed(format!("{} in a folder", shown(other))),
        }
        expect(input, b"(")?;
        expect(input, b"name")?;
        let name = bytes(input, LONGEST_NAME)?;
        let leads_out = [&b""[..], b".", b".."].contains(&name.as_slice());
        if leads_out || name.contains(&b'/') || name.contains(&0) {
            return malformed(format!("{} is no name of a file", shown(&name)));
        }
        if name <= last {
            return malformed(format!("{} comes after {}", shown(&name), shown(&last)));
        }
        expect(input, b"node")?;
        expect(input, b"(")?;
        node(input, &target.join(OsStr::from_bytes(&name)), depth + 1)?;
        expect(input, b")")?;
        last = name;
    }
    fs::set_permissions(target, Permissions::from_mode(0o555))?;
    dated(target)?;
    Ok(())
}

fn dated(path: &Path) -> io::Result<()> {
    utimensat(
        AT_FDCWD,
        path,
        &TIME,
        &TIME,
        UtimensatFlags::NoFollowSymlink,
    )
    .map_err(io::Error::from)
}

fn number(input: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    input.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn padding(input: &mut impl Read, length: u64) -> Result<(), UnpackError> {
    let mut rest = [0; 8];
    let rest = &mut rest[..length.wrapping_neg() as usize % 8];
    input.read_exact(rest)?;
    match rest.iter().all(|byte| *byte == 0) {
        true => Ok(()),
        false => malformed("padding that is not zero"),
    }
}

/// Bytes with their length before them, which is at most `limit`.
fn bytes(input: &mut impl Read, limit: u64) -> Result<Vec<u8>, UnpackError> {
    let length = number(input)?;
    if length > limit {
        return malformed(format!("{length} bytes where {limit} is the most"));
    }
    let mut read = vec![0; length as usize];
    input.read_exact(&mut read)?;
    padding(input, length)?;
    Ok(read)
}

fn word(input: &mut impl Read) -> Result<Vec<u8>, UnpackError> {
    bytes(input, LONGEST_WORD)
}

fn expect(input: &mut impl Read, wanted: &[u8]) -> Result<(), UnpackError> {
    let found = word(input)?;
    if found == wanted {
        Ok(())
    } else {
        malformed(format!("{} in place of {}", shown(&found), shown(wanted)))
    }
}

fn shown(bytes: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(bytes))
}

/// The whole of a file or folder goes, whatever its modes.
pub fn remove(path: &Path) -> io::Result<()> {
    let Ok(found) = path.symlink_metadata() else {
        return Ok(());
    };
    if !found.is_dir() {
        return fs::remove_file(path);
    }
    // Root may write into a folder of mode 0555; others may not.
    fs::set_permissions(path, Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(path)? {
        remove(&entry?.path())?;
    }
    fs::remove_dir(path)
}

/// Waits until everything that was written to the file system of `path` is on the disk.
pub fn sync(path: &Path) -> io::Result<()> {
    nix::unistd::syncfs(File::open(path)?).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn text(bytes: &[u8]) -> Vec<u8> {
        let mut out = (bytes.len() as u64).to_le_bytes().to_vec();
        out.extend(bytes);
        out.resize(out.len().next_multiple_of(8), 0);
        out
    }

    fn words(words: &[&[u8]]) -> Vec<u8> {
        words.iter().flat_map(|word| text(word)).collect()
    }

    const HEAD: [&[u8]; 2] = [b"nix-archive-1", b"("];

    fn archive(rest: &[&[u8]]) -> Vec<u8> {
        words(&[&HEAD, rest].concat())
    }

    fn folder(names: &[&[u8]]) -> Vec<u8> {
        let mut all = vec![&b"type"[..], b"directory"];
        for name in names {
            all.extend([&b"entry"[..], b"(", b"name", name, b"node", b"("]);
            all.extend([&b"type"[..], b"regular", b"contents", b"x", b")", b")"]);
        }
        all.push(b")");
        archive(&all)
    }

    fn tried(bytes: &[u8]) -> (tempfile::TempDir, Result<(), UnpackError>) {
        let dir = tempfile::tempdir().unwrap();
        let done = unpack(&mut &bytes[..], &dir.path().join("in/it"));
        (dir, done)
    }

    fn refused(bytes: &[u8]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("in");
        fs::create_dir(&inside).unwrap();
        let error = unpack(&mut &bytes[..], &inside.join("it")).unwrap_err();
        // Whatever it was, it wrote nowhere else.
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(fs::read_dir(&inside).unwrap().count() <= 1);
        error.to_string()
    }

    #[test]
    fn what_is_unpacked_has_the_modes_and_times_of_the_store() {
        let bytes = archive(&[
            b"type",
            b"directory",
            b"entry",
            b"(",
            b"name",
            b"bin",
            b"node",
            b"(",
            b"type",
            b"directory",
            b"entry",
            b"(",
            b"name",
            b"run",
            b"node",
            b"(",
            b"type",
            b"regular",
            b"executable",
            b"",
            b"contents",
            b"#!/bin/sh\n",
            b")",
            b")",
            b")",
            b")",
            b"entry",
            b"(",
            b"name",
            b"link",
            b"node",
            b"(",
            b"type",
            b"symlink",
            b"target",
            b"/nowhere/at all",
            b")",
            b")",
            b")",
        ]);
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("it");
        unpack(&mut &bytes[..], &at).unwrap();
        assert_eq!(fs::read(at.join("bin/run")).unwrap(), b"#!/bin/sh\n");
        assert_eq!(
            fs::read_link(at.join("link")).unwrap(),
            Path::new("/nowhere/at all")
        );
        for (name, mode) in [("", 0o555), ("bin", 0o555), ("bin/run", 0o555)] {
            let found = at.join(name).symlink_metadata().unwrap();
            assert_eq!((found.mode() & 0o7777, found.mtime()), (mode, 1), "{name}");
        }
        assert_eq!(at.join("link").symlink_metadata().unwrap().mtime(), 1);
        // The single file of another.
        let single = archive(&[b"type", b"regular", b"contents", b"", b")"]);
        let at = dir.path().join("single");
        unpack(&mut &single[..], &at).unwrap();
        assert_eq!(at.metadata().unwrap().mode() & 0o7777, 0o444);
        remove(&dir.path().join("it")).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        for name in [&b".."[..], b".", b"", b"a/b", b"/etc/passwd", b"a\0b"] {
            assert!(refused(&folder(&[name])).contains("is no name"), "{name:?}");
        }
        assert!(refused(&folder(&[&[b'a'; 256]])).contains("255 is the most"));
    }

    #[test]
    fn names_come_once_and_in_order_so_that_none_goes_through_a_link() {
        assert!(refused(&folder(&[b"b", b"a"])).contains("\"a\" comes after \"b\""));
        assert!(refused(&folder(&[b"a", b"a"])).contains("comes after"));
        let through = archive(&[
            b"type",
            b"directory",
            b"entry",
            b"(",
            b"name",
            b"a",
            b"node",
            b"(",
            b"type",
            b"symlink",
            b"target",
            b"..",
            b")",
            b")",
            b"entry",
            b"(",
            b"name",
            b"a",
            b"node",
            b"(",
            b"type",
            b"directory",
            b"entry",
            b"(",
            b"name",
            b"out",
            b"node",
            b"(",
            b"type",
            b"regular",
            b"contents",
            b"",
            b")",
            b")",
            b")",
            b")",
            b")",
        ]);
        assert!(refused(&through).contains("comes after"));
    }

    #[test]
    fn lengths_that_lie_end_it() {
        // A file of 2^63 bytes, a word of a gigabyte, a link beyond what Linux takes.
        let mut file = archive(&[b"type", b"regular", b"contents"]);
        file.extend((1_u64 << 63).to_le_bytes());
        file.extend(b"little");
        assert!(refused(&file).contains("breaks off"));
        let mut long = words(&HEAD);
        long.extend((1_u64 << 30).to_le_bytes());
        assert!(refused(&long).contains("16 is the most"));
        let target = [b'a'; 5000];
        let link = archive(&[b"type", b"symlink", b"target", &target, b")"]);
        assert!(refused(&link).contains("4095 is the most"));
        assert!(
            refused(&archive(&[b"type", b"symlink", b"target", b"", b")"])).contains("nowhere")
        );
    }

    #[test]
    fn every_truncation_and_every_other_word_is_refused() {
        let whole = folder(&[b"a", b"b"]);
        for end in 0..whole.len() {
            assert!(tried(&whole[..end]).1.is_err(), "{end}");
        }
        assert!(refused(&archive(&[b"type", b"fifo", b")"])).contains("no such type"));
        let odd = archive(&[
            b"type",
            b"regular",
            b"executable",
            b"yes",
            b"contents",
            b"",
            b")",
        ]);
        assert!(refused(&odd).contains("in place of"));
        let mut unclean = archive(&[b"type", b"regular", b"contents", b"x", b")"]);
        let end = unclean.len() - 17;
        unclean[end] = 1;
        assert!(refused(&unclean).contains("padding"));
        let mut deep = words(&HEAD);
        for _ in 0..=DEEPEST + 1 {
            deep.extend(words(&[
                b"type",
                b"directory",
                b"entry",
                b"(",
                b"name",
                b"d",
                b"node",
                b"(",
            ]));
        }
        assert!(refused(&deep).contains("folders in each other"));
    }
}
