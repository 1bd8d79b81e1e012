//! What is measured: one Postgres, our servers and the peer on it, and that both say the same.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::support::{
    self,
    client::{self, Client, Reply},
    postgres::{TestDatabase, TestPostgres},
    server::{ANONYMOUS_WRITES, host},
};

/// Durable, and large enough that reads come from memory.
const SETTINGS: &[(&str, &str)] = &[
    ("fsync", "on"),
    ("ssl", "off"),
    ("max_connections", "300"),
    ("shared_buffers", "512MB"),
    ("max_wal_size", "4GB"),
    ("maintenance_work_mem", "512MB"),
    // No surprise in the middle of a round.
    ("autovacuum", "off"),
];

/// Rows that single reads ask for in turn.
pub const ASKED: usize = 16;

/// Postgres for one run.
pub struct Stage {
    pub runtime: Runtime,
    pub postgres: TestPostgres,
    /// Environment variables of every server of ours.
    settings: Vec<(String, String)>,
}

impl Stage {
    pub fn start(settings: Vec<(String, String)>) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let postgres = runtime.block_on(TestPostgres::start_set(SETTINGS));
        Self {
            runtime,
            postgres,
            settings,
        }
    }

    /// A database with our schema and this many items.
    pub fn database(&self, rows: u64) -> TestDatabase<'_> {
        let database = self.runtime.block_on(self.postgres.database());
        drop(Ours::start(self, &database, ""));
        self.runtime.block_on(async {
            let session = database.session().await;
            // An index of trigrams is made many times faster than it is kept up to date.
            let slow = "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
                        JOIN pg_class ON oid = indexrelid JOIN pg_am ON pg_am.oid = relam
                        WHERE indrelid = 'items'::regclass AND amname = 'gin'";
            let slow = session.query(slow, &[]).await.unwrap();
            let all = |column: usize, before: &str| -> String {
                slow.iter().map(|row| format!("{before}{};", row.get::<_, String>(column))).collect()
            };
            session.batch_execute(&all(0, "DROP INDEX ")).await.unwrap();
            // Ids in order, as the server's are; a second apart, the last one now; a description of a sentence or two.
            let fill = format!(
                "INSERT INTO items (id, name, description, created_at)
                 SELECT ('01930000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'Item number ' || n,
                        'What there is to say about number ' || n || ', in about as many words as people use for it.',
                        now() - make_interval(secs => {rows} - n)
                 FROM generate_series(1, {rows}) n"
            );
            session.batch_execute(&fill).await.unwrap();
            session.batch_execute(&all(1, "")).await.unwrap();
            session.batch_execute("VACUUM ANALYZE items").await.unwrap();
            session.batch_execute("CHECKPOINT").await.unwrap();
        });
        database
    }

    /// Ids of rows spread over the whole table.
    pub fn ids(&self, database: &TestDatabase) -> Vec<String> {
        let spread = format!(
            "SELECT id::text FROM (SELECT id, row_number() OVER (ORDER BY id) AS n, count(*) OVER () AS all FROM items) i
             WHERE n % (\"all\" / {ASKED}) = 1 LIMIT {ASKED}"
        );
        let rows = self
            .runtime
            .block_on(async { database.session().await.query(&spread, &[]).await.unwrap() });
        assert_eq!(rows.len(), ASKED, "too few rows to ask for");
        rows.iter().map(|row| row.get(0)).collect()
    }
}

/// Every read asks Postgres.
pub const UNCACHED: &str = "[cache]\nseconds = 0\n";

/// Our server, as it is released.
pub struct Ours {
    server: Child,
    pub address: SocketAddr,
    /// From its start to the first 200 of `/ready`.
    pub ready_after: Duration,
    _config: TempDir,
}

impl Ours {
    /// With this configuration besides the database's; without a line of the log for each request, as the peer.
    pub fn start(stage: &Stage, database: &TestDatabase, further: &str) -> Self {
        Self::start_logging(stage, database, further, "warn")
    }

    /// With this `log.filter`; the log goes to a file.
    pub fn start_logging(
        stage: &Stage,
        database: &TestDatabase,
        further: &str,
        filter: &str,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config.toml");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, support::free_port()));
        let text = format!(
            "[http]\nlisten = \"{address}\"\n{}{ANONYMOUS_WRITES}[log]\nfilter = \"{filter}\"\n{further}",
            database.config()
        );
        fs::write(&config, text).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let begin = Instant::now();
        let settings = stage.settings.iter().map(|(name, value)| (name, value));
        let mut server = host(&config);
        server.arg("serve").envs(settings).stderr(log);
        let server = server.spawn().unwrap();
        let mut ours = Self {
            server,
            address,
            ready_after: Duration::ZERO,
            _config: folder,
        };
        wait_ready("the server", &mut ours.server, address);
        ours.ready_after = begin.elapsed();
        ours
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.server.id().cast_signed())
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

/// Asks `/ready` every millisecond until it answers 200.
fn wait_ready(what: &str, server: &mut Child, address: SocketAddr) {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let seen = ask(address, &client::get("/ready"));
        if seen.as_ref().is_ok_and(|reply| reply.status == 200) {
            return;
        }
        if let Some(status) = server.try_wait().unwrap() {
            panic!("{what} ended: {status}");
        }
        assert!(
            Instant::now() < end,
            "{what} is not ready after a minute: {seen:?}"
        );
        thread::sleep(Duration::from_millis(1));
    }
}

/// The FastAPI service, with as many workers as there are cores.
pub struct Peer {
    master: Child,
    pub address: SocketAddr,
    pub ready_after: Duration,
}

impl Peer {
    pub fn start(stage: &Stage, database: &TestDatabase) -> Self {
        let port = support::free_port();
        let sockets = stage.postgres.sockets().display();
        let url = format!(
            "postgresql+asyncpg://drawbridge@/{}?host={sockets}&port={}",
            database.name,
            stage.postgres.port()
        );
        let workers = cores().to_string();
        let mut command = Command::new(python());
        command
            .args([
                "-m",
                "uvicorn",
                "app:app",
                "--loop",
                "uvloop",
                "--http",
                "httptools",
            ])
            .args([
                "--no-access-log",
                "--log-level",
                "warning",
                "--workers",
                &workers,
            ])
            .args(["--port", &port.to_string(), "--app-dir"])
            .arg(support::repository().join("benches/peer"))
            .env("DATABASE_URL", url)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null());
        let begin = Instant::now();
        let mut peer = Self {
            master: command.spawn().expect("the peer's python"),
            ready_after: Duration::ZERO,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        };
        wait_ready("the peer", &mut peer.master, peer.address);
        peer.ready_after = begin.elapsed();
        peer
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.master.id().cast_signed())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Its workers end with it only if it is asked.
        let _ = nix::sys::signal::kill(self.pid(), Signal::SIGTERM);
        for _ in 0..100 {
            if let Ok(Some(_)) = self.master.try_wait() {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
        for pid in crate::process::family(self.pid()) {
            let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
        }
        drop(self.master.wait());
    }
}

/// The interpreter that `scripts/bench` gave the peer's packages.
fn python() -> PathBuf {
    let python = support::repository().join(".drawbridge/peer/bin/python");
    assert!(
        python.exists(),
        "{} is missing: run scripts/bench, which installs it",
        python.display()
    );
    python
}

/// How many processors there are.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// One answer on a connection of its own.
pub fn ask(address: SocketAddr, request: &[u8]) -> std::io::Result<Reply> {
    Client::connect(address)?.ask(request)
}

/// Fails unless both give the same answers to what is measured. Times are compared as times: `.120Z` is `.12Z`.
pub fn compare(ours: SocketAddr, peer: SocketAddr, ids: &[String]) {
    let json = |address, request: &[u8], status| -> Value {
        let reply = ask(address, request).expect("an answer");
        assert_eq!(reply.status, status, "{address}: {reply:?}");
        serde_json::from_slice(&reply.body).expect("JSON")
    };
    for id in ids {
        let request = client::get(&format!("/items/{id}"));
        same(json(ours, &request, 200), json(peer, &request, 200));
    }
    for request in [client::get("/items"), client::get("/items?limit=3")] {
        same(json(ours, &request, 200), json(peer, &request, 200));
    }
    let [a, b] = [ours, peer].map(|address| json(address, &create(), 201));
    // They are two items.
    let without = |mut item: Value| {
        let item = item.as_object_mut().unwrap();
        assert!(item.remove("id").is_some() && item.remove("created_at").is_some());
        Value::from(item.clone())
    };
    same(without(a), without(b));
    for bad in [r#"{"name":""}"#, r#"{"name":"n","nmae":"n"}"#, "{"] {
        for address in [ours, peer] {
            let status = ask(address, &client::post("/items", "", bad))
                .unwrap()
                .status;
            assert!((400..500).contains(&status), "{address}: {bad}: {status}");
        }
    }
}

/// The item that is created again and again.
pub fn create() -> Vec<u8> {
    client::post("/items", "", BODY)
}

/// Its body.
pub const BODY: &str = r#"{"name":"An item","description":"What there is to say about it, in about as many words as people use for it."}"#;

fn same(ours: Value, peer: Value) {
    assert_eq!(with_times(ours), with_times(peer));
}

/// With each `created_at` as nanoseconds.
fn with_times(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(with_times).collect(),
        Value::Object(item) => item
            .into_iter()
            .map(|(name, value)| {
                if name != "created_at" {
                    return (name, value);
                }
                let format = &time::format_description::well_known::Rfc3339;
                let time = time::OffsetDateTime::parse(value.as_str().unwrap(), format).unwrap();
                (name, time.unix_timestamp_nanos().to_string().into())
            })
            .collect(),
        other => other,
    }
}

/// A file for a load generator.
pub fn file(stage: &Stage, name: &str, text: &str) -> PathBuf {
    let path: &Path = stage.postgres.folder();
    let path = path.join(name);
    fs::write(&path, text).unwrap();
    path
}
