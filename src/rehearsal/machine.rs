//! A machine: a network namespace with its own processes, host name and, for instances, file systems.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::hosts;
use super::namespaces;
use super::systemd::{self, Cgroups};
use super::world::{log_tail, tail};
use crate::bastion::exec::command_line;

/// Where an instance's own folder appears inside of it.
pub const HERE: &str = "/run/rehearsal";
/// What programs on a machine find first: the stand-ins, then what Debian and other distributions use.
const PATH: &str =
    "/run/rehearsal/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Namespaces and mounts take milliseconds.
pub const START_LIMIT: Duration = Duration::from_secs(120);
/// Devices a machine has beside its console: those that hold nothing of the host's.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// A running machine. Dropping it switches it off, as a power cut would.
pub struct Machine {
    name: String,
    folder: PathBuf,
    keeper: Child,
    first_process: u32,
    system: System,
}

/// What plays the part of a machine's operating system.
enum System {
    /// The script at the end of this file and `systemctl.sh`.
    Script,
    /// systemd itself, with control groups of its own.
    Systemd(Cgroups),
}

/// What a machine has of its own beside network, processes and host name.
pub enum Files<'a> {
    /// Only `/etc`. For the operator and the load balancer.
    Shared,
    /// Everything an instance keeps: `/etc` (and nothing of this machine's `/etc/ssh`), `/var/lib`, `/home`, `/run`,
    /// `/tmp`, `/dev`. `program` appears in its `PATH` as `drawbridge-host`; `devices` are block devices under the name
    /// they have on the instance.
    Own {
        /// `drawbridge-host`.
        program: &'a Path,
        /// Device node, and the path of the link to it.
        devices: &'a [(PathBuf, String)],
    },
}

impl Machine {
    /// Folder of the files that become a machine's `/etc`, to be filled before [`Machine::start`].
    pub fn etc(folder: &Path) -> PathBuf {
        folder.join("etc")
    }

    /// Switches a machine on: everything in `folder` survives from an earlier run, as disks do.
    ///
    /// # Errors
    /// If its namespaces cannot be made; with what the failing command said.
    pub fn start(name: &str, folder: &Path, files: &Files<'_>) -> Result<Machine> {
        for part in [
            "etc",
            "etc.work",
            "here/bin",
            "here/units",
            "here/log",
            "here/state",
        ] {
            let path = folder.join(part);
            fs::create_dir_all(&path)
                .with_context(|| format!("cannot create {}", path.display()))?;
        }
        let ready = folder.join("here/state/ready");
        // What was running when the machine was switched off is no longer.
        for entry in
            fs::read_dir(folder.join("here/state")).context("cannot read a machine's state")?
        {
            let path = entry.context("cannot read a machine's state")?.path();
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        let log = folder.join("here/log/switch-on.log");
        let output = File::create(&log).context("cannot create a machine's log")?;
        let errors = output.try_clone().context("cannot share a machine's log")?;
        let net = format!("--net={}", namespaces::handle(name).display());
        let keeper = Command::new("nsenter")
            .args([
                net.as_str(),
                "unshare",
                "--mount",
                "--uts",
                "--ipc",
                "--pid",
                "--fork",
                "--kill-child",
            ])
            .args([
                "--mount-proc",
                "--propagation",
                "private",
                "--",
                "sh",
                "-euc",
                &script(name, folder, files),
            ])
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .context("cannot run nsenter")?;
        let mut machine = Machine {
            name: name.to_owned(),
            folder: folder.to_owned(),
            keeper,
            first_process: 0,
            system: System::Script,
        };
        let deadline = Instant::now() + START_LIMIT;
        while !ready.exists() {
            let ended = machine
                .keeper
                .try_wait()
                .context("cannot look after a machine")?;
            if ended.is_some() || Instant::now() > deadline {
                bail!("machine {name} does not come up: {}", log_tail(&log));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        machine.first_process = machine.find_first_process()?;
        Ok(machine)
    }

    /// A machine that `systemd::start` has switched on: `keeper` runs as long as it does, `first_process` is its systemd.
    pub fn with_systemd(
        name: &str,
        folder: &Path,
        keeper: Child,
        first_process: u32,
        cgroups: Cgroups,
    ) -> Machine {
        Machine {
            name: name.to_owned(),
            folder: folder.to_owned(),
            keeper,
            first_process,
            system: System::Systemd(cgroups),
        }
    }

    /// The process in whose namespaces the machine lives: the one child of `unshare`.
    fn find_first_process(&self) -> Result<u32> {
        let keeper = self.keeper.id();
        let path = format!("/proc/{keeper}/task/{keeper}/children");
        let children = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let first = children
            .split_whitespace()
            .next()
            .and_then(|pid| pid.parse().ok());
        first.with_context(|| format!("machine {} has no first process", self.name))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A file that the machine keeps, e.g. `/var/lib/drawbridge/bootstrap.json`, as it is on its disk.
    pub fn file(&self, path: &str) -> PathBuf {
        let disk = match self.system {
            System::Script => self.folder.clone(),
            System::Systemd(_) => self.folder.join(systemd::DISK),
        };
        disk.join(path.trim_start_matches('/'))
    }

    /// Log of a unit in this boot.
    ///
    /// # Errors
    /// If it cannot be read, as when the unit was never started.
    pub fn log(&self, unit: &str) -> Result<String> {
        match self.system {
            System::Script => {
                let log = self.folder.join(format!("here/log/{unit}.log"));
                fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))
            }
            System::Systemd(_) => systemd::log(self, unit),
        }
    }

    /// The end of a unit's log, for an error text; nothing if it has none.
    pub fn log_tail(&self, unit: &str) -> Option<String> {
        let log = self.log(unit).ok().filter(|log| !log.is_empty())?;
        Some(tail(&log))
    }

    /// Exit status of a unit that does one thing and ends, once it has ended in this boot; empty if it was killed.
    ///
    /// # Errors
    /// If the machine cannot be asked.
    pub fn outcome(&self, unit: &str) -> Result<Option<String>> {
        match self.system {
            System::Script => {
                let status = || {
                    fs::read_to_string(hosts::bootstrap_status(&self.folder)).unwrap_or_default()
                };
                Ok((!self.is_active(unit)?).then(|| status().trim().to_owned()))
            }
            System::Systemd(_) => {
                let properties =
                    systemd::properties(self, unit, &["ActiveState", "ExecMainStatus"])?;
                let has_ended = ["active", "failed"].contains(&properties["ActiveState"].as_str());
                Ok(has_ended.then(|| properties["ExecMainStatus"].clone()))
            }
        }
    }

    /// The machine's own systemd as this machine numbers it, and its control groups; `None` where none runs.
    pub fn systemd(&self) -> Option<(u32, &Cgroups)> {
        match &self.system {
            System::Script => None,
            System::Systemd(cgroups) => Some((self.first_process, cgroups)),
        }
    }

    /// How the machine has gone down by itself, if it has.
    ///
    /// # Errors
    /// If that cannot be told.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.keeper
            .try_wait()
            .context("cannot look after a machine")
    }

    /// A command on the machine, with a clean environment, that is stopped after `limit`.
    pub fn command(&self, arguments: &[&str], limit: Duration) -> MachineCommand<'_> {
        MachineCommand {
            machine: self,
            arguments: arguments
                .iter()
                .map(|&argument| argument.to_owned())
                .collect(),
            environment: vec![
                ("PATH".to_owned(), PATH.to_owned()),
                ("HOME".to_owned(), "/root".to_owned()),
                ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ],
            folder: PathBuf::from("/"),
            limit,
        }
    }

    /// Starts units of `here/units`, as systemd would at boot.
    ///
    /// # Errors
    /// If the stand-in refuses one.
    pub fn start_units(&self, units: &[&str]) -> Result<()> {
        let arguments: Vec<&str> = ["systemctl", "start"]
            .iter()
            .chain(units)
            .copied()
            .collect();
        let output = self.command(&arguments, START_LIMIT).output()?;
        if !output.status.success() {
            bail!(
                "{}: cannot start {units:?}: {}",
                self.name,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(())
    }

    /// Whether a unit's process runs.
    ///
    /// # Errors
    /// If the machine cannot be asked.
    pub fn is_active(&self, unit: &str) -> Result<bool> {
        Ok(self
            .command(&["systemctl", "is-active", unit], START_LIMIT)
            .output()?
            .status
            .success())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // With its first process every other one goes, and with the last of them the mounts.
        if let System::Systemd(cgroups) = &self.system {
            cgroups.kill();
        }
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
        // The rehearsal is the first process of its own namespace, so the orphan is its to reap.
        let Some(first) = i32::try_from(self.first_process)
            .ok()
            .filter(|&pid| pid > 0)
            .map(Pid::from_raw)
        else {
            return;
        };
        let deadline = Instant::now() + START_LIMIT;
        while let Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) =
            waitpid(first, Some(WaitPidFlag::WNOHANG))
        {
            // Not our child yet, or gone already.
            let gone = !Path::new("/proc").join(first.to_string()).exists();
            if gone || Instant::now() > deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// A command to run on a machine.
pub struct MachineCommand<'a> {
    machine: &'a Machine,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    folder: PathBuf,
    limit: Duration,
}

impl MachineCommand<'_> {
    /// Adds or replaces environment variables.
    #[must_use]
    pub fn environment<K: Into<String>, V: Into<String>>(
        mut self,
        more: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.environment.extend(
            more.into_iter()
                .map(|(key, value)| (key.into(), value.into())),
        );
        self
    }

    /// Runs in `folder`.
    #[must_use]
    pub fn folder(mut self, folder: &Path) -> Self {
        self.folder = folder.to_owned();
        self
    }

    /// The command as one for the rehearsal to spawn. Environment values are visible in process listings, so nothing
    /// secret may be among them.
    pub fn build(&self) -> Command {
        let pid = self.machine.first_process.to_string();
        let mut command = Command::new("nsenter");
        command.args([
            "--target", &pid, "--mount", "--uts", "--ipc", "--net", "--pid", "--", "env", "-i",
            "-C",
        ]);
        command.arg(&self.folder);
        command.args(
            self.environment
                .iter()
                .map(|(key, value)| format!("{key}={value}")),
        );
        command.args([
            "timeout",
            "--kill-after=2",
            &self.limit.as_secs_f64().to_string(),
        ]);
        command.args(&self.arguments).stdin(Stdio::null());
        command
    }

    /// Runs it to its end. Exit status 124 means that the limit was reached.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn output(&self) -> Result<Output> {
        self.build()
            .output()
            .with_context(|| format!("cannot run a command on {}", self.machine.name))
    }
}

/// A path of this machine as one word of a script; unlike the rehearsal's own folders it may hold spaces.
pub fn quoted(path: &Path) -> String {
    command_line(&[path.to_string_lossy()])
}

/// What the machine's first process does before it waits for ever, reaping whatever it inherits.
fn script(name: &str, folder: &Path, files: &Files<'_>) -> String {
    let folder = folder.display();
    let mut text = format!(
        "echo {name} > /proc/sys/kernel/hostname\nmount -t overlay overlay -o lowerdir=/etc,upperdir={folder}/etc,workdir={folder}/etc.work /etc\n"
    );
    if let Files::Own { program, devices } = files {
        let _ = write!(
            text,
            "mkdir -p {folder}/ssh {folder}/var/lib {folder}/home/admin {folder}/tmp {folder}/dev {folder}/run\n\
             touch {folder}/here/bin/drawbridge-host {folder}/console.log\n\
             mount --bind {program} {folder}/here/bin/drawbridge-host\n\
             mount -t tmpfs -o mode=755 dev {folder}/dev\n\
             mkdir {folder}/dev/pts {folder}/dev/shm\n\
             mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts {folder}/dev/pts\n\
             mount -t tmpfs -o mode=1777 shm {folder}/dev/shm\n\
             ln -s pts/ptmx {folder}/dev/ptmx\n\
             ln -s /proc/self/fd {folder}/dev/fd\n\
             ln -s fd/0 {folder}/dev/stdin\nln -s fd/1 {folder}/dev/stdout\nln -s fd/2 {folder}/dev/stderr\n\
             touch {folder}/dev/console\nmount --bind {folder}/console.log {folder}/dev/console\n",
            program = quoted(program),
        );
        for device in DEVICES {
            let _ = writeln!(
                text,
                "touch {folder}/dev/{device}; mount --bind /dev/{device} {folder}/dev/{device}"
            );
        }
        for (node, link) in *devices {
            let base = node
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let _ = write!(
                text,
                "touch {folder}/dev/{base}; mount --bind {node} {folder}/dev/{base}\n\
                 mkdir -p $(dirname {folder}{link}); ln -s {node} {folder}{link}\n",
                node = node.display(),
            );
        }
        let _ = write!(
            text,
            "mount --bind {folder}/ssh /etc/ssh\n\
             mount --bind {folder}/var/lib /var/lib\n\
             mount --bind {folder}/home /home\n\
             mount --rbind {folder}/dev /dev\n\
             mount -t tmpfs -o mode=755 run {folder}/run\n\
             mkdir {folder}/run/sshd {folder}/run/postgresql {folder}/run/rehearsal\n\
             chown postgres:postgres {folder}/run/postgresql\n\
             chown admin:admin {folder}/home/admin\n\
             mount --rbind {folder}/here {folder}/run/rehearsal\n\
             mount -t tmpfs -o mode=1777 tmp /tmp\n\
             mount --rbind {folder}/run /run\n"
        );
    } else {
        let _ = writeln!(text, "mkdir -p {HERE}\nmount --bind {folder}/here {HERE}");
    }
    let _ = writeln!(text, "touch {HERE}/state/ready");
    text.push_str("exec bash -c 'while :; do sleep 3600 & wait $!; done'\n");
    text
}
