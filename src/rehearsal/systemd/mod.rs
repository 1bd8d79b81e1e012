//! Instances with a systemd of their own: what their images would boot with, as far as it can be had without building one.
//! The units, scripts and settings are those that the NixOS modules evaluate to; the programs are Debian's, and ours.
//!
//! [`rootfs`] finds the root file system, [`image`] puts the settings over it, [`container`] boots it, and the rest tries
//! what only a booted host can show.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::emulator::Emulator;
use super::hosts;
use super::machine::Machine;
use super::sshd;
use super::tools::Tools;
use super::topology::Instance;
use crate::appliance::{LOGIN_USER, Role};
use image::Image;

#[cfg(test)]
mod agreement;
mod cgroups;
mod container;
mod crashes;
mod deploying;
mod draining;
mod firewall;
mod image;
mod kept;
mod rootfs;
mod rotation;
mod sandboxing;
mod trial;
mod units;

pub use cgroups::{Cgroups, name_after, remove_leftovers};
pub use container::{DISK, go_down};
pub use kept::Kept;
pub use trial::Trial;

/// Where a host finds the certificate of the pretend AWS.
const AUTHORITY: &str = "/etc/ssl/rehearsal.pem";
/// Shell of the user `tunnel`, as rootfs.sh has it.
const TUNNEL_SHELL: &str = "/nix/store/tunnel-shell";
/// Debian's, with the environment that NixOS gives whoever becomes root.
const SUDO_PAM: &str = "session required pam_limits.so\nsession required pam_env.so conffile=/etc/pam/environment readenv=0\n\
    @include common-auth\n@include common-account\n@include common-session-noninteractive\n";
/// systemd answers in milliseconds, on a busy machine in seconds.
const ASK_LIMIT: Duration = Duration::from_secs(180);

/// What all instances are booted from.
pub struct Images {
    rootfs: PathBuf,
    evaluated: PathBuf,
}

impl Images {
    /// The root file system and the evaluated settings; `root` is the repository.
    ///
    /// # Errors
    /// What is missing and what makes it.
    pub fn find(root: &Path, evaluated: Option<&Path>) -> Result<Images> {
        let images = Images {
            rootfs: rootfs::find(root)?,
            evaluated: evaluated.map_or_else(|| root.join("nixos/evaluated"), Path::to_owned),
        };
        Role::ALL
            .into_iter()
            .try_for_each(|role| images.of(role).map(drop))?;
        Ok(images)
    }

    fn of(&self, role: Role) -> Result<Image> {
        Image::open(&self.evaluated, role)
    }

    /// Writes an instance's disk, as it is before its first boot. `devices` are its volumes and their paths there;
    /// `authority` is the certificate that AWS clients have to trust.
    ///
    /// # Errors
    /// If a file cannot be written, or the image names a program that nothing stands in for.
    pub fn prepare(
        &self,
        folder: &Path,
        instance: &Instance,
        devices: &[(PathBuf, String)],
        authority: &Path,
    ) -> Result<()> {
        let disk = folder.join(DISK);
        let image = self.of(instance.role)?;
        image.install(&disk, &self.rootfs)?;
        let write = |path: &str, text: &str| {
            let path = disk.join(path.trim_start_matches('/'));
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)
                    .with_context(|| format!("cannot create {}", parent.display()))?;
            }
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        // The one thing of an image's users that is written by us.
        write(TUNNEL_SHELL, &sshd::tunnel_shell()?)?;
        let shell = disk.join(TUNNEL_SHELL.trim_start_matches('/'));
        fs::set_permissions(&shell, fs::Permissions::from_mode(0o755))
            .context("cannot make a shell executable")?;
        write("/etc/hostname", instance.role.as_str())?;
        write(
            "/etc/hosts",
            &format!("127.0.0.1 localhost\n127.0.0.2 {}\n", instance.role),
        )?;
        write("/etc/machine-id", &hosts::machine_id(&instance.id))?;
        let links: String = devices
            .iter()
            .map(|(node, link)| format!("L+ {link} - - - - {}\n", node.display()))
            .collect();
        // udev makes them on EC2.
        write("/etc/tmpfiles.d/volumes.conf", &links)?;
        // What leads to the emulator: for units, and for what people run.
        let authority = fs::read_to_string(authority).context("cannot read the authority")?;
        write(AUTHORITY, &authority)?;
        let (mut unit, mut session) = (String::from("[Service]\n"), String::new());
        for (name, value) in Emulator::environment(Path::new(AUTHORITY)) {
            let _ = writeln!(unit, "Environment=\"{name}={value}\"");
            let _ = writeln!(session, "{name} DEFAULT=\"{value}\"");
        }
        let drop_in = format!(
            "/etc/systemd/system/{}.d/rehearsal.conf",
            hosts::BOOTSTRAP_UNIT
        );
        write(&drop_in, &unit)?;
        write("/etc/pam/environment", &session)?;
        let groups = self.rootfs.join("etc/group");
        let groups = fs::read_to_string(&groups)
            .with_context(|| format!("cannot read {}", groups.display()))?;
        if image.has_sudo() {
            write("/etc/group", &with_operator(&groups))?;
            write("/etc/pam.d/sudo", SUDO_PAM)?;
        } else {
            remove(&disk, "/usr/bin/sudo")?;
        }
        let program = disk.join("usr/local/bin/drawbridge-host");
        fs::create_dir_all(program.parent().unwrap_or(&disk)).context("cannot create a folder")?;
        std::os::unix::fs::symlink(image::PROGRAM, &program)
            .with_context(|| format!("cannot link {}", program.display()))
    }

    /// Switches an instance on and waits until its systemd answers.
    ///
    /// # Errors
    /// See [`container::start`].
    pub fn boot(
        &self,
        folder: &Path,
        instance: &Instance,
        tools: &Tools,
        devices: &[(PathBuf, String)],
    ) -> Result<Machine> {
        let programs = [(tools.drawbridge_host.clone(), image::PROGRAM.to_owned())];
        let hardware = container::Hardware {
            rootfs: &self.rootfs,
            programs: &programs,
            devices,
        };
        container::start(instance.role.as_str(), folder, &hardware)
    }
}

/// `/etc/group` with the login user among those who may become root, as nixos/operators.nix has it.
fn with_operator(groups: &str) -> String {
    groups
        .lines()
        .map(|line| {
            let member = if line.starts_with("wheel:") {
                LOGIN_USER
            } else {
                ""
            };
            format!("{line}{member}\n")
        })
        .collect()
}

/// Takes a file of the root file system away from a disk over it: an overlay's whiteout.
fn remove(disk: &Path, path: &str) -> Result<()> {
    let path = disk.join(path.trim_start_matches('/'));
    fs::create_dir_all(path.parent().unwrap_or(disk)).context("cannot create a folder")?;
    let output = Command::new("mknod")
        .arg(&path)
        .args(["c", "0", "0"])
        .output()
        .context("cannot run mknod")?;
    ensure!(
        output.status.success(),
        "cannot take {} away: {}",
        path.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Some properties of a unit; one it does not have is empty.
///
/// # Errors
/// If systemd does not answer.
pub fn properties(
    machine: &Machine,
    unit: &str,
    names: &[&str],
) -> Result<BTreeMap<String, String>> {
    let wanted = format!("--property={}", names.join(","));
    let said = ask(machine, &["systemctl", "show", &wanted, unit])?;
    let mut found: BTreeMap<String, String> = names
        .iter()
        .map(|name| ((*name).to_owned(), String::new()))
        .collect();
    for (name, value) in said.lines().filter_map(|line| line.split_once('=')) {
        found.insert(name.to_owned(), value.to_owned());
    }
    Ok(found)
}

/// Log of a unit in this boot.
///
/// # Errors
/// If the journal cannot be read.
pub fn log(machine: &Machine, unit: &str) -> Result<String> {
    let journal = [
        "journalctl",
        "--boot",
        "--no-pager",
        "--quiet",
        "--output=cat",
    ];
    // What sshd does for somebody who has signed in is no longer the unit's, but their session's.
    let of_sshd = ["--identifier=sshd", "--identifier=sshd-session"];
    let of_unit = ["--unit", unit];
    let whose = if unit == hosts::SSHD_UNIT {
        of_sshd
    } else {
        of_unit
    };
    ask(machine, &[&journal[..], &whose].concat())
}

/// What a command prints on a host.
///
/// # Errors
/// If it fails, with what it says.
pub fn ask(machine: &Machine, command: &[&str]) -> Result<String> {
    let output = machine.command(command, ASK_LIMIT).output()?;
    ensure!(
        output.status.success(),
        "{} on {}: {} ({})",
        command.join(" "),
        machine.name(),
        String::from_utf8_lossy(&output.stderr).trim(),
        output.status
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Copies the journals of all booted hosts as text, also of those that are switched off. A journal is not text itself.
///
/// # Errors
/// If one cannot be written.
pub fn keep_journals(machines: &Path, target: &Path) -> Result<()> {
    // Before any machine was switched on there is no such folder.
    for entry in fs::read_dir(machines).into_iter().flatten().flatten() {
        let journal = entry.path().join(DISK).join("var/log/journal");
        if !journal.exists() {
            continue;
        }
        let output = Command::new("journalctl")
            .args(["--no-pager", "--output=short-precise", "--directory"])
            .arg(&journal)
            .output()
            .context("cannot run journalctl")?;
        let name = format!(
            "machines-{}-journal.log",
            entry.file_name().to_string_lossy()
        );
        let file = target.join(name);
        fs::write(&file, output.stdout)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}
