//! What runs on the rehearsed instances: the files and units that the images would hold, with the same settings (the
//! JSON files that the NixOS modules read) around the real programs of this machine.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value};

use super::emulator::Emulator;
use super::machine::{Files, HERE, Machine, START_LIMIT, quoted};
use super::tools::Tools;
use super::topology::{Instance, Topology};
use super::{sshd, tunnel};
use crate::appliance::{LOGIN_USER, Role, TUNNEL_USER, path};
use crate::flows::Flow;

const POSTGRES_SETTINGS: &str = include_str!("../../nixos/settings/postgresql.json");
const BASTION_RULES: &str = include_str!("../../nixos/settings/bastion.nft");
/// The bastion's own rules on the bastion.
const RULES: &str = "/etc/bastion.nft";
const SYSTEMCTL: &str = include_str!("systemctl.sh");

/// First boot, and every later one.
pub const BOOTSTRAP_UNIT: &str = "drawbridge-bootstrap.service";
/// The API.
pub const API_UNIT: &str = "drawbridge-api.service";
/// Postgres.
pub const DATABASE_UNIT: &str = "postgresql.target";
/// The way in.
pub const SSHD_UNIT: &str = "sshd.service";

/// In the folder that is cleared when a machine is switched on.
const BOOTSTRAP_STATUS: &str = "state/bootstrap-status";

/// What the database's instance has of memory, as the smallest types do.
const MEMORY: &str = "MemTotal: 1048576 kB\nMemAvailable: 786432 kB\n";

/// Shell of `tunnel` on an instance.
const TUNNEL_SHELL: &str = "/run/rehearsal/bin/tunnel-shell";

/// The users that the images have and this machine does not: name, number (high, and clear of `nobody`), home, shell.
const USERS: [(&str, u32, &str, &str); 3] = [
    (LOGIN_USER, 64_001, "/home/admin", "/bin/bash"),
    ("drawbridge", 64_002, "/var/empty", "/bin/bash"),
    (TUNNEL_USER, 64_003, "/var/empty", TUNNEL_SHELL),
];

/// Fills the folder of an instance. What it keeps from an earlier boot stays. `authority` is the certificate that AWS
/// clients have to trust, `flows` the whole table, as in the image.
///
/// # Errors
/// If a file cannot be written, this machine's Postgres cannot be used, or the load balancer does not know the backend.
pub fn prepare(
    folder: &Path,
    instance: &Instance,
    topology: &Topology,
    tools: &Tools,
    authority: &Path,
    flows: &[Flow],
) -> Result<()> {
    let files = Folder {
        root: folder.to_owned(),
    };
    files.write(
        "etc/passwd",
        &with_users("/etc/passwd", |(name, id, home, shell)| {
            format!("{name}:x:{id}:{id}::{home}:{shell}")
        })?,
    )?;
    files.write(
        "etc/group",
        &with_users("/etc/group", |(name, id, ..)| format!("{name}:x:{id}:"))?,
    )?;
    // `*` is no password but, unlike `!`, not a locked account either, which sshd would refuse.
    files.write(
        "etc/shadow",
        "root:*:::::::\nadmin:*:::::::\ntunnel:*:::::::\nsshd:*:::::::\n",
    )?;
    files.write("etc/machine-id", &machine_id(&instance.id))?;
    files.write("ssh/sshd_config", &sshd::config(instance.role, flows)?)?;
    files.program("tunnel-shell", &sshd::tunnel_shell()?)?;
    write_systemctl(folder)?;
    let sshd = tools.path("sshd")?;
    let key = path::SSH_HOST_KEY;
    files.write(
        &format!("here/units/{SSHD_UNIT}"),
        &format!(
            "[ -s {key} ] || ssh-keygen -q -t ed25519 -N '' -C '' -f {key}\nexec {} -D -e -f /etc/ssh/sshd_config\n",
            quoted(sshd)
        ),
    )?;
    // Beside the stand-ins: an instance does not see the folder that the emulator's certificate lies in.
    let certificate = folder.join("here/authority.pem");
    fs::copy(authority, &certificate).context("cannot copy the emulator's certificate")?;
    let cloud = Emulator::environment(&Path::new(HERE).join("authority.pem"));
    let cloud: String = cloud
        .iter()
        .map(|(name, value)| format!("export {name}='{value}'\n"))
        .collect();
    let mut bootstrap = cloud;
    match instance.role {
        Role::Bastion => {
            let rules = format!("table inet {} {{\n{BASTION_RULES}\n}}\n", tunnel::TABLE);
            files.write(RULES.trim_start_matches('/'), &rules)?;
        }
        Role::Backend => {
            let (port, path) = topology
                .health_check(instance)
                .context("the load balancer's target group does not hold the backend")?;
            let url = format!("http://127.0.0.1:{port}{path}");
            let url = quoted(Path::new(&url));
            let _ = writeln!(bootstrap, "export BOOTSTRAP_READY_URL={url}");
            files.write(
                &format!("here/units/{API_UNIT}.condition"),
                &format!("[ -s {} ]\n", path::SEALED_PASSWORD),
            )?;
            files.write(&format!("here/units/{API_UNIT}"), &api_unit(port))?;
        }
        Role::Database => {
            files.write("etc/postgresql.conf", &postgres_config()?)?;
            // Postgres is tuned to the memory it finds. It is the only one on its instance, and not on this machine.
            files.write("here/meminfo", MEMORY)?;
            bootstrap = format!("mount --bind {HERE}/meminfo /proc/meminfo\n{bootstrap}");
            files.write(
                &format!("here/units/{}", path::DATABASE_VOLUME_UNIT),
                &volume_unit(),
            )?;
            files.write(
                &format!("here/units/{DATABASE_UNIT}"),
                &database_unit(tools)?,
            )?;
        }
    }
    let _ = write!(
        bootstrap,
        "drawbridge-host bootstrap\necho $? >{HERE}/{BOOTSTRAP_STATUS}\n"
    );
    files.write(&format!("here/units/{BOOTSTRAP_UNIT}"), &bootstrap)?;
    Ok(())
}

/// What systemd-creds seals to beside a key of its own, and what a container of somebody's may lack: 32 hexadecimal
/// digits, each instance's own.
pub fn machine_id(instance_id: &str) -> String {
    format!("{:0>32}\n", instance_id.trim_start_matches("i-"))
}

/// Where the exit status of this boot's bootstrap is, once it has ended.
pub fn bootstrap_status(folder: &Path) -> PathBuf {
    folder.join("here").join(BOOTSTRAP_STATUS)
}

/// Puts the stand-in for systemctl into a machine's folder.
///
/// # Errors
/// If it cannot be written.
pub fn write_systemctl(folder: &Path) -> Result<()> {
    Folder {
        root: folder.to_owned(),
    }
    .program("systemctl", SYSTEMCTL)
}

/// Switches an instance on and starts what systemd would start at boot.
///
/// # Errors
/// See [`Machine::start`].
pub fn boot(
    folder: &Path,
    instance: &Instance,
    tools: &Tools,
    devices: &[(PathBuf, String)],
) -> Result<Machine> {
    let files = Files::Own {
        program: &tools.drawbridge_host,
        devices,
    };
    let machine = Machine::start(&instance.role.to_string(), folder, &files)?;
    if instance.role == Role::Bastion {
        let loaded = machine
            .command(&["nft", "-f", RULES], START_LIMIT)
            .output()?;
        ensure!(
            loaded.status.success(),
            "the bastion's rules: {}",
            String::from_utf8_lossy(&loaded.stderr).trim()
        );
    }
    let mut units = vec![SSHD_UNIT, BOOTSTRAP_UNIT];
    if instance.role == Role::Backend {
        units.push(API_UNIT);
    }
    machine.start_units(&units)?;
    Ok(machine)
}

/// What the image's service does: the sealed password is unsealed into a folder of memory that only the service's user
/// can read, and the API runs without any privilege.
fn api_unit(port: u16) -> String {
    let folder = format!("/run/credentials/{API_UNIT}");
    format!(
        "mkdir -p -m 0755 /run/credentials\nmkdir -p -m 0700 {folder}\n\
         systemd-creds decrypt --name={name} {sealed} {folder}/{name}\n\
         chown -R drawbridge:drawbridge {folder}\nchmod 0400 {folder}/{name}\n\
         exec setpriv --reuid=drawbridge --regid=drawbridge --clear-groups --no-new-privs --bounding-set=-all \\\n  \
         env CREDENTIALS_DIRECTORY={folder} DRAWBRIDGE_CONFIG={config} \
         DRAWBRIDGE_HTTP__LISTEN=0.0.0.0:{port} DRAWBRIDGE_METRICS__LISTEN=127.0.0.1:9464 drawbridge-host serve\n",
        name = path::PASSWORD_CREDENTIAL,
        sealed = path::SEALED_PASSWORD,
        config = path::CONFIG,
    )
}

/// The mount that the image's unit makes.
fn volume_unit() -> String {
    format!(
        "mount -t ext4 -o noatime,nodev,nosuid,noexec {} {}\n",
        path::DATABASE_VOLUME_LINK,
        path::DATABASE_VOLUME
    )
}

fn database_unit(tools: &Tools) -> Result<String> {
    let (initdb, postgres) = (
        tools.postgres.program("initdb"),
        tools.postgres.program("postgres"),
    );
    let data = format!("{}/data", path::DATABASE_VOLUME);
    Ok(format!(
        "cd /\nas='setpriv --reuid=postgres --regid=postgres --init-groups'\n\
         [ -s {data}/PG_VERSION ] || $as {initdb} -D {data} --encoding=UTF8 --locale=C.UTF-8 --auth=peer \
         --no-instructions\nexec $as {postgres} -D {data} -c config_file=/etc/postgresql.conf\n",
        initdb = quoted(&initdb),
        postgres = quoted(&postgres),
    ))
}

pub(super) fn postgres_config() -> Result<String> {
    let settings: Map<String, Value> =
        serde_json::from_str(POSTGRES_SETTINGS).context("nixos/settings/postgresql.json")?;
    let mut text = String::new();
    for (name, value) in settings {
        match value {
            Value::String(value) => writeln!(text, "{name} = '{}'", value.replace('\'', "''")),
            other => writeln!(text, "{name} = {other}"),
        }
        .context("cannot write to a text")?;
    }
    Ok(text)
}

/// A system file with the images' users added to this machine's.
fn with_users(file: &str, line: impl Fn(&(&str, u32, &str, &str)) -> String) -> Result<String> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    let others = text.lines().filter(|line| {
        let name = line.split(':').next().unwrap_or_default();
        !USERS.iter().any(|(ours, ..)| *ours == name)
    });
    let ours = USERS.iter().map(line);
    Ok(others
        .map(str::to_owned)
        .chain(ours)
        .map(|line| line + "\n")
        .collect())
}

/// An instance's folder, to write files into.
struct Folder {
    root: PathBuf,
}

impl Folder {
    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.root.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)
                .with_context(|| format!("cannot create {}", parent.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// A script that the machine's PATH leads to.
    fn program(&self, name: &str, text: &str) -> Result<()> {
        let path = self.write(&format!("here/bin/{name}"), text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("cannot make {} executable", path.display()))
    }
}
