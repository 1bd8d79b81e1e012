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

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::symlink;

    use ring::digest::{SHA256, digest};

    use super::*;

    /// What `nix-hash --type sha256` says of the tree below.
    const BY_NIX: &str = "2d73096ff3b7a76e2442cc6360d1fa729d8bc7215dcbd0960af1b72af3423e9a";

    #[test]
    fn an_archive_is_the_one_that_nix_makes() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("t");
        fs::create_dir_all(tree.join("bin")).unwrap();
        fs::create_dir(tree.join("none")).unwrap();
        fs::write(tree.join("bin/run"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(tree.join("bin/run"), Permissions::from_mode(0o755)).unwrap();
        fs::write(tree.join("empty"), "").unwrap();
        fs::write(tree.join("eight"), "eight by").unwrap();
        symlink("bin/run", tree.join("link")).unwrap();
        let mut archive = Vec::new();
        pack(&tree, &mut archive).unwrap();
        let hash = digest(&SHA256, &archive);
        let hash: String = hash
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(hash, BY_NIX);
    }
}
