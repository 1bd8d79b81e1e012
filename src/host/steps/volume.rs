//! `volume`: the database's own EBS volume, which outlives the instance. A wrong move here destroys data, so the step
//! formats only what was never written to, and mounts only what is the database's.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::appliance::path;
use crate::appliance::user_data::VolumeId;
use crate::host::Host;
use crate::host::command::{self, CommandError};
use crate::host::file::{self, FileError, Owner};
use crate::host::wait::{GaveUp, Look, until};

/// Terraform attaches the volume after the instance runs, and EC2 takes up to minutes for it.
const ATTACH_LIMIT: Duration = Duration::from_secs(300);
const PROBE_LIMIT: Duration = Duration::from_secs(30);
/// mkfs writes a few megabytes whatever the size, mount replays the journal after a crash.
const MAKE_LIMIT: Duration = Duration::from_secs(300);
/// File systems, RAID, LVM, LUKS, ZFS and partition tables all keep something within this much of one of the ends.
const EDGE_BYTES: u64 = 1024 * 1024;
/// Names the volume that is being formatted; see [`prepare`].
pub const FORMATTING_NOTE: &str = "/var/lib/drawbridge/formatting";

/// Why the volume is not mounted.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// It did not appear.
    #[error("the volume is not attached; see aws_volume_attachment in terraform/")]
    NotAttached(#[source] GaveUp),
    /// The name leads to something else than a disk.
    #[error("{} is not a block device", .0.display())]
    NotADevice(PathBuf),
    /// It holds data that are not the database's.
    #[error(
        "the volume {volume} is neither blank nor the database's own ({seen}); it was not touched. If it is the database's, give its ext4 file system the label {}; else attach another volume",
        path::DATABASE_VOLUME_LABEL
    )]
    Foreign {
        /// The volume's id.
        volume: VolumeId,
        /// What is on it.
        seen: String,
    },
    /// Something is mounted where the volume belongs.
    #[error(
        "another file system is mounted at {}; unmount it, the database must live on volume {volume}",
        path::DATABASE_VOLUME
    )]
    Occupied {
        /// The volume's id.
        volume: VolumeId,
    },
    /// systemd said it had worked, and it had not.
    #[error(
        "the volume {volume} is not at {} although systemd started {}; see `systemctl status {}`",
        path::DATABASE_VOLUME,
        path::DATABASE_VOLUME_UNIT,
        path::DATABASE_VOLUME_UNIT
    )]
    NotMounted {
        /// The volume's id.
        volume: VolumeId,
    },
    /// A tool failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A file or the device could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// What is on a volume.
#[derive(Debug, PartialEq, Eq)]
enum Content {
    /// Zeros at both ends and no signature of any kind.
    Blank,
    /// The database's file system.
    Ours,
    /// Bytes that no tool knows.
    Unrecognised,
    /// A signature of something else.
    Foreign(String),
}

/// Waits for the volume, formats it for Postgres if it is blank, and mounts it.
pub async fn mount(host: &Host, volume: &VolumeId, owner: Owner) -> Result<(), VolumeError> {
    let device = wait_for_device(host, volume).await?;
    let target = host.path(path::DATABASE_VOLUME);
    if !target.is_dir() {
        file::folder(&target, 0o755, None)?;
    }
    if !is_mounted(&device, &target, volume)? {
        prepare(host, &device, volume, owner).await?;
        point_at(host, &device)?;
        // Mounted by systemd and not from here: this unit's own mounts are its own.
        let arguments = ["start", path::DATABASE_VOLUME_UNIT];
        command::run("systemctl", &arguments, None, MAKE_LIMIT)
            .await?
            .checked()?;
        if !is_mounted(&device, &target, volume)? {
            return Err(VolumeError::NotMounted {
                volume: volume.clone(),
            });
        }
    }
    Ok(())
}

/// Names the device for the mount unit, by the name the kernel gave it in this boot.
fn point_at(host: &Host, device: &Path) -> Result<(), FileError> {
    let device = device
        .canonicalize()
        .map_err(FileError::while_doing("look at", device))?;
    let link = host.path(path::DATABASE_VOLUME_LINK);
    if let Some(parent) = link.parent() {
        file::folder(parent, 0o755, None)?;
    }
    file::link(&link, &device)
}

async fn wait_for_device(host: &Host, volume: &VolumeId) -> Result<PathBuf, VolumeError> {
    let name = host.path(&volume.device());
    until(
        format!("the volume {volume}"),
        ATTACH_LIMIT,
        Duration::from_secs(2),
        async || match name.metadata() {
            Ok(found) if found.file_type().is_block_device() => Look::Done(Ok(name.clone())),
            Ok(_) => Look::Done(Err(VolumeError::NotADevice(name.clone()))),
            Err(error) => Look::NotYet(format!("{}: {error}", name.display())),
        },
    )
    .await
    .map_err(VolumeError::NotAttached)?
}

/// Whether the device is what is mounted at the target. By device number: names and links may differ.
fn is_mounted(device: &Path, target: &Path, volume: &VolumeId) -> Result<bool, VolumeError> {
    let number = |path: &Path| {
        path.metadata()
            .map_err(FileError::while_doing("look at", path))
    };
    let at_target = number(target)?.dev();
    if at_target == number(device)?.rdev() {
        return Ok(true);
    }
    let above = target.parent().unwrap_or(Path::new("/"));
    if at_target == number(above)?.dev() {
        return Ok(false);
    }
    Err(VolumeError::Occupied {
        volume: volume.clone(),
    })
}

/// Makes sure that the device holds the database's file system.
///
/// A kill in the middle of mkfs leaves a volume that is neither blank nor recognisable (its first superblock is written
/// last). So a note says beforehand which volume was blank and is being formatted; the next run then knows that what it
/// cannot recognise is nobody's data. A signature of another kind is refused all the same.
async fn prepare(
    host: &Host,
    device: &Path,
    volume: &VolumeId,
    owner: Owner,
) -> Result<(), VolumeError> {
    let note = host.path(FORMATTING_NOTE);
    let begun = file::read(&note)?.is_some_and(|noted| noted.trim() == volume.as_str());
    let refuse = |seen: String| {
        Err(VolumeError::Foreign {
            volume: volume.clone(),
            seen,
        })
    };
    match look(device).await? {
        Content::Ours => return Ok(file::remove(&note)?),
        Content::Blank => {}
        Content::Unrecognised if begun => {}
        Content::Unrecognised => return refuse("data without a known signature".into()),
        Content::Foreign(seen) => return refuse(seen),
    }
    tracing::info!(%volume, "formatting the blank volume {volume}");
    file::write(&note, format!("{volume}\n").as_bytes(), 0o644, None)?;
    format(device, owner).await?;
    match look(device).await? {
        Content::Ours => Ok(file::remove(&note)?),
        other => refuse(format!("{other:?} after mkfs")),
    }
}

/// The top folder belongs to Postgres from the beginning, so that nobody needs the right to give it away.
async fn format(device: &Path, owner: Owner) -> Result<(), CommandError> {
    let label = path::DATABASE_VOLUME_LABEL;
    let owner = format!("root_owner={}:{}", owner.0, owner.1);
    // -F only keeps mkfs from asking a question nobody answers; what may be formatted was decided above.
    let arguments = [
        "-q".as_ref(),
        "-F".as_ref(),
        "-L".as_ref(),
        label.as_ref(),
        "-E".as_ref(),
        owner.as_ref(),
        device.as_os_str(),
    ];
    command::run("mkfs.ext4", &arguments, None, MAKE_LIMIT)
        .await?
        .checked()?;
    Ok(())
}

async fn look(device: &Path) -> Result<Content, VolumeError> {
    let arguments = [
        "-p".as_ref(),
        "-o".as_ref(),
        "export".as_ref(),
        device.as_os_str(),
    ];
    let answer = command::run("blkid", &arguments, None, PROBE_LIMIT).await?;
    match answer.status.code() {
        Some(0) => Ok(recognise(&String::from_utf8_lossy(&answer.stdout))),
        // Nothing it knows. It says the same of a device it cannot read; reading the edges tells the two apart.
        Some(2) if has_zero_edges(device)? => Ok(Content::Blank),
        Some(2) => Ok(Content::Unrecognised),
        Some(8) => Ok(Content::Foreign("signatures of several kinds".into())),
        _ => Err(answer.into_error().into()),
    }
}

/// Reads `blkid -o export`: one `NAME=value` a line.
fn recognise(export: &str) -> Content {
    let value = |name: &str| {
        let lines = export.lines().filter_map(|line| line.split_once('='));
        lines
            .into_iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    };
    if value("TYPE") == Some("ext4") && value("LABEL") == Some(path::DATABASE_VOLUME_LABEL) {
        return Content::Ours;
    }
    let described = ["TYPE", "PTTYPE", "LABEL"]
        .into_iter()
        .filter_map(|name| Some(format!("{name}={}", value(name)?.escape_default())))
        .collect::<Vec<_>>();
    Content::Foreign(match described.is_empty() {
        true => "a signature blkid does not name".into(),
        false => described.join(" "),
    })
}

/// Whether the first and last megabyte are zeros, as they are on an EBS volume nobody wrote to.
fn has_zero_edges(device: &Path) -> Result<bool, FileError> {
    let read = || {
        let mut file = File::open(device)?;
        let size = file.seek(SeekFrom::End(0))?;
        let edge = size.min(EDGE_BYTES);
        let mut bytes = Vec::new();
        file.rewind()?;
        file.by_ref().take(edge).read_to_end(&mut bytes)?;
        file.seek(SeekFrom::Start(size - edge))?;
        file.take(edge).read_to_end(&mut bytes)?;
        Ok(size > 0 && bytes.iter().all(|byte| *byte == 0))
    };
    read().map_err(FileError::while_doing("read", device))
}

#[cfg(test)]
#[path = "volume_tests.rs"]
mod tests;
