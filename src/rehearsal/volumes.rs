//! EBS volumes as loop devices over files in memory: real block devices to format and mount.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// An attached volume. It goes with this value: the kernel clears the device when nobody has it open or mounted any
/// more, also after `kill -9`.
pub struct Volume {
    /// `vol-…`.
    pub id: String,
    /// The block device, e.g. `/dev/loop0`.
    pub device: PathBuf,
    /// The path an instance knows it by.
    pub link: String,
    _open: File,
}

impl Volume {
    /// Makes a volume of `gib` GiB, whose file takes only what is written to it.
    ///
    /// # Errors
    /// If the machine lets nobody have a loop device.
    pub fn attach(folder: &Path, id: &str, gib: u64) -> Result<Volume> {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let backing = folder.join(format!("{id}.img"));
        let file = File::create(&backing)
            .with_context(|| format!("cannot create {}", backing.display()))?;
        file.set_len(gib << 30)
            .with_context(|| format!("cannot size {}", backing.display()))?;
        let device = losetup(&["--find", "--show", &backing.to_string_lossy()])?;
        let device = PathBuf::from(device.trim());
        let open = OpenOptions::new()
            .read(true)
            .open(&device)
            .with_context(|| format!("cannot open {}", device.display()))?;
        // While it is open, detaching means: clear it at the last close.
        losetup(&["--detach", &device.to_string_lossy()])?;
        let link = format!(
            "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{}",
            id.replace('-', "")
        );
        Ok(Volume {
            id: id.to_owned(),
            device,
            link,
            _open: open,
        })
    }
}

/// Detaches what a killed run with this in-memory folder has left: its backing files are gone, but named. The kernel
/// names them from the root of a file system that is mounted nowhere any more, so without the `/run` before it.
///
/// # Errors
/// If a device can neither be listed nor detached.
pub fn detach_leftovers(folder: &Path) -> Result<()> {
    let name = folder
        .file_name()
        .context("the in-memory folder has no name")?;
    let list = losetup(&["--list", "--noheadings", "--output", "NAME,BACK-FILE"])?;
    for line in list.lines() {
        let mut words = line.split_whitespace();
        if let (Some(device), Some(file)) = (words.next(), words.next())
            && Path::new(file).iter().any(|part| part == name)
        {
            losetup(&["--detach", device])?;
        }
    }
    Ok(())
}

fn losetup(arguments: &[&str]) -> Result<String> {
    let output = Command::new("losetup")
        .args(arguments)
        .output()
        .context("cannot run losetup")?;
    if !output.status.success() {
        bail!(
            "losetup {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
