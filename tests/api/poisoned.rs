//! A connection whose state is not known for certain is not used again.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use diesel_async::{AsyncConnection, AsyncPgConnection};
use drawbridge::{
    config::DatabaseSettings,
    db::{Database, migrate},
    metrics::Metrics,
};
use tokio::runtime::Handle;

use crate::support::{
    postgres,
    server::{TestServer, wait_for},
};

const ITEM: &str = r#"{"name":"n"}"#;
const LOCK: &str = "BEGIN; LOCK TABLE items IN ACCESS EXCLUSIVE MODE";

fn now<T>(future: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| Handle::current().block_on(future))
}

/// The server's sessions that match.
fn sessions(watch: &tokio_postgres::Client, that: &str) -> Vec<i32> {
    let query = format!(
        "SELECT pid FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'drawbridge-host' AND {that}"
    );
    let rows = now(watch.query(&query, &[])).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

const WAITING: &str = "wait_event_type = 'Lock' AND query ILIKE 'insert%'";

fn waiting(watch: &tokio_postgres::Client) -> i32 {
    wait_for("a write to wait for the lock", || {
        sessions(watch, WAITING).first().copied()
    })
}

fn assert_ended(watch: &tokio_postgres::Client, pid: i32) {
    wait_for("the end of the session", || {
        sessions(watch, &format!("pid = {pid}"))
            .is_empty()
            .then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn one_whose_statement_was_cut_short_is_not_used_again() {
    let database = postgres::shared().database().await;
    let config = format!(
        "{}pool_size = 1\nstatement_timeout_seconds = 2\n",
        database.config()
    );
    let server = TestServer::start(&config);
    assert_eq!(server.post("/items", ITEM).status, 201);
    let (holder, watch) = (database.session().await, database.session().await);
    holder.batch_execute(LOCK).await.unwrap();
    let pid = thread::scope(|scope| {
        let cut = scope.spawn(|| server.post("/items", ITEM).status);
        let pid = waiting(&watch);
        assert_eq!(cut.join().unwrap(), 503);
        pid
    });
    assert_ended(&watch, pid);
    holder.batch_execute("COMMIT").await.unwrap();
    assert_eq!(server.post("/items", ITEM).status, 201);
}

/// Whoever drops a query that runs, as a request's time limit does.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_given_up_in_the_middle_is_not_used_again_and_its_statement_is_ended() {
    let postgres = postgres::shared();
    let database = postgres.database().await;
    // Nothing else may end the statement within the test.
    let settings = DatabaseSettings {
        host: postgres.sockets().display().to_string(),
        port: postgres.port(),
        name: database.name.clone(),
        pool_size: 1,
        statement_timeout_seconds: 299,
        ..DatabaseSettings::default()
    };
    migrate::migrate(&settings).await.unwrap();
    let handed_out = Database::open(&settings, Metrics::new()).unwrap();
    handed_out.mark_migrated();
    let (holder, watch) = (database.session().await, database.session().await);
    holder.batch_execute(LOCK).await.unwrap();
    for is_transaction in [false, true] {
        let mut connection = handed_out.connection().await.unwrap();
        let write = async {
            let connection: &mut AsyncPgConnection = &mut connection;
            if is_transaction {
                connection
                    .transaction(async |connection| insert(connection).await)
                    .await
            } else {
                insert(connection).await
            }
        };
        let mut write = Box::pin(write);
        let pid = wait_for("the write to wait for the lock", || {
            let polled = now(tokio::time::timeout(Duration::from_millis(100), &mut write));
            assert!(polled.is_err(), "{polled:?}");
            sessions(&watch, WAITING).first().copied()
        });
        drop(write);
        drop(connection);
        assert_ended(&watch, pid);
    }
    // The only place in the pool is free again once the lock is, and nothing of the abandoned went through.
    holder.batch_execute("COMMIT").await.unwrap();
    let mut connection = handed_out.connection().await.unwrap();
    insert(&mut connection).await.unwrap();
    let count = watch.query_one("SELECT count(*) FROM items", &[]).await;
    assert_eq!(count.unwrap().get::<_, i64>(0), 1);
}

async fn insert(connection: &mut AsyncPgConnection) -> diesel::QueryResult<usize> {
    // It is implemented for all types, the tests' numbers included, so nobody else here sees it.
    use diesel_async::RunQueryDsl;
    diesel::sql_query("INSERT INTO items (id, name) VALUES (gen_random_uuid(), 'n')")
        .execute(connection)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_speaks_nonsense_is_not_used_again() {
    let postgres = postgres::shared();
    let database = postgres.database().await;
    let proxy = Babbler::start(postgres.port());
    let config = database.config_over_tcp(postgres::PASSWORD).replace(
        &format!("port = {}", postgres.port()),
        &format!("port = {}", proxy.port),
    );
    let server = TestServer::start(&format!("{config}pool_size = 1\n"));
    let path = server.post("/items", ITEM);
    let path = path.header("location").unwrap().to_owned();
    assert_eq!(server.get(&path).status, 200);
    proxy.babble();
    // The server's end of a connection is closed when it has heard enough.
    wait_for("the connections to be given up", || {
        (proxy.living.load(Ordering::SeqCst) == 0).then_some(())
    });
    for _ in 0..4 {
        assert_eq!(server.post("/items", ITEM).status, 201, "{}", server.log());
        assert_eq!(server.get(&path).status, 200, "{}", server.log());
    }
}

/// Between server and database; it can say something that no database says, on every connection there is.
struct Babbler {
    port: u16,
    clients: Arc<std::sync::Mutex<Vec<TcpStream>>>,
    living: Arc<AtomicUsize>,
}

impl Babbler {
    fn start(to: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let babbler = Self {
            port: listener.local_addr().unwrap().port(),
            clients: Arc::default(),
            living: Arc::default(),
        };
        let (clients, living) = (Arc::clone(&babbler.clients), Arc::clone(&babbler.living));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).unwrap();
                clients.lock().unwrap().push(client.try_clone().unwrap());
                let (from, into) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || copy(from, into));
                let living = Arc::clone(&living);
                living.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || {
                    copy(client, server);
                    living.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        babbler
    }

    fn babble(&self) {
        for mut client in self.clients.lock().unwrap().drain(..) {
            // One that has ended already is as good.
            drop(client.write_all(b"\xff\xff\xff\xff\xff\xff\xff\xff"));
        }
    }
}

fn copy(mut from: TcpStream, mut into: TcpStream) {
    let mut bytes = [0; 4096];
    while let Ok(count) = from.read(&mut bytes)
        && count > 0
        && into.write_all(&bytes[..count]).is_ok()
    {}
    drop(into.shutdown(Shutdown::Both));
}
