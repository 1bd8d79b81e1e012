//! One parent for everything a rehearsal makes. The rehearsal runs as the first process of its own PID and mount
//! namespaces: when it ends, however it ends, the kernel ends every process, namespace and mount below it.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::Uid;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use super::systemd;
use super::tools::Tools;
use super::volumes;
use super::world::World;
use crate::interrupt::Hangup;

/// Where programs inside keep temporary files.
pub const SCRATCH: &str = "/run/scratch";
/// Tells the program that it is the inner one, and what the outer one has found.
pub const INSIDE: &str = "--inside";
/// After being told to stop, the inner one has to end processes, which takes well under a second.
const STOP_LIMIT: Duration = Duration::from_secs(120);

/// The right to rehearse with one folder; one at a time.
pub struct Sandbox {
    outside: PathBuf,
    _lock: Flock<File>,
}

impl Sandbox {
    /// Takes the folder and clears away what a killed run has left.
    ///
    /// # Errors
    /// If another rehearsal runs, the folder is somebody's, or this user may not make namespaces.
    pub fn take(outside: &Path) -> Result<Sandbox> {
        if !Uid::effective().is_root() {
            bail!(
                "a rehearsal makes network namespaces and loop devices and needs root for it: run it with sudo, or as \
                 root in a virtual machine or container of its own"
            );
        }
        let parent = outside
            .parent()
            .context("the rehearsal's folder has no parent")?;
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
        let path = outside.with_extension("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => bail!(
                "another rehearsal is running with {}: end it with Ctrl-C first, or give this one a folder of its own \
                 with --work-dir",
                outside.display()
            ),
            Err((_, errno)) => bail!("cannot lock {}: {errno}", path.display()),
        };
        let sandbox = Sandbox {
            outside: outside.to_owned(),
            _lock: lock,
        };
        sandbox.clean()?;
        Ok(sandbox)
    }

    /// Removes what outlives the namespaces: files for people, and loop devices and control groups of a run
    /// that was killed.
    fn clean(&self) -> Result<()> {
        World::remove_outside(&self.outside)?;
        let inside = World::inside_path(&self.outside);
        volumes::detach_leftovers(&inside)?;
        systemd::remove_leftovers(&inside)
    }

    /// Runs this program again inside, with the same arguments and `tools`, until it ends or is interrupted.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn run(self, tools: &Tools) -> Result<ExitStatus> {
        let program = env::current_exe().context("cannot find this program")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let mut hangup = Hangup::listen().context("cannot listen for SIGHUP")?;
        let mut command = Command::new("setpriv");
        command
            // Should this process be killed, the kernel kills that one, and with it everything inside.
            .args([
                "--pdeathsig",
                "KILL",
                "--",
                "unshare",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
            ])
            .args(["--mount-proc", "--propagation", "private", "--"])
            .arg(program)
            .args(env::args_os().skip(1))
            .arg(INSIDE)
            .arg(tools.to_argument()?)
            .stdin(Stdio::piped())
            // Temporary files vanish with the rest, also those of a run that is killed.
            .env("TMPDIR", SCRATCH)
            // The terminal's signals are for this process, which tells the inner one.
            .process_group(0);
        // Somebody's AWS profile or Terraform arguments are not for this; where providers come from is.
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            let is_foreign = ["AWS_", "TF_", "MOTO_"]
                .iter()
                .any(|prefix| text.starts_with(prefix));
            if is_foreign && text != "TF_CLI_CONFIG_FILE" {
                command.env_remove(&name);
            }
        }
        let mut child = command.spawn().context("cannot run setpriv and unshare")?;
        // Its end tells the inner program to stop.
        let lifeline = child.stdin.take();
        let status = tokio::select! {
            status = child.wait() => status,
            _ = interrupt.recv() => stop(&mut child, lifeline).await,
            _ = terminate.recv() => stop(&mut child, lifeline).await,
            () = hangup.received() => stop(&mut child, lifeline).await,
        };
        self.clean()?;
        status.context("cannot wait for the rehearsal")
    }
}

async fn stop(
    child: &mut tokio::process::Child,
    lifeline: Option<tokio::process::ChildStdin>,
) -> std::io::Result<ExitStatus> {
    drop(lifeline);
    match tokio::time::timeout(STOP_LIMIT, child.wait()).await {
        Ok(status) => status,
        Err(_) => {
            child.kill().await?;
            child.wait().await
        }
    }
}

/// Makes `/run` the rehearsal's own: names of namespaces, sockets and the in-memory folder live there unseen. The mount
/// carries `name`, so that `/proc/*/mountinfo` tells whose process one is.
///
/// # Errors
/// If nothing can be mounted, as outside of the sandbox.
pub fn cover_run(name: &Path) -> Result<()> {
    let output = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "mode=755"])
        .arg(name)
        .arg("/run")
        .output()
        .context("cannot run mount")?;
    if !output.status.success() {
        bail!(
            "cannot cover /run: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    fs::create_dir(SCRATCH).with_context(|| format!("cannot create {SCRATCH}"))
}
