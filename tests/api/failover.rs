//! The database goes away, comes back, refuses writes, or is somewhere else all of a sudden.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    time::{Duration, Instant},
};

use crate::support::{
    postgres::{self, TestPostgres},
    server::{TestServer, wait_for},
};

const ITEM: &str = r#"{"name":"n"}"#;

/// Far above what twenty answers take, far below twenty times `connect_timeout_seconds`.
const AT_ONCE: Duration = Duration::from_secs(30);
const CONNECT_LIMIT: &str = "connect_timeout_seconds = 10\n";
/// What the cache has kept would be answered all the same.
const UNCACHED: &str = "[cache]\nseconds = 0\n";

/// Twenty requests that all fail must take little more than none.
fn assert_fails_at_once(server: &TestServer) {
    let started = Instant::now();
    for path in ["/items", "/items/00000000-0000-0000-0000-000000000000"].repeat(5) {
        server.get(path).problem(503);
        server.post("/items", ITEM).problem(503);
    }
    let took = started.elapsed();
    assert!(took < AT_ONCE, "twenty 503s took {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_database_the_answer_is_503_at_once_and_with_one_again_200() {
    let mut postgres = TestPostgres::start().await;
    let config = postgres
        .database()
        .await
        .config_over_tcp(postgres::PASSWORD);
    let server = TestServer::start(&format!("{config}{CONNECT_LIMIT}{UNCACHED}"));
    assert_eq!(server.post("/items", ITEM).status, 201);

    postgres.stop().await;
    assert_fails_at_once(&server);
    {
        // Worse than nobody: somebody who takes connections and says nothing.
        let _silent = TcpListener::bind((Ipv4Addr::LOCALHOST, postgres.port())).unwrap();
        assert_fails_at_once(&server);
        assert_eq!(server.get("/health").status, 200);
    }
    postgres.start_again().await;
    let started = Instant::now();
    wait_for("a write after the database came back", || {
        (server.post("/items", ITEM).status == 201).then_some(())
    });
    let took = started.elapsed();
    assert!(took < AT_ONCE, "in use again after {took:?} only");
    assert_eq!(server.get("/items").status, 200);
}

/// Of a list of hosts the one that accepts writes is used, its certificate is checked against its own name, and after a
/// failover the next one is used without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_that_accepts_writes_is_found_and_followed() {
    let (mut primary, standby) = TestPostgres::start_pair().await;
    let ca = primary.folder().join("both.pem");
    let both = [primary.certificate(), standby.certificate()].map(fs::read_to_string);
    fs::write(&ca, both.map(Result::unwrap).concat()).unwrap();
    let config = {
        let database = primary.database().await;
        database
            .config_over_tcp(postgres::PASSWORD)
            .replace("\"127.0.0.1\"", "\"127.0.0.2,127.0.0.1\"")
    };
    let server = TestServer::start(&format!(
        "{config}{CONNECT_LIMIT}ca_file = {ca:?}\n{UNCACHED}"
    ));
    let kept = server.post("/items", ITEM);
    assert_eq!(kept.status, 201);
    let path = kept.header("location").unwrap().to_owned();
    assert_eq!(server.get(&path).status, 200);

    a_session_that_refuses_writes_is_not_used_again(&server, &primary).await;

    primary.stop().await;
    assert_fails_at_once(&server);
    let promote = standby.session("postgres").await;
    promote.execute("SELECT pg_promote()", &[]).await.unwrap();
    wait_for("a write on the new primary", || {
        (server.post("/items", ITEM).status == 201).then_some(())
    });
    assert_eq!(
        server.get(&path).status,
        200,
        "an acknowledged write is lost"
    );
    wait_for("/ready on the new primary", || {
        (server.get("/ready").status == 200).then_some(())
    });
}

async fn a_session_that_refuses_writes_is_not_used_again(
    server: &TestServer,
    primary: &TestPostgres,
) {
    let session = primary.session("postgres").await;
    let set = async |statement: &str| {
        session
            .batch_execute("SET default_transaction_read_only = off")
            .await
            .unwrap();
        session.batch_execute(statement).await.unwrap();
        session
            .batch_execute("SELECT pg_reload_conf()")
            .await
            .unwrap();
    };
    let writers = "SELECT pid FROM pg_stat_activity
                   WHERE application_name = 'drawbridge-host' AND query NOT ILIKE 'select%'";
    let before: Vec<i32> = pids(&session, writers).await;
    assert!(!before.is_empty());
    set("ALTER SYSTEM SET default_transaction_read_only = on").await;
    wait_for("a refused write", || {
        let status = server.post("/items", ITEM).status;
        assert!([201, 503].contains(&status), "{status}");
        (status == 503).then_some(())
    });
    let mut living = before.clone();
    for _ in 0..600 {
        living = pids(&session, writers).await;
        living.retain(|pid| before.contains(pid));
        if living.is_empty() {
            break;
        }
        // It ends when it is told to; a further write tells it.
        server.post("/items", ITEM);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(living.is_empty(), "still in use: {living:?}");
    set("ALTER SYSTEM RESET default_transaction_read_only").await;
    wait_for("a write after writes were allowed again", || {
        (server.post("/items", ITEM).status == 201).then_some(())
    });
}

async fn pids(session: &tokio_postgres::Client, query: &str) -> Vec<i32> {
    let rows = session.query(query, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}
