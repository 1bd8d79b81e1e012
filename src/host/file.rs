//! Writing files so that a kill or power cut leaves the old one or the new one, never half of it.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{
    DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink,
};
use std::path::{Path, PathBuf};

/// Owner of a file: user and group id.
pub type Owner = (u32, u32);

/// A file could not be written or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct FileError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl FileError {
    /// For `map_err`: names what was being done to which file.
    pub fn while_doing(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| FileError {
            action,
            path,
            source,
        }
    }
}

/// Replaces a file. It has its final owner and mode before it has its name, and is on disk when this returns.
pub fn write(
    path: &Path,
    content: &[u8],
    mode: u32,
    owner: Option<Owner>,
) -> Result<(), FileError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let folder = path.parent().unwrap_or(Path::new("/"));
    let draft = folder.join(format!(".{name}.new"));
    let put = || -> io::Result<()> {
        let _ = fs::remove_file(&draft);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)?;
        file.write_all(content)?;
        settle(&draft, mode, owner)?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        File::open(folder)?.sync_all()
    };
    put().map_err(FileError::while_doing("write", path))
}

/// Makes a folder (and what is above it) with this mode and owner, whether or not it was there.
pub fn folder(path: &Path, mode: u32, owner: Option<Owner>) -> Result<(), FileError> {
    let make = || -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o755).create(path)?;
        settle(path, mode, owner)
    };
    make().map_err(FileError::while_doing("make the folder", path))
}

/// Gives a file or folder this mode and owner. What is right already is left alone: in the images bootstrap may not give
/// files away, and gets the group from a setgid folder, whose bit stays.
fn settle(path: &Path, mode: u32, owner: Option<Owner>) -> io::Result<()> {
    let now = fs::metadata(path)?;
    if let Some((user, group)) = owner
        && (now.uid(), now.gid()) != (user, group)
    {
        chown(path, Some(user), Some(group))?;
    }
    if now.mode() & 0o777 != mode {
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// The file's text, or nothing where there is no such file.
pub fn read(path: &Path) -> Result<Option<String>, FileError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::while_doing("read", path)(error)),
    }
}

/// Makes or replaces a symbolic link in one rename; it is on disk when this returns.
pub fn link(path: &Path, target: &Path) -> Result<(), FileError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let folder = path.parent().unwrap_or(Path::new("/"));
    let draft = folder.join(format!(".{name}.new"));
    let put = || -> io::Result<()> {
        let _ = fs::remove_file(&draft);
        symlink(target, &draft)?;
        fs::rename(&draft, path)?;
        File::open(folder)?.sync_all()
    };
    put().map_err(FileError::while_doing("make the link", path))
}

/// Removes a file, a link, or a folder with all in it; it need not be there.
pub fn remove(path: &Path) -> Result<(), FileError> {
    let is_folder = path.symlink_metadata().is_ok_and(|found| found.is_dir());
    let removed = if is_folder {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FileError::while_doing("remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_with_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/key");
        folder(path.parent().unwrap(), 0o750, None).unwrap();
        // A draft that a kill left behind, readable by others, is not reused.
        fs::write(path.with_file_name(".key.new"), "half").unwrap();
        write(&path, b"one", 0o644, None).unwrap();
        write(&path, b"two", 0o600, None).unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("two"));
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(read(&path).unwrap(), None);
    }

    #[test]
    fn a_folder_that_is_right_keeps_what_it_hands_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shared");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o2750)).unwrap();
        let mode = || fs::metadata(&path).unwrap().mode() & 0o7777;
        folder(&path, 0o750, None).unwrap();
        assert_eq!(mode(), 0o2750);
        folder(&path, 0o700, None).unwrap();
        assert_eq!(mode() & 0o777, 0o700);
    }

    #[test]
    fn a_link_is_replaced_and_removed_without_what_it_leads_to() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("current");
        for slot in ["one", "two"] {
            folder(&dir.path().join(slot), 0o755, None).unwrap();
            // What a kill before the rename leaves.
            symlink("nowhere", dir.path().join(".current.new")).ok();
            link(&at, Path::new(slot)).unwrap();
            assert_eq!(fs::read_link(&at).unwrap(), Path::new(slot));
        }
        remove(&at).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_failure_names_the_file() {
        let error = write(Path::new("/proc/nowhere/key"), b"", 0o600, None).unwrap_err();
        assert_eq!(error.to_string(), "cannot write /proc/nowhere/key");
    }
}
