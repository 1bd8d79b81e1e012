//! A real Postgres for tests: one per test process, a database per test, and nothing left when the process is gone,
//! however it ended.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
};

use drawbridge::postgres::{Binaries, Cluster, Owner, is_alive};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::process::Child;

use super::server::wait_for;

/// The password of the role `drawbridge` over TCP.
pub const PASSWORD: &str = "planted-database-password";

/// A running server with TLS: over TCP by password, over its Unix socket by whoever can reach it.
pub struct TestPostgres {
    cluster: Cluster,
    folder: PathBuf,
    /// It listens there only.
    address: &'static str,
    port: u16,
    settings: &'static [(&'static str, &'static str)],
    server: Option<Child>,
    guardian: Option<ChildStdin>,
}

/// The server all tests of this process share.
pub fn shared() -> &'static TestPostgres {
    static SHARED: OnceLock<TestPostgres> = OnceLock::new();
    SHARED.get_or_init(|| {
        let (sender, receiver) = mpsc::channel();
        // The child belongs to the runtime that started it, which must outlive the single test.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                sender.send(TestPostgres::start().await).unwrap();
                std::future::pending::<()>().await;
            });
        });
        receiver.recv().expect("the shared Postgres did not start")
    })
}

impl TestPostgres {
    /// A server of the test's own, to stop and start at will.
    pub async fn start() -> Self {
        Self::start_set(&[]).await
    }

    /// With these settings besides, which win over the tests' own.
    pub async fn start_set(settings: &'static [(&'static str, &'static str)]) -> Self {
        let hba = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
        let mut postgres = Self::prepare(hba, "127.0.0.1").await;
        postgres.settings = settings;
        postgres.start_again().await;
        postgres
    }

    /// A primary on 127.0.0.1 and its streaming replica on 127.0.0.2, at the same port, which let everybody in.
    pub async fn start_pair() -> (Self, Self) {
        let hba =
            "local all all trust\nlocal replication all trust\nhost all all 127.0.0.0/8 trust\n";
        let primary = Self::start_with(hba, "127.0.0.1").await;
        let replica = primary.replicate("127.0.0.2").await;
        (primary, replica)
    }

    /// A streaming replica of it on `address`, which it has a certificate for.
    async fn replicate(&self, address: &'static str) -> Self {
        let (folder, cluster) = files();
        let data = cluster.data();
        let (port, sockets) = (self.port.to_string(), self.cluster.sockets());
        let mut copy = cluster.command("pg_basebackup");
        copy.args([
            "-R",
            "-X",
            "stream",
            "-c",
            "fast",
            "--no-sync",
            "-U",
            "postgres",
        ]);
        copy.args(["-p", &port, "-h"])
            .arg(sockets)
            .arg("-D")
            .arg(&data);
        let copied = copy.output().await.unwrap();
        assert!(copied.status.success(), "{copied:?}");
        let mut replica = Self {
            cluster,
            folder,
            address,
            port: self.port,
            settings: &[],
            server: None,
            guardian: None,
        };
        replica.certify();
        replica.start_again().await;
        replica
    }

    /// Makes a certificate for its address.
    fn certify(&self) {
        let (certificate, key) = self_signed(self.address);
        self.cluster
            .write_private("server.crt", &certificate)
            .unwrap();
        self.cluster.write_private("server.key", &key).unwrap();
        fs::write(self.folder.join("server.pem"), certificate).unwrap();
    }

    /// With these rules, and a certificate for this address.
    pub async fn start_with(hba: &str, certified: &str) -> Self {
        let mut postgres = Self::prepare(hba, certified).await;
        postgres.start_again().await;
        postgres
    }

    async fn prepare(hba: &str, certified: &str) -> Self {
        let (folder, cluster) = files();
        let role = format!("CREATE ROLE drawbridge LOGIN CREATEDB PASSWORD '{PASSWORD}'");
        cluster.create_if_missing(&[&role]).await.unwrap();
        cluster.write_access(hba, "").unwrap();
        let (certificate, key) = self_signed(certified);
        cluster.write_private("server.crt", &certificate).unwrap();
        cluster.write_private("server.key", &key).unwrap();
        fs::write(folder.join("server.pem"), certificate).unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        Self {
            cluster,
            folder,
            address: "127.0.0.1",
            port,
            settings: &[],
            server: None,
            guardian: None,
        }
    }

    /// Starts it (again), on the same files and the same port.
    pub async fn start_again(&mut self) {
        let port = self.port.to_string();
        let settings = [
            ("listen_addresses", self.address),
            ("port", &port),
            ("ssl", "on"),
            ("fsync", "off"),
            ("max_connections", "100"),
            ("shared_buffers", "16MB"),
        ];
        // Of a setting that is given twice the last one counts.
        let settings = [&settings, self.settings].concat();
        let mut server = self.cluster.spawn(&settings).unwrap();
        self.cluster.wait_ready(&mut server).await.unwrap();
        self.guardian = Some(guard(server.id().unwrap(), &self.folder));
        self.server = Some(server);
    }

    /// Ends the postmaster and every one of its processes at once, as a power cut would; its files stay as the kernel
    /// has them.
    pub async fn kill(&mut self) {
        let mut guardian = self.guardian.take().unwrap();
        std::io::Write::write_all(&mut guardian, b"dismissed\n").unwrap();
        let postmaster = self.pid();
        let mut server = self.server.take().unwrap();
        // Stopped, it starts no more of them.
        kill(postmaster, Signal::SIGSTOP).unwrap();
        let children = super::process::children(postmaster);
        for pid in children.iter().chain([&postmaster]) {
            // One that has ended by itself a moment ago is as good.
            let _ = kill(*pid, Signal::SIGKILL);
        }
        server.wait().await.unwrap();
        wait_for("the end of Postgres' processes", || {
            children.iter().all(|pid| !is_alive(*pid)).then_some(())
        });
    }

    /// Stops it; its files stay.
    pub async fn stop(&mut self) {
        // A guardian would remove the files; `start_again` posts a new one.
        let mut guardian = self.guardian.take().unwrap();
        std::io::Write::write_all(&mut guardian, b"dismissed\n").unwrap();
        self.cluster.stop(self.server.take().unwrap()).await;
    }

    /// A new, empty database, owned by `drawbridge`.
    pub async fn database(&self) -> TestDatabase<'_> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.run(
            "postgres",
            &format!("CREATE DATABASE {name} OWNER drawbridge"),
        )
        .await;
        TestDatabase {
            postgres: self,
            name,
        }
    }

    /// A session of the superuser.
    pub async fn session(&self, database: &str) -> tokio_postgres::Client {
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(self.cluster.sockets())
            .port(self.port)
            .user("postgres")
            .dbname(database);
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Its Unix socket.
    pub fn socket(&self) -> PathBuf {
        let name = format!(".s.PGSQL.{}", self.port);
        self.cluster.sockets().join(name)
    }

    async fn run(&self, database: &str, statement: &str) {
        self.session(database)
            .await
            .batch_execute(statement)
            .await
            .unwrap();
    }

    /// The postmaster.
    pub fn pid(&self) -> Pid {
        let server = self.server.as_ref().expect("it runs");
        Pid::from_raw(server.id().unwrap().cast_signed())
    }

    /// The folder of its Unix socket.
    pub fn sockets(&self) -> &Path {
        self.cluster.sockets()
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's certificate, self-signed, for 127.0.0.1 if nothing else was asked for.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("server.pem")
    }

    /// A folder for the test's own files, removed with the rest.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// A folder that stays until somebody removes it, and the place for a server's files in it.
fn files() -> (PathBuf, Cluster) {
    let folder = tempfile::Builder::new()
        .prefix("drawbridge-test-")
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir()
        .unwrap()
        .keep();
    let owner = Owner::for_this_process().unwrap();
    let place = folder.join("postgresql");
    let cluster = Cluster::prepare(Binaries::find().unwrap(), &place, owner).unwrap();
    (folder, cluster)
}

/// One test's database.
pub struct TestDatabase<'a> {
    pub postgres: &'a TestPostgres,
    pub name: String,
}

impl TestDatabase<'_> {
    /// `[database]` for a connection through the Unix socket.
    pub fn config(&self) -> String {
        let (sockets, port) = (self.postgres.sockets(), self.postgres.port);
        format!(
            "[database]\nhost = {sockets:?}\nport = {port}\nname = \"{}\"\n",
            self.name
        )
    }

    /// `[database]` for a connection over TCP with the password in a file.
    pub fn config_over_tcp(&self, password: &str) -> String {
        let path = self.postgres.folder.join(format!("{}.password", self.name));
        fs::write(&path, password).unwrap();
        format!(
            "[database]\nhost = \"127.0.0.1\"\nport = {}\nname = \"{}\"\npassword_file = {path:?}\n",
            self.postgres.port, self.name
        )
    }

    /// A session of the superuser in this database.
    pub async fn session(&self) -> tokio_postgres::Client {
        self.postgres.session(&self.name).await
    }
}

/// A certificate for one IP address that is its own issuer, as the appliance's database makes it, and its key.
pub fn self_signed(address: &str) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new([address.to_owned()]).unwrap();
    parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(2100, 1, 1);
    let certificate = parameters.self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

/// Waits, in a process of its own, for this process to end in whatever way (its end of the pipe is closed then), stops
/// the server and removes its files.
// It outlives this process by design, so nobody here can wait for it.
#[allow(clippy::zombie_processes)]
pub fn guard(server: u32, folder: &Path) -> ChildStdin {
    const SCRIPT: &str = r#"
        if read -r _; then exit; fi
        # A stopped one hears nothing.
        kill -CONT "$1"
        kill -INT "$1"
        for _ in $(seq 100); do kill -0 "$1" 2>/dev/null || break; sleep 0.1; done
        rm -rf "$2"
    "#;
    let mut guardian = Command::new("sh")
        .args(["-c", SCRIPT, "guardian", &server.to_string()])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    guardian.stdin.take().unwrap()
}
