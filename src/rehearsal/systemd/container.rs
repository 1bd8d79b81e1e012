//! An instance that boots: a systemd of its own as first process, in the instance's network namespace, in cgroups of its
//! own, over a disk of its own.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::cgroups::Cgroups;
use crate::rehearsal::machine::Machine;
use crate::rehearsal::namespaces;
use crate::rehearsal::world::log_tail;

/// Folder of the disk in a machine's folder: what differs from the image, from boot to boot.
pub const DISK: &str = "disk";
/// How systemd-nspawn ends when the guest has asked for a reboot.
const REBOOT: i32 = 133;
/// systemd answers after some 0.3 s; a busy machine stretches that.
const BOOT_LIMIT: Duration = Duration::from_secs(600);
/// An orderly end takes 2 s. Above the longest `TimeoutStopSec` of a unit of ours, 45 s.
const STOP_LIMIT: Duration = Duration::from_secs(300);

/// What a container is switched on with.
pub struct Hardware<'a> {
    /// The image: a root file system that stays as it is.
    pub rootfs: &'a Path,
    /// Files of this machine that appear in the guest, read-only, at the second path.
    pub programs: &'a [(PathBuf, String)],
    /// Block devices and the path of the link to each.
    pub devices: &'a [(PathBuf, String)],
}

/// Switches an instance on: everything in `folder` survives from an earlier boot, as a disk does.
///
/// # Errors
/// If systemd does not answer in time; with what it said.
pub fn start(name: &str, folder: &Path, hardware: &Hardware<'_>) -> Result<Machine> {
    let log = folder.join("here/log/console.log");
    for part in ["base", "root", DISK, "disk.work", "here/log"] {
        let path = folder.join(part);
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
    }
    let cgroups = Cgroups::create(name)?;
    let console = fs::File::options()
        .create(true)
        .append(true)
        .open(&log)
        .with_context(|| format!("cannot open {}", log.display()))?;
    let errors = console.try_clone().context("cannot share a console")?;
    let mut keeper = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-euc", SCRIPT])
        .args([
            "sh".as_ref(),
            folder.as_os_str(),
            hardware.rootfs.as_os_str(),
        ])
        .arg(cgroups.files().join(" "))
        .args([
            "systemd-nspawn",
            "--quiet",
            "--boot",
            "--register=no",
            "--keep-unit",
        ])
        .args([
            "--link-journal=no",
            "--resolv-conf=off",
            "--timezone=off",
            "--console=pipe",
        ])
        .arg("--directory")
        .arg(folder.join("root"))
        .arg(format!("--machine={name}"))
        .arg(format!("--hostname={name}"))
        .arg(format!(
            "--network-namespace-path={}",
            namespaces::handle(name).display()
        ))
        // Loopback of a unit's private network, the host's own firewall; and the programs by which IPAddressDeny works,
        // which is silently not in force without.
        .args([
            "--capability=CAP_NET_ADMIN,CAP_BPF",
            "--system-call-filter=bpf",
        ])
        .args(
            hardware
                .programs
                .iter()
                .map(|(file, place)| format!("--bind-ro={}:{place}", file.display())),
        )
        .args(
            hardware
                .devices
                .iter()
                .map(|(node, _)| format!("--bind={}", node.display())),
        )
        .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
        .stdin(Stdio::null())
        .stdout(console)
        .stderr(errors)
        .spawn()
        .context("cannot run unshare")?;
    match first_process(&mut keeper, &log) {
        Ok(first) => {
            let machine = Machine::with_systemd(name, folder, keeper, first, cgroups);
            wait_for_systemd(&machine, &log)?;
            Ok(machine)
        }
        Err(error) => {
            cgroups.kill();
            let _ = keeper.kill();
            let _ = keeper.wait();
            Err(error.context(format!("machine {name} does not come up")))
        }
    }
}

/// The overlay is mounted for the container alone and goes with it. The lower folder is mounted below the machine's own
/// first: a path of somebody's may hold a colon or a comma, which the options of an overlay cannot.
const SCRIPT: &str = r#"folder=$1 rootfs=$2 cgroups=$3
shift 3
mount --bind "$rootfs" "$folder/base"
mount -t overlay overlay -o "lowerdir=$folder/base,upperdir=$folder/disk,workdir=$folder/disk.work" "$folder/root"
for file in $cgroups; do echo 0 >"$file"; done
exec "$@""#;

/// The guest's systemd, as it is numbered out here.
fn first_process(keeper: &mut Child, log: &Path) -> Result<u32> {
    let deadline = Instant::now() + BOOT_LIMIT;
    let id = keeper.id();
    loop {
        let path = format!("/proc/{id}/task/{id}/children");
        let children = fs::read_to_string(&path).unwrap_or_default();
        let first = children.split_whitespace().find(|pid| is_systemd(pid));
        if let Some(first) = first.and_then(|pid| pid.parse().ok()) {
            return Ok(first);
        }
        let ended = keeper.try_wait().context("cannot look after a machine")?;
        if ended.is_some() || Instant::now() > deadline {
            bail!("{}", log_tail(log));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a process is the first of a namespace of its own, and nspawn's stub has become the guest's init.
fn is_systemd(pid: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let is_first = numbers.and_then(|line| line.split_whitespace().last()) == Some("1");
    is_first
        && fs::read_to_string(format!("/proc/{pid}/comm"))
            .is_ok_and(|name| name.trim() == "systemd")
}

fn wait_for_systemd(machine: &Machine, log: &Path) -> Result<()> {
    let deadline = Instant::now() + BOOT_LIMIT;
    loop {
        let output = machine
            .command(&["systemctl", "is-system-running"], Duration::from_secs(60))
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if ["starting", "running", "degraded"].contains(&said.as_str()) {
            return Ok(());
        }
        if Instant::now() > deadline {
            let problem = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            bail!(
                "systemd on {} does not answer after {} s ({said} {problem}): {}",
                machine.name(),
                BOOT_LIMIT.as_secs(),
                log_tail(log)
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Asks the guest for a reboot and waits until it has gone down. It is switched on again by [`start`].
///
/// # Errors
/// If it does not go down, or ends otherwise.
pub fn go_down(machine: &mut Machine) -> Result<()> {
    let name = machine.name().to_owned();
    let limit = Duration::from_secs(120);
    // Its connection may end before its answer does.
    machine.command(&["systemctl", "reboot"], limit).output()?;
    let deadline = Instant::now() + STOP_LIMIT;
    loop {
        if let Some(status) = machine.ended()? {
            ensure!(
                is_reboot(status),
                "{name} was asked to reboot and ended with {status}"
            );
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!(
                "{name} does not go down {} s after `systemctl reboot`",
                STOP_LIMIT.as_secs()
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn is_reboot(status: ExitStatus) -> bool {
    status.code() == Some(REBOOT) && status.signal().is_none()
}
