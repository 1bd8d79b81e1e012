//! Sudden ends in the middle of writing: each item that was acknowledged is stored, and none twice for one key.
//!
//! A `kill -9` loses what a process held in its memory, Postgres' own buffers among it, and nothing that the kernel had
//! been given. So this sees an answer before the commit and a commit that does not wait for the log to be written, and
//! not a log that was never synced to the disk: for that the machine itself has to end.

use std::{
    collections::HashMap,
    net::{SocketAddr, TcpListener},
    process::{Child, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::support::{
    client::{self, Client},
    load::pass_listener,
    postgres::{self, TestDatabase, TestPostgres},
    server::{ANONYMOUS_WRITES, wait_for},
};

const ROUNDS: u32 = 10;
const WRITERS: u64 = 4;
/// Items acknowledged between two ends: enough that all writers are in the middle of something.
const ITEMS: u64 = 30;

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_item_is_lost_when_the_api_is_killed() {
    let database = postgres::shared().database().await;
    let mut api = Api::start(&database);
    let writers = Writers::start(api.address);
    for round in 1..=ROUNDS {
        writers.wait_for_more();
        // Not always at the same point of what it does.
        thread::sleep(Duration::from_millis(u64::from(round)));
        api.kill();
        api.start_again();
    }
    writers.wait_for_more();
    let acknowledged = writers.stop();
    assert_eq!(lost(&database, &acknowledged).await, [""; 0]);
    assert_eq!(twice(&database).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_item_is_lost_when_postgres_is_killed() {
    let mut postgres = TestPostgres::start().await;
    let name = postgres.database().await.name;
    let api = Api::start(&TestDatabase {
        postgres: &postgres,
        name: name.clone(),
    });
    let writers = Writers::start(api.address);
    for _ in 0..ROUNDS {
        writers.wait_for_more();
        postgres.kill().await;
        postgres.start_again().await;
    }
    writers.wait_for_more();
    let acknowledged = writers.stop();
    let database = TestDatabase {
        postgres: &postgres,
        name,
    };
    assert_eq!(lost(&database, &acknowledged).await, [""; 0]);
    assert_eq!(twice(&database).await, [""; 0]);
}

/// The twin: what the two above look for is found where it is planted.
#[tokio::test(flavor = "multi_thread")]
async fn commits_that_do_not_wait_for_the_log_are_seen_to_be_lost() {
    let settings = &[("synchronous_commit", "off"), ("wal_writer_delay", "10s")];
    let mut postgres = TestPostgres::start_set(settings).await;
    let name = postgres.database().await.name;
    let api = Api::start(&TestDatabase {
        postgres: &postgres,
        name: name.clone(),
    });
    let writers = Writers::start(api.address);
    writers.wait_for_more();
    postgres.kill().await;
    let acknowledged = writers.stop();
    postgres.start_again().await;
    let database = TestDatabase {
        postgres: &postgres,
        name,
    };
    assert!(!lost(&database, &acknowledged).await.is_empty());
}

/// `drawbridge-host serve` on a socket that outlives it, as systemd's does.
struct Api {
    process: Child,
    listener: TcpListener,
    address: SocketAddr,
    config: (tempfile::TempDir, std::path::PathBuf),
}

impl Api {
    fn start(database: &TestDatabase) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let config = super::configuration::file(&(database.config() + ANONYMOUS_WRITES));
        Self {
            process: spawn(&listener, &config.1),
            address: listener.local_addr().unwrap(),
            listener,
            config,
        }
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.process = spawn(&self.listener, &self.config.1);
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(listener: &TcpListener, config: &std::path::Path) -> Child {
    let mut serve = pass_listener(&[env!("CARGO_BIN_EXE_drawbridge-host"), "serve"], listener);
    serve.env("DRAWBRIDGE_CONFIG", config).stderr(Stdio::null());
    serve.spawn().unwrap()
}

/// Clients that create items without end, and note each that was acknowledged.
struct Writers {
    end: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    last_seen: Arc<Mutex<String>>,
    writers: Vec<JoinHandle<Vec<(String, String)>>>,
}

impl Writers {
    fn start(address: SocketAddr) -> Self {
        let (end, count) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let last_seen = Arc::<Mutex<String>>::default();
        let writers = (0..WRITERS).map(|number| {
            let (end, count, last_seen) = (end.clone(), count.clone(), last_seen.clone());
            thread::spawn(move || {
                let mut acknowledged = Vec::new();
                let mut kept = None;
                for name in (0..).map(|item| format!("writer {number} item {item}")) {
                    // As clients are told to: again with the same key, until there is an answer.
                    let id = loop {
                        if end.load(Ordering::Relaxed) {
                            return acknowledged;
                        }
                        match create(&mut kept, address, &name) {
                            Ok(id) => break id,
                            Err(seen) => *last_seen.lock().unwrap() = seen,
                        }
                        thread::sleep(Duration::from_millis(10));
                    };
                    acknowledged.push((id, name));
                    count.fetch_add(1, Ordering::Relaxed);
                }
                acknowledged
            })
        });
        let writers = writers.collect();
        Self {
            end,
            count,
            last_seen,
            writers,
        }
    }

    fn wait_for_more(&self) {
        let enough = self.count.load(Ordering::Relaxed) + ITEMS;
        wait_for("items to be acknowledged", || {
            if self.count.load(Ordering::Relaxed) >= enough {
                return Some(());
            }
            assert!(
                self.writers.iter().all(|writer| !writer.is_finished()),
                "a writer failed; last seen: {}",
                self.last_seen.lock().unwrap()
            );
            None
        });
    }

    /// Ids and names of what was acknowledged.
    fn stop(self) -> Vec<(String, String)> {
        self.end.store(true, Ordering::Relaxed);
        let writers = self.writers.into_iter();
        writers.flat_map(|writer| writer.join().unwrap()).collect()
    }
}

/// Creates an item under a key of its own; its id once it is acknowledged, else what was seen.
fn create(kept: &mut Option<Client>, address: SocketAddr, name: &str) -> Result<String, String> {
    let mut client = match kept.take() {
        Some(client) => client,
        None => Client::connect(address).map_err(|error| error.to_string())?,
    };
    let key = format!("Idempotency-Key: {}\r\n", name.replace(' ', "-"));
    let request = client::post("/items", &key, &format!(r#"{{"name":"{name}"}}"#));
    let reply = client.ask(&request).map_err(|error| error.to_string())?;
    if !reply.is_last {
        *kept = Some(client);
    }
    let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    match (reply.status, body["id"].as_str()) {
        (201, Some(id)) => Ok(id.to_owned()),
        // Two requests with one key at once, a database that is away: later it goes.
        (409 | 503 | 504, _) => Err(body.to_string()),
        _ => panic!("{reply:?}"),
    }
}

/// Acknowledged items that are not stored as they were acknowledged.
async fn lost(database: &TestDatabase<'_>, acknowledged: &[(String, String)]) -> Vec<String> {
    assert!(!acknowledged.is_empty());
    let session = database.session().await;
    let rows = session.query("SELECT id::text, name FROM items", &[]).await;
    let rows = rows.unwrap().into_iter();
    let stored: HashMap<String, String> = rows.map(|row| (row.get(0), row.get(1))).collect();
    let is_lost = |(id, name): &&(String, String)| stored.get(id) != Some(name);
    let lost = acknowledged.iter().filter(is_lost);
    lost.map(|(id, name)| format!("{name} as {id}")).collect()
}

/// Names that are stored more than once; each is one key's.
async fn twice(database: &TestDatabase<'_>) -> Vec<String> {
    let session = database.session().await;
    let twice = "SELECT name FROM items GROUP BY name HAVING count(*) > 1";
    let rows = session.query(twice, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}
