//! Two sshds on 127.0.0.1 with host keys of their own, run by whoever runs the tests, and gone when dropped.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use drawbridge::appliance::Role;
use drawbridge::bastion::host_keys::Pins;
use drawbridge::bastion::{Access, Endpoint, Keyring, Login};
use drawbridge::terraform::Deployment;

use crate::support::{self, free_port};

/// Debian's place, and the usual others. sshd must be started by its absolute path.
const PLACES: [&str; 3] = [
    "/usr/sbin/sshd",
    "/usr/bin/sshd",
    "/run/current-system/sw/bin/sshd",
];

/// A bastion, a backend behind it, and a user key that both accept.
pub struct Hosts {
    pub folder: tempfile::TempDir,
    bastion: Sshd,
    backend: Sshd,
}

struct Sshd {
    child: Child,
    port: u16,
    host_key: String,
    config: PathBuf,
}

impl Hosts {
    pub fn start() -> Self {
        Self::start_with(|_| String::new())
    }

    /// With further lines for both sshds' configuration, made by someone who may put files into the folder.
    pub fn start_with(more: impl FnOnce(&Path) -> String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        generate_key(&folder.path().join("user"));
        let more = more(folder.path());
        let bastion = Sshd::start(folder.path(), "bastion", &more);
        let backend = Sshd::start(folder.path(), "backend", &more);
        Self {
            folder,
            bastion,
            backend,
        }
    }

    /// The user key both hosts accept.
    pub fn user_key(&self) -> PathBuf {
        self.folder.path().join("user")
    }

    /// Access as `drawbridge` would have it, keys pinned.
    pub fn access(&self) -> Access {
        let mut pins = Pins::default();
        pins.insert_published(Role::Bastion, "bastion's", &self.bastion.host_key)
            .unwrap();
        pins.insert_published(Role::Backend, "backend's", &self.backend.host_key)
            .unwrap();
        Access {
            deployment: deployment(),
            pins,
            bastion: Some(Endpoint {
                host: "127.0.0.1".into(),
                port: self.bastion.port,
            }),
            keys: Keyring::of([self.user_key()]),
            login: Login {
                user: user(),
                jump: user(),
                port: self.backend.port,
            },
        }
    }

    /// As [`Self::access`], where the backend is the database too.
    pub fn access_to_all(&self) -> Access {
        let mut access = self.access();
        let key = &self.backend.host_key;
        let pinned = access
            .pins
            .insert_published(Role::Database, "database's", key);
        pinned.unwrap();
        access
    }

    /// A host key that belongs to nobody.
    pub fn other_key(&self) -> String {
        let path = self.folder.path().join("other");
        if !path.exists() {
            generate_key(&path);
        }
        public_key(&path)
    }

    /// The bastion's port on this machine.
    pub fn bastion_port(&self) -> u16 {
        self.bastion.port
    }

    pub fn stop_backend(&mut self) {
        self.backend.child.kill().unwrap();
        self.backend.child.wait().unwrap();
    }

    /// As a host that loses its power: sshd and all its connections at once.
    pub fn kill(&mut self, role: Role) {
        self.sshd(role).kill();
    }

    /// Starts a killed one again, with its key and its port.
    pub fn start_again(&mut self, role: Role) {
        let sshd = self.sshd(role);
        sshd.child = Sshd::launch(&sshd.config, sshd.port);
    }

    fn sshd(&mut self, role: Role) -> &mut Sshd {
        match role {
            Role::Bastion => &mut self.bastion,
            Role::Backend | Role::Database => &mut self.backend,
        }
    }
}

impl Sshd {
    fn start(folder: &Path, name: &str, more: &str) -> Self {
        let key = folder.join(format!("{name}_host_key"));
        generate_key(&key);
        let port = free_port();
        let config = folder.join(format!("{name}_config"));
        let text = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nPidFile none\nAuthorizedKeysFile {}\nStrictModes no\n\
             UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n\
             {}{more}",
            key.display(),
            folder.join("user.pub").display(),
            limits()
        );
        fs::write(&config, text).unwrap();
        Self {
            child: Self::launch(&config, port),
            port,
            host_key: public_key(&key),
            config,
        }
    }

    fn launch(config: &Path, port: u16) -> Child {
        // Started by root it wants its privilege separation folder, which a machine that never ran it lacks.
        let _ = fs::create_dir_all("/run/sshd");
        let sshd = PLACES.iter().find(|place| Path::new(place).is_file());
        let log = config.with_extension("log");
        let mut child = Command::new(sshd.expect("install openssh-server"))
            .args(["-D", "-e", "-f"])
            .arg(config)
            .stdin(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = || fs::read_to_string(&log).unwrap();
            assert!(child.try_wait().unwrap().is_none(), "sshd ended: {}", log());
            assert!(Instant::now() < end, "sshd does not listen: {}", log());
            sleep(Duration::from_millis(20));
        }
        child
    }

    fn kill(&mut self) {
        let mut all = vec![self.child.id().to_string()];
        let mut next = 0;
        // From the top: a listener that is stopped makes no more of them.
        while next < all.len() {
            signal("STOP", &all[next]);
            let children = Command::new("pgrep").args(["-P", &all[next]]).output();
            let children = String::from_utf8(children.unwrap().stdout).unwrap();
            all.extend(children.lines().map(str::to_owned));
            next += 1;
        }
        for process in &all {
            signal("KILL", process);
        }
        self.child.wait().unwrap();
    }
}

fn signal(name: &str, process: &str) {
    // One that has ended meanwhile is as good.
    let mut kill = Command::new("kill");
    let _ = kill
        .args(["-s", name, process])
        .stderr(Stdio::null())
        .status();
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What there is of the hosts' own settings: how many may knock and try, and how files are copied.
fn limits() -> String {
    let settings = include_str!("../../nixos/settings/sshd.json");
    let settings: serde_json::Value = serde_json::from_str(settings).unwrap();
    let keywords = [
        "MaxAuthTries",
        "MaxStartups",
        "PerSourceMaxStartups",
        "PerSourceNetBlockSize",
        "Subsystem",
    ];
    let value = |keyword| settings["common"][keyword].to_string().replace('"', "");
    keywords
        .map(|keyword| format!("{keyword} {}\n", value(keyword)))
        .concat()
}

fn generate_key(path: &Path) {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(path)
        .status();
    assert!(made.unwrap().success());
}

fn public_key(path: &Path) -> String {
    fs::read_to_string(path.with_extension("pub")).unwrap()
}

fn user() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn deployment() -> Deployment {
    let mut output = support::deployment();
    for host in ["bastion", "backend", "database"] {
        output[host]["private_ip"] = "127.0.0.1".into();
        output[host]["public_ip"] = "127.0.0.1".into();
    }
    Deployment::parse(&output.to_string()).unwrap()
}
