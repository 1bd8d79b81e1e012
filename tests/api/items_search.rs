//! `q`, and the index behind it.

use std::{process::Stdio, time::Duration};

use serde_json::json;

use super::{
    cache::names,
    configuration,
    items_pages::{follow, next, uncached},
};
use crate::support::{
    postgres,
    server::{TestServer, host, wait_for},
};

#[tokio::test]
async fn q_finds_text_in_name_or_description_whatever_its_case_and_takes_it_literally() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    for (name, description) in [
        ("Green tea", Some("from Uji")),
        ("Kettle", Some("boils TEA water")),
        ("Ärmel", None),
        ("100% cotton", Some("a_b")),
        ("100 cotton", Some("axb")),
        (r"C:\temp", None),
        ("plain", Some("'; DROP TABLE items; --")),
    ] {
        let body = json!({"name": name, "description": description});
        assert_eq!(server.post("/items", body.to_string()).status, 201);
    }
    let found = |q: &str| names(&server.get(&format!("/items?q={q}")));
    assert_eq!(found("tea"), ["Kettle", "Green tea"]);
    assert_eq!(found("EEN%20T"), ["Green tea"]);
    assert_eq!(found("een+t"), ["Green tea"]);
    assert_eq!(found("%C3%A4rm"), ["Ärmel"]);
    assert_eq!(found("0%25%20c"), ["100% cotton"]);
    assert_eq!(found("a_b"), ["100% cotton"]);
    assert_eq!(found("c:%5Ct"), [r"C:\temp"]);
    assert_eq!(found("%25%25%25").len(), 0);
    assert_eq!(found("';%20DROP"), ["plain"]);
    assert_eq!(found("no+such+text").len(), 0);
    for bad in ["", "ab", "%C3%A4%C3%A4", "ab%00", &"x".repeat(201)] {
        let detail = server.get(&format!("/items?q={bad}")).problem(400);
        assert!(detail.contains('q'), "{detail}");
    }
}

#[tokio::test]
async fn among_100_000_items_q_goes_by_its_index_page_by_page() {
    let database = postgres::shared().database().await;
    let session = database.session().await;
    let server = TestServer::start(&uncached(&database));
    // Built at once instead of row by row: a third of the time.
    session
        .batch_execute(
            "DROP INDEX items_text;
             INSERT INTO items (id, name, description, created_at)
                 SELECT gen_random_uuid(), 'item ' || md5(n::text),
                        CASE WHEN n % 2000 = 0 THEN 'a Needle' END, now() + n * interval '1 microsecond'
                 FROM generate_series(1, 100000) n;
             CREATE INDEX items_text ON items USING gin (name gin_trgm_ops, description gin_trgm_ops);
             ANALYZE items;",
        )
        .await
        .unwrap();
    // More often than Postgres plans a prepared statement anew for each value.
    let (found, pages) = follow(&server, "/items?q=nEEdle&limit=3");
    assert_eq!((found.len(), pages), (50, 17));
    let first = server.get("/items?q=nEEdle&limit=3");
    assert!(next(&first).unwrap().contains("q=nEEdle&limit=3&after="));
    let plan = session
        .query(
            "EXPLAIN SELECT id FROM items WHERE name ILIKE '%needle%' OR description ILIKE '%needle%'
             ORDER BY created_at DESC, id DESC LIMIT 51",
            &[],
        )
        .await
        .unwrap();
    let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
    assert!(plan.join("\n").contains("items_text"), "{plan:#?}");
    // What the server's own statements did is counted once its sessions have ended.
    drop(server);
    let mut scans = 0_i64;
    for _ in 0..600 {
        let query = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'items_text'";
        scans = session.query_one(query, &[]).await.unwrap().get(0);
        // Name and description are looked up one by one.
        if scans >= 36 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("18 searches looked {scans} times into the index");
}

#[tokio::test]
async fn an_index_that_a_killed_migration_left_half_built_is_built_by_the_next() {
    let database = postgres::shared().database().await;
    let (_folder, path) = configuration::file(&database.config());
    let migrate = || host(&path).arg("migrate").output().unwrap();
    assert!(migrate().status.success());
    let session = database.session().await;
    session
        .batch_execute("DROP INDEX items_text; DELETE FROM __diesel_schema_migrations WHERE version = '20261121000130'")
        .await
        .unwrap();
    // A writer that does not end keeps the index from being finished.
    let writer = database.session().await;
    writer
        .batch_execute("BEGIN; INSERT INTO items (id, name) VALUES (gen_random_uuid(), 'n')")
        .await
        .unwrap();
    let mut killed = host(&path)
        .arg("migrate")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let is_valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('items_text')";
    let mut seen = None;
    for _ in 0..600 {
        seen = session.query_opt(is_valid, &[]).await.unwrap();
        if seen.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!seen.expect("the index in the making").get::<_, bool>(0));
    killed.kill().unwrap();
    killed.wait().unwrap();
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE datname = current_database() AND application_name = 'drawbridge-host'";
    session.query_one(end, &[]).await.unwrap();
    writer.batch_execute("ROLLBACK").await.unwrap();
    let left = session.query_one(is_valid, &[]).await.unwrap();
    assert!(!left.get::<_, bool>(0), "nothing half built was left");

    let output = wait_for("the next migration", || {
        let output = migrate();
        output.status.success().then_some(output)
    });
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("items_text"), "{log}");
    let whole = session.query_one(is_valid, &[]).await.unwrap();
    assert!(whole.get::<_, bool>(0));
}
