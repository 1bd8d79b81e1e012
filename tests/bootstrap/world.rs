//! A private machine for the bootstrap: own mounts, network and processes, so that the production paths can be used.
//!
//! A test calls [`inside`], which starts this test program again under `unshare` for one (ignored) test. There
//! [`World::new`] makes /var/lib, /run, /etc/ssh and /dev of its own. All of it ends with the process.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_sdk_ssm::types::ParameterType;
use drawbridge::appliance::{BootstrapReport, ReportState, Role, parameter, path};

use super::imds::Imds;

pub const NAME: &str = "drawbridge";
pub const DATABASE_ADDRESS: &str = "10.20.3.10";
pub const VOLUME: &str = "vol-0123456789abcdef0";
const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0hQUfnGVXl+vU0Rr2Yl1mY5sVmJ2bJ2wF4l0dXo9aB ada";
pub const WORLD: &str = "DRAWBRIDGE_TEST_WORLD";

/// What Terraform tells a host of this role; `more` is what only that role is told.
pub fn user_data(role: &str, more: &str) -> String {
    format!(
        r#"{{"name":"{NAME}","role":"{role}","region":"ap-south-1","admin_keys":["{KEY}"],"tunnel_keys":[]{more}}}"#
    )
}

/// Runs the ignored test `name` of this program in a private world, and removes what a world cannot remove itself.
pub fn inside(name: &str) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED {name}: needs root to mount a volume");
        return;
    }
    let dir = tempfile::Builder::new()
        .prefix("drawbridge-world-")
        .tempdir()
        .unwrap();
    // Postgres's user walks through it.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let status = Command::new("unshare")
        .args([
            "-m",
            "-n",
            "-p",
            "-f",
            "--kill-child",
            "--mount-proc",
            "--propagation",
            "private",
        ])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
            name,
        ])
        .env(WORLD, dir.path())
        .status()
        .unwrap();
    let attached = output(
        Command::new("losetup")
            .arg("-j")
            .arg(dir.path().join("disk")),
    );
    for line in String::from_utf8_lossy(&attached.stdout).lines() {
        let device = line.split(':').next().unwrap_or_default();
        output(Command::new("losetup").args(["-d", device]));
    }
    assert!(status.success(), "{name} failed in its world: {status}");
}

pub fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

pub fn sh(script: &str) -> String {
    let output = output(Command::new("sh").args(["-euc", script]));
    assert!(
        output.status.success(),
        "{script}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().into()
}

/// A file's permissions.
pub fn mode(file: &str) -> u32 {
    fs::metadata(file).unwrap().permissions().mode() & 0o7777
}

/// The last processes of a server that was stopped hard may hold the volume for a moment.
pub const UNMOUNT: &str = "for i in $(seq 50); do
    if ! mountpoint -q /var/lib/postgresql || umount /var/lib/postgresql 2>/dev/null; then break; fi; sleep 0.1; done
    ! mountpoint -q /var/lib/postgresql";

pub struct World {
    pub dir: PathBuf,
    pub imds: Imds,
    /// Where the hosts' programs find the cloud.
    pub cloud: String,
    pub seen: Arc<Mutex<HashSet<String>>>,
    moto: Option<Child>,
    runtime: tokio::runtime::Runtime,
    ssm: aws_sdk_ssm::Client,
}

impl World {
    pub fn new() -> Self {
        let dir = PathBuf::from(std::env::var(WORLD).expect("started through world::inside"));
        let at = dir.display();
        sh(&format!(
            "ip link set lo up; ip addr add {DATABASE_ADDRESS}/32 dev lo
             mkdir {at}/dev {at}/ssh {at}/bin; mount -t tmpfs dev {at}/dev
             cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty {at}/dev
             for i in 0 1 2 3 4 5 6 7; do mknod {at}/dev/loop$i b 7 $i; done
             mknod {at}/dev/loop-control c 10 237; ln -s /proc/self/fd {at}/dev/fd
             mkdir -p {at}/dev/disk/by-id {at}/dev/shm; chmod 1777 {at}/dev/shm; : > {at}/dev/console
             mount --bind {at}/dev /dev; mount --bind {at}/ssh /etc/ssh
             printf '%032d\\n' 1 > {at}/machine-id
             [ ! -e /etc/machine-id ] || mount --bind {at}/machine-id /etc/machine-id
             echo 'MemTotal: 1048576 kB' > {at}/meminfo; mount --bind {at}/meminfo /proc/meminfo
             mount -t tmpfs -o mode=755 var-lib /var/lib; mount -t tmpfs -o mode=755 run /run
             mkdir -p /var/lib/systemd /run/postgresql; chown postgres: /run/postgresql"
        ));
        let systemctl = dir.join("bin/systemctl");
        fs::write(&systemctl, include_str!("systemctl.sh")).unwrap();
        fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let config = aws_sdk_ssm::Config::builder()
            .behavior_version(aws_sdk_ssm::config::BehaviorVersion::latest())
            .region(aws_sdk_ssm::config::Region::new("ap-south-1"))
            .endpoint_url("http://127.0.0.1:5000")
            .credentials_provider(aws_sdk_ssm::config::Credentials::new(
                "test", "test", None, None, "test",
            ))
            .build();
        let mut world = World {
            imds: Imds::start("127.0.0.1:1338"),
            cloud: "http://127.0.0.1:5000".into(),
            seen: Arc::default(),
            moto: None,
            ssm: aws_sdk_ssm::Client::from_conf(config),
            runtime,
            dir,
        };
        world.watch_processes();
        world.start_ssm();
        world
    }

    /// Collects every command line in this world, for secrets to be looked for in them.
    fn watch_processes(&self) {
        let seen = self.seen.clone();
        std::thread::spawn(move || {
            loop {
                for process in fs::read_dir("/proc").unwrap().flatten() {
                    if let Ok(line) = fs::read(process.path().join("cmdline")) {
                        let line = String::from_utf8_lossy(&line).replace('\0', " ");
                        seen.lock().unwrap().insert(line);
                    }
                }
                std::thread::sleep(Duration::from_millis(3));
            }
        });
    }

    pub fn start_ssm(&mut self) {
        let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join(".drawbridge/venv/bin/python");
        let emulator = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/rehearsal/emulator.py");
        let mut command = match venv.exists() && emulator.exists() {
            true => {
                let mut command = Command::new(venv);
                command.arg(emulator);
                command
            }
            false => Command::new("moto_server"),
        };
        let log = fs::File::create(self.dir.join("moto.log")).unwrap();
        command
            .args(["-H", "127.0.0.1", "-p", "5000"])
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.moto = Some(command.process_group(0).spawn().unwrap());
        let start = Instant::now();
        while std::net::TcpStream::connect("127.0.0.1:5000").is_err() {
            assert!(
                start.elapsed() < Duration::from_secs(300),
                "moto does not listen"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        self.placeholders();
    }

    /// What Terraform creates.
    fn placeholders(&self) {
        for role in Role::ALL {
            self.put(
                &parameter::bootstrap_report(NAME, role),
                ParameterType::String,
            );
            self.put(&parameter::ssh_host_key(NAME, role), ParameterType::String);
        }
        self.put(
            &parameter::database_certificate(NAME),
            ParameterType::String,
        );
        self.put(
            &parameter::database_login(NAME),
            ParameterType::SecureString,
        );
    }

    fn put(&self, name: &str, kind: ParameterType) {
        self.set_parameter(name, kind, parameter::PENDING);
    }

    pub fn set_parameter(&self, name: &str, kind: ParameterType, value: &str) {
        let request = self
            .ssm
            .put_parameter()
            .name(name)
            .value(value)
            .r#type(kind)
            .overwrite(true);
        self.runtime.block_on(request.send()).unwrap();
    }

    pub fn parameter(&self, name: &str) -> String {
        let request = self.ssm.get_parameter().name(name).with_decryption(true);
        self.runtime
            .block_on(request.send())
            .unwrap()
            .parameter
            .unwrap()
            .value
            .unwrap()
    }

    pub fn stop_ssm(&mut self) {
        if let Some(mut moto) = self.moto.take() {
            kill_group(&moto);
            moto.wait().unwrap();
        }
    }

    /// A new database instance with a blank volume and nothing published.
    pub fn fresh_database(&self, id: &str) {
        let at = self.dir.display();
        sh(&format!(
            "export PATH={at}/bin:$PATH; systemctl stop postgresql.target; {UNMOUNT}
             for d in $(losetup -j {at}/disk | cut -d: -f1); do losetup -d $d; done
             rm -rf /var/lib/drawbridge /var/lib/systemd/* /etc/ssh/* {at}/disk /dev/disk/by-id/*
             truncate -s 128M {at}/disk; : > /dev/console
             ln -s $(losetup -f --show {at}/disk) /dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{}",
            VOLUME.replace('-', "")
        ));
        self.placeholders();
        self.imds.instance(
            id,
            DATABASE_ADDRESS,
            &user_data(
                "database",
                &format!(r#","backend_cidr":"10.20.2.0/23","data_volume":"{VOLUME}""#),
            ),
        );
    }

    /// A new backend instance beside the database, which keeps running.
    pub fn fresh_backend(&self, id: &str) {
        sh("rm -rf /var/lib/drawbridge /var/lib/systemd/* /etc/ssh/*; : > /dev/console");
        Self::describe_backend(&self.imds, id);
    }

    /// What the metadata service says to a backend.
    pub fn describe_backend(imds: &Imds, id: &str) {
        imds.instance(
            id,
            "10.20.2.10",
            &user_data(
                "backend",
                &format!(r#","database_address":"{DATABASE_ADDRESS}""#),
            ),
        );
    }

    pub fn start(&self, arguments: &[&str]) -> Child {
        let arguments: Vec<&str> = ["bootstrap"].iter().chain(arguments).copied().collect();
        let program = env!("CARGO_BIN_EXE_drawbridge-host");
        self.spawn(Command::new(program).args(arguments), &self.imds)
    }

    /// Starts a program as on a host: its tools, its metadata service, its cloud; its output goes to the log.
    pub fn spawn(&self, command: &mut Command, imds: &Imds) -> Child {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .unwrap();
        let path = std::env::var("PATH").unwrap();
        command
            .env("PATH", format!("{}/bin:{path}", self.dir.display()))
            .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", imds.url())
            .env("AWS_ENDPOINT_URL", &self.cloud)
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            // Everything, so that a secret in anybody's log line is found.
            .env("RUST_LOG", "trace")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap()
    }

    pub fn run(&self, arguments: &[&str]) -> bool {
        self.start(arguments).wait().unwrap().success()
    }

    #[track_caller]
    pub fn run_to_the_end(&self) {
        assert!(self.run(&["--timeout", "60"]), "{}", self.story());
    }

    /// Our own lines of the log.
    pub fn story(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap();
        let ours = log
            .lines()
            .filter(|line| line.contains("\"target\":\"drawbridge::"));
        ours.collect::<Vec<_>>().join("\n")
    }

    pub fn log(&self) -> PathBuf {
        self.dir.join("bootstrap.log")
    }

    pub fn local(&self) -> Option<BootstrapReport> {
        match ReportState::parse(&fs::read_to_string(path::REPORT).ok()?) {
            ReportState::Reported(report) => Some(report),
            other => panic!("{other:?}"),
        }
    }

    pub fn told(&self, role: Role) -> ReportState {
        ReportState::parse(&self.parameter(&parameter::bootstrap_report(NAME, role)))
    }

    /// Whether a login opens the database from the network, with the published certificate verified.
    pub fn can_log_in(&self, user: &str, password: &str) -> bool {
        let ca = self.dir.join("ca.pem");
        fs::write(&ca, self.parameter(&parameter::database_certificate(NAME))).unwrap();
        let target = format!(
            "host={DATABASE_ADDRESS} user={user} dbname=drawbridge sslmode=verify-full sslrootcert={}",
            ca.display()
        );
        // What migrations do: tables, and an extension that Postgres trusts the database's owner with.
        let statements = "CREATE TABLE IF NOT EXISTS t (); CREATE EXTENSION IF NOT EXISTS pg_trgm";
        let mut command = Command::new("psql");
        command
            .args([&target, "-Atc", statements])
            .env("PGPASSWORD", password);
        output(&mut command).status.success()
    }
}

pub fn kill_group(child: &Child) {
    let group = nix::unistd::Pid::from_raw(child.id() as i32);
    let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
}
