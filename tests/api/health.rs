use std::thread;

use serde_json::json;
use tokio::runtime::Handle;

use crate::support::{
    postgres::{self, TestPostgres},
    server::{TestServer, wait_for},
};

#[tokio::test]
async fn health_answers_with_no_database_and_ready_does_not() {
    let server = TestServer::start_unready("[database]\nhost = \"127.0.0.1\"\nport = 1\n");
    let answer = server.get("/health");
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({"status": "healthy"}))
    );
    let answer = server.get("/ready");
    answer.problem(503);
    assert!(answer.header("retry-after").is_some());
    server.get("/items").problem(503);
    assert_eq!(server.get("/docs").status, 200);
}

#[tokio::test]
async fn ready_answers_when_the_database_does() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    let answer = server.get("/ready");
    assert_eq!(
        (answer.status, answer.json()),
        (
            200,
            json!({"status": "ready", "primary": "ok", "replica": "none", "cache": "none"})
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_away_makes_it_unready_and_one_that_comes_back_needs_no_restart() {
    let mut postgres = TestPostgres::start().await;
    let config = {
        let database = postgres.database().await;
        format!(
            "{}connect_timeout_seconds = 1\n",
            database.config_over_tcp(postgres::PASSWORD)
        )
    };
    let server = TestServer::start(&config);
    assert_eq!(server.post("/items", r#"{"name":"kept"}"#).status, 201);

    postgres.stop().await;
    server.get("/ready").problem(503);
    server.get("/items").problem(503);
    assert_eq!(server.get("/health").status, 200);
    wait_for("the reason in the log", || {
        server.log().contains("Connection refused").then_some(())
    });

    postgres.start_again().await;
    wait_for("/ready after the database came back", || {
        (server.get("/ready").status == 200).then_some(())
    });
    assert_eq!(server.get("/items").json()[0]["name"], "kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_died_while_idle_are_not_handed_out() {
    const POOL: usize = 4;
    let database = postgres::shared().database().await;
    let server = TestServer::start(&format!(
        "{}pool_size = {POOL}\n[cache]\nseconds = 0\n",
        database.config()
    ));
    let (holder, watch) = (database.session().await, database.session().await);
    let count = |query: &'static str| {
        let rows =
            tokio::task::block_in_place(|| Handle::current().block_on(watch.query(query, &[])));
        rows.unwrap().len()
    };
    // As many requests at once as the pool may have connections, so that it has them all.
    holder
        .batch_execute("BEGIN; LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    thread::scope(|scope| {
        let requests: Vec<_> = (0..POOL)
            .map(|_| scope.spawn(|| server.post("/items", r#"{"name":"n"}"#).status))
            .collect();
        let waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'items'::regclass";
        wait_for("the requests to wait", || {
            (count(waiting) == POOL).then_some(())
        });
        tokio::task::block_in_place(|| Handle::current().block_on(holder.batch_execute("COMMIT")))
            .unwrap();
        for request in requests {
            assert_eq!(request.join().unwrap(), 201);
        }
    });

    let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE datname = current_database() AND application_name = 'drawbridge-host'";
    assert!(count(ended) >= POOL);
    let living = "SELECT 1 FROM pg_stat_activity
                  WHERE datname = current_database() AND application_name = 'drawbridge-host'";
    wait_for("the ends of the sessions", || {
        (count(living) == 0).then_some(())
    });
    // Gives the server's event loop a turn to see the closed sockets.
    server.get("/health");
    for _ in 0..2 * POOL {
        assert_eq!(
            server.post("/items", r#"{"name":"n"}"#).status,
            201,
            "a dead connection was handed out"
        );
        let path = "/items/00000000-0000-0000-0000-000000000000";
        assert_eq!(server.get(path).status, 404, "a dead connection was shared");
    }
}
