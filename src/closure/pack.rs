//! Writes a path of a store as a Nix archive (NAR): what `nix-store --dump` does, for where there is no Nix.

use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Nix on macOS adds this and a number to names that a file system without regard to case would mix up.
const CASE_HACK: &[u8] = b"~nix~case~hack~";

/// Writes the archive of what is at `path`.
///
/// # Errors
/// If something cannot be read or written, or is neither file, folder nor link.
pub fn pack(path: &Path, out: &mut impl Write) -> io::Result<()> {
    word(out, b"nix-archive-1")?;
    node(path, out)
}

fn node(path: &Path, out: &mut impl Write) -> io::Result<()> {
    let found = path.symlink_metadata()?;
    words(out, &[b"(", b"type"])?;
    if found.is_symlink() {
        let target = fs::read_link(path)?;
        words(out, &[b"symlink", b"target", target.as_os_str().as_bytes()])?;
    } else if found.is_dir() {
        word(out, b"directory")?;
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            let name = entry?.file_name().into_vec();
            names.push((plain(&name).to_vec(), name));
        }
        names.sort();
        for (plain, name) in names {
            words(out, &[b"entry", b"(", b"name", &plain, b"node"])?;
            node(&path.join(std::ffi::OsStr::from_bytes(&name)), out)?;
            word(out, b")")?;
        }
    } else if found.is_file() {
        word(out, b"regular")?;
        if found.permissions().mode() & 0o100 != 0 {
            words(out, &[b"executable", b""])?;
        }
        word(out, b"contents")?;
        contents(path, out)?;
    } else {
        let what = format!("{} is neither file, folder nor link", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    word(out, b")")
}

fn contents(path: &Path, out: &mut impl Write) -> io::Result<()> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    out.write_all(&length.to_le_bytes())?;
    if io::copy(&mut file.take(length), out)? != length {
        let what = format!("{} was cut short while it was read", path.display());
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
    }
    pad(out, length)
}

fn plain(name: &[u8]) -> &[u8] {
    let hack = |at: &usize| name[*at..].starts_with(CASE_HACK);
    match (0..name.len()).rfind(hack) {
        Some(at) if cfg!(target_os = "macos") => &name[..at],
        _ => name,
    }
}

fn words(out: &mut impl Write, words: &[&[u8]]) -> io::Result<()> {
    words.iter().try_for_each(|one| word(out, one))
}

fn word(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = bytes.len() as u64;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(bytes)?;
    pad(out, length)
}

fn pad(out: &mut impl Write, length: u64) -> io::Result<()> {
    out.write_all(&[0; 8][..length.wrapping_neg() as usize % 8])
}
