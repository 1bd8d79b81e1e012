//! Three machines as network namespaces: the operator's, a bastion and a backend behind it, each private host with a
//! real sshd on port 22 that has the images' settings and logins. Needs root; everything is gone when it is dropped, and
//! with the process: the namespaces have no names.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use drawbridge::appliance::{LOGIN_USER, Role, TUNNEL_USER};
use drawbridge::bastion::host_keys::Pins;
use drawbridge::bastion::{Access, Keyring, Login};
use drawbridge::terraform::Deployment;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde_json::Value;

use crate::support;

const SETTINGS: &str = include_str!("../../../nixos/settings/sshd.json");
const WAN: &str = include_str!("wan.py");
/// What the machine that runs the tests has in another place than the images, or the stage itself decides.
const OTHERWISE: [&str; 4] = ["HostKey", "AuthorizedKeysFile", "StrictModes", "LogVerbose"];
/// The operator's and the bastion's end of the link between them (TEST-NET-3).
const OUTSIDE: [&str; 2] = ["203.0.113.1", "203.0.113.9"];
/// The bastion's and the backend's end of theirs.
const INSIDE: [&str; 2] = ["10.20.2.1", "10.20.2.5"];
/// What the backend forwards to from its own loopback, as flows.json has it.
pub const API_PORT: u16 = 8000;
/// Usually a tenth of a second.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How a stage differs from a quiet network of hosts as they are.
#[derive(Clone, Copy, Default)]
pub struct Conditions<'a> {
    /// Milliseconds from the operator to the bastion and back.
    pub round_trip: u32,
    /// Packets lost on that way, in each direction, of a hundred.
    pub loss: u32,
    /// Further lines for both sshds, read before the images' own.
    pub sshd: &'a str,
}

/// The three machines.
pub struct Stage {
    pub folder: tempfile::TempDir,
    pub operator: Namespace,
    pub bastion: Namespace,
    pub backend: Namespace,
    /// What makes the round trip, if anything does.
    pub delayed_by: &'static str,
    children: Mutex<Vec<Child>>,
}

impl Stage {
    /// `None`, with a word about it, where the tests are not root.
    pub fn start(conditions: Conditions<'_>) -> Option<Self> {
        if !geteuid().is_root() {
            eprintln!("SKIPPED: needs root for networks of its own");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        // sshd reads the authorized keys as the user who logs in.
        open_to_all(folder.path(), 0o755);
        let mut stage = Self {
            operator: Namespace::make(),
            bastion: Namespace::make(),
            backend: Namespace::make(),
            folder,
            delayed_by: "nothing",
            children: Mutex::default(),
        };
        stage.accounts();
        key(&stage.path("user"));
        stage.connect(conditions);
        for role in [Role::Bastion, Role::Backend] {
            key(&stage.path(&format!("{role}_host_key")));
            let text = stage.configuration(role, conditions.sshd);
            fs::write(stage.path(&format!("{role}_config")), text).unwrap();
            stage.start_sshd(role);
        }
        Some(stage)
    }

    /// Access as `drawbridge` would have it, keys pinned.
    pub fn access(&self) -> Access {
        access(self.folder.path())
    }

    /// Runs `work` where the operator sits, for at most ten minutes: a slow machine has much to encrypt.
    pub fn operate<T: Send>(&self, work: impl AsyncFnOnce(Access) -> T + Send) -> T {
        let access = self.access();
        self.operator.inside(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let limit = Duration::from_secs(600);
            let work = async { tokio::time::timeout(limit, work(access)).await };
            runtime.unwrap().block_on(work).expect("ten minutes")
        })
    }

    /// Starts a host's sshd, which must not run, and waits until it answers.
    pub fn start_sshd(&self, role: Role) {
        let namespace = self.host(role);
        let log = self.path(&format!("{role}.log"));
        // Names and logins of its own, seen by nobody else.
        let script = "mount --bind $0/passwd /etc/passwd && mount --bind $0/shadow /etc/shadow && mount --bind $0/group /etc/group \
                      && mkdir -p /run/sshd && PATH=$PATH:/usr/sbin:/run/current-system/sw/bin && exec $(command -v sshd) -D -e -f $0/$1_config";
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", script])
            .arg(self.folder.path())
            .arg(role.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(
                File::options()
                    .create(true)
                    .append(true)
                    .open(&log)
                    .unwrap(),
            );
        let mut child = namespace.inside(|| command.spawn().unwrap());
        let end = Instant::now() + START_LIMIT;
        let address = SocketAddr::from(([127, 0, 0, 1], 22));
        while namespace.inside(|| TcpStream::connect(address)).is_err() {
            let said = || fs::read_to_string(&log).unwrap();
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "sshd ended: {}", said());
            assert!(Instant::now() < end, "sshd does not listen: {}", said());
            std::thread::sleep(Duration::from_millis(20));
        }
        self.children.lock().unwrap().push(child);
    }

    /// Nothing that the operator sends arrives, nor anything that is sent to them, and nobody is told.
    pub fn cut(&self) {
        nft(
            &self.operator,
            "table ip cut { chain in { type filter hook input priority -10; drop; }\n\
             chain out { type filter hook output priority -10; drop; }\n}",
        );
    }

    /// Ends [`Self::cut`].
    pub fn mend(&self) {
        nft(&self.operator, "delete table ip cut");
    }

    /// How many packets were lost on purpose.
    pub fn lost(&self) -> u64 {
        let count = |namespace: &Namespace| -> u64 {
            let rules = run(
                namespace,
                Command::new("nft").args(["-j", "list", "table", "ip", "loss"]),
                "",
            );
            let rules: Value = serde_json::from_str(&rules).unwrap();
            let dropped = rules["nftables"].as_array().unwrap().iter();
            let mut dropped =
                dropped.flat_map(|entry| entry["rule"]["expr"].as_array().into_iter().flatten());
            dropped
                .find_map(|part| part["counter"]["packets"].as_u64())
                .unwrap()
        };
        count(&self.operator) + count(&self.bastion)
    }

    pub fn host(&self, role: Role) -> &Namespace {
        match role {
            Role::Bastion => &self.bastion,
            Role::Backend => &self.backend,
            Role::Database => panic!("there is none"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The machine's accounts and the images' two.
    fn accounts(&self) {
        for (file, fields) in [
            ("passwd", ":x:4217:4217::/:/bin/sh"),
            ("shadow", ":*:19000:0:99999:7:::"),
            ("group", ":x:4217:"),
        ] {
            let mut text = fs::read_to_string(Path::new("/etc").join(file)).unwrap();
            for user in [LOGIN_USER, TUNNEL_USER] {
                text.push_str(&format!("{user}{fields}\n"));
            }
            fs::write(self.path(file), text).unwrap();
        }
    }

    fn connect(&mut self, conditions: Conditions<'_>) {
        let Self {
            operator,
            bastion,
            backend,
            ..
        } = self;
        ip(
            bastion,
            &format!(
                "link set lo up\nlink add lan type veth peer name eth0 netns {}\naddr add {}/24 dev lan\nlink set lan up\n",
                backend.path().display(),
                INSIDE[0]
            ),
        );
        ip(
            backend,
            &format!(
                "link set lo up\naddr add {}/24 dev eth0\nlink set eth0 up\n",
                INSIDE[1]
            ),
        );
        let by_tun = conditions.round_trip > 0 && !has_netem(operator);
        let make = if by_tun {
            let child = start_wan(operator, conditions.round_trip);
            self.children.lock().unwrap().push(child);
            format!(
                "link set far netns {} name eth0\n",
                bastion.path().display()
            )
        } else {
            let end = bastion.path();
            format!(
                "link add wan type veth peer name eth0 netns {}\n",
                end.display()
            )
        };
        // Fewer and larger packets for the script, which would else be what the speed is measured of.
        let mtu = if by_tun { 9000 } else { 1500 };
        let up = |device: &str, address: &str| {
            // Roomy queues: what is lost is lost on purpose.
            format!(
                "addr add {address}/24 dev {device}\nlink set {device} mtu {mtu} txqueuelen 20000 up\n"
            )
        };
        ip(
            operator,
            &format!("link set lo up\n{make}{}", up("wan", OUTSIDE[0])),
        );
        ip(bastion, &up("eth0", OUTSIDE[1]));
        if conditions.round_trip > 0 {
            self.delayed_by = if by_tun { "a TUN pair" } else { "netem" };
        }
        if conditions.round_trip > 0 && !by_tun {
            for (namespace, device) in [(&self.operator, "wan"), (&self.bastion, "eth0")] {
                let delay = format!("{}us", conditions.round_trip * 500);
                let arguments = [
                    "qdisc", "add", "dev", device, "root", "netem", "limit", "20000", "delay",
                    &delay,
                ];
                run(namespace, Command::new("tc").args(arguments), "");
            }
        }
        if conditions.loss > 0 {
            let rule = format!("numgen random mod 100 < {} counter drop", conditions.loss);
            for (namespace, device) in [(&self.operator, "wan"), (&self.bastion, "eth0")] {
                nft(
                    namespace,
                    &format!(
                        "table ip loss {{ chain in {{ type filter hook input priority -10; iifname {device} {rule}; }}\n}}"
                    ),
                );
            }
        }
    }

    /// The images' settings; where a keyword is given twice, sshd takes the first.
    fn configuration(&self, role: Role, more: &str) -> String {
        let permitted = match role {
            Role::Bastion => "*:22".to_owned(),
            _ => format!("localhost:{API_PORT} 127.0.0.1:{API_PORT}"),
        };
        let folder = self.folder.path().display();
        let mut text = format!(
            "{more}\nHostKey {folder}/{role}_host_key\nAuthorizedKeysFile {folder}/user.pub\nStrictModes no\nUsePAM no\n\
             PidFile none\nPermitOpen {permitted}\n"
        );
        let settings: Value = serde_json::from_str(SETTINGS).unwrap();
        for (keyword, value) in settings["common"].as_object().unwrap() {
            if !OTHERWISE.contains(&keyword.as_str()) {
                text.push_str(&format!("{keyword} {}\n", plain(keyword, value)));
            }
        }
        text.push_str(&format!("Match User {TUNNEL_USER}\n"));
        for (keyword, value) in settings["tunnel"].as_object().unwrap() {
            text.push_str(&format!("{keyword} {}\n", plain(keyword, value)));
        }
        text
    }
}

/// Access to the stage whose folder this is, keys pinned.
pub fn access(folder: &Path) -> Access {
    let mut output = support::deployment();
    output["bastion"]["public_ip"] = OUTSIDE[1].into();
    output["backend"]["private_ip"] = INSIDE[1].into();
    let mut pins = Pins::default();
    for role in [Role::Bastion, Role::Backend] {
        let public = folder.join(format!("{role}_host_key.pub"));
        let public = fs::read_to_string(public).unwrap();
        pins.insert_published(role, "its parameter", &public)
            .unwrap();
    }
    Access {
        deployment: Deployment::parse(&output.to_string()).unwrap(),
        pins,
        bastion: None,
        keys: Keyring::of([folder.join("user")]),
        login: Login::default(),
    }
}

fn plain(keyword: &str, value: &Value) -> String {
    match value {
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => {
            let list: Vec<_> = list.iter().filter_map(Value::as_str).collect();
            list.join(if keyword == "AllowUsers" { " " } else { "," })
        }
        other => other.to_string(),
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for machine in [&self.operator, &self.bastion, &self.backend] {
            machine.signal(Signal::SIGKILL);
        }
        for child in self.children.get_mut().unwrap() {
            let _ = child.wait();
        }
    }
}

fn has_netem(namespace: &Namespace) -> bool {
    let mut command = Command::new("tc");
    command
        .args(["qdisc", "add", "dev", "lo", "root", "netem", "delay", "0ms"])
        .stderr(Stdio::null());
    namespace.inside(|| command.status().is_ok_and(|status| status.success()))
}

fn start_wan(namespace: &Namespace, round_trip: u32) -> Child {
    let mut command = Command::new("python3");
    command
        .args(["-c", WAN, &(f64::from(round_trip) / 2.0).to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child: Child = namespace.inside(|| command.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "ready\n", "the link's two ends");
    child
}

/// A network of its own, with the processes in it; both end when it is dropped.
pub struct Namespace {
    file: File,
}

impl Namespace {
    fn make() -> Self {
        let thread = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Self {
            file: thread.join().unwrap(),
        }
    }

    /// Runs `work` on a thread in it. Sockets and processes made there stay there.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// For `ip link … netns`.
    fn path(&self) -> PathBuf {
        let own = std::process::id();
        PathBuf::from(format!("/proc/{own}/fd/{}", self.file.as_raw_fd()))
    }

    /// Numbers of its processes other than this one, oldest first.
    pub fn processes(&self) -> Vec<i32> {
        let identity = |path: &Path| fs::read_link(path).ok();
        let wanted = identity(&self.path());
        let own = i32::try_from(std::process::id()).unwrap();
        let mut found: Vec<i32> = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| {
                *pid != own && identity(Path::new(&format!("/proc/{pid}/ns/net"))) == wanted
            })
            .collect();
        found.sort_unstable();
        found
    }

    /// Sends all of its processes a signal.
    pub fn signal(&self, signal: Signal) {
        for pid in self.processes() {
            // It may have ended meanwhile.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Ends all of its processes without a word, as a power cut does, and waits until they are gone.
    pub fn kill(&self) {
        let end = Instant::now() + START_LIMIT;
        loop {
            self.signal(Signal::SIGKILL);
            // Its own children stay until somebody waits for them, but without a network.
            if self.processes().is_empty() {
                break;
            }
            assert!(Instant::now() < end, "{:?} do not end", self.processes());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Makes a key pair.
pub fn key(path: &Path) {
    let mut command = Command::new("ssh-keygen");
    command
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(path);
    assert!(command.status().unwrap().success());
}

fn open_to_all(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn ip(namespace: &Namespace, batch: &str) {
    run(namespace, Command::new("ip").args(["-batch", "-"]), batch);
}

fn nft(namespace: &Namespace, rules: &str) {
    run(namespace, Command::new("nft").args(["-f", "-"]), rules);
}

fn run(namespace: &Namespace, command: &mut Command, input: &str) -> String {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = namespace.inside(|| command.spawn().unwrap());
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.trim().is_empty(),
        "{command:?}: {said}\n{input}"
    );
    String::from_utf8(output.stdout).unwrap()
}
