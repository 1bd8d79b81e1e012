use crate::support::{
    postgres::{self, TestDatabase},
    server::{TestServer, host, wait_for},
};

const FUTURE: &str = "20991231000000";

/// What `migrate` says, and its exit status.
fn migrate(database: &TestDatabase<'_>) -> (Option<i32>, String) {
    let (_folder, path) = super::configuration::file(&database.config());
    let output = host(&path).arg("migrate").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), text)
}

/// As a newer version leaves it: a migration nobody here knows, which says that programs work with it that know
/// `works_since`.
async fn plant_a_newer_migration(database: &TestDatabase<'_>, works_since: Option<&str>) {
    let session = database.session().await;
    let plant =
        "INSERT INTO __diesel_schema_migrations (version) VALUES ($1) ON CONFLICT DO NOTHING";
    session.execute(plant, &[&FUTURE]).await.unwrap();
    if let Some(since) = works_since {
        let plant = "INSERT INTO schema_compatibility VALUES ($1, $2)
                     ON CONFLICT (migration) DO UPDATE SET works_since = $2";
        session.execute(plant, &[&FUTURE, &since]).await.unwrap();
    }
}

#[tokio::test]
async fn a_schema_that_is_too_new_is_refused_with_what_to_do() {
    let database = postgres::shared().database().await;
    assert_eq!(migrate(&database).0, Some(0));
    for works_since in [None, Some(FUTURE)] {
        plant_a_newer_migration(&database, works_since).await;
        let (code, text) = migrate(&database);
        assert_eq!(code, Some(1), "{works_since:?}: {text}");
        for part in [FUTURE, "does not know", "run the version", "backup"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    let mut server = TestServer::start_unready(&database.config());
    assert_eq!(server.wait().code(), Some(1));
    wait_for("the reason as a line of the log", || {
        server.log().contains(FUTURE).then_some(())
    });
}

#[tokio::test]
async fn a_newer_schema_that_this_version_works_with_is_used() {
    let database = postgres::shared().database().await;
    assert_eq!(migrate(&database).0, Some(0));
    let session = database.session().await;
    let newest = "SELECT max(version) FROM __diesel_schema_migrations";
    let newest: String = session.query_one(newest, &[]).await.unwrap().get(0);
    plant_a_newer_migration(&database, Some(&newest)).await;
    let (code, text) = migrate(&database);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(FUTURE), "{text}");
    let server = TestServer::start(&database.config());
    assert_eq!(server.get("/items").status, 200);
}

#[tokio::test]
async fn a_schema_that_is_up_to_date_needs_no_lock() {
    let database = postgres::shared().database().await;
    assert_eq!(migrate(&database).0, Some(0));
    let session = database.session().await;
    let key = i64::from_be_bytes(*b"drawbrdg");
    let lock = "SELECT pg_advisory_lock($1)";
    session.query(lock, &[&key]).await.unwrap();
    let (code, text) = migrate(&database);
    assert_eq!(code, Some(0), "{text}");
}
