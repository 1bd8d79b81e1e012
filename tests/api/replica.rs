//! Reads from a real streaming replica.

use diesel::sql_types::Bool;
use diesel_async::RunQueryDsl;
use drawbridge::{
    config::DatabaseSettings,
    db::{Database, Standing, Written, items, migrate},
    metrics::Metrics,
};
use tokio::runtime::Handle;

use crate::support::{
    postgres::{self, TestPostgres},
    server::{TestServer, wait_for},
};

fn now<T>(future: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| Handle::current().block_on(future))
}

/// Whether a caller with these keys finds the item.
fn finds(database: &Database, id: uuid::Uuid, keys: &[Written]) -> bool {
    now(async {
        let at_least = database.newest_write(keys);
        let reader = database.reader(at_least).await.unwrap();
        items::find_item(&reader, id).await.unwrap().is_some()
    })
}

/// Whether such a caller's reads go to a replica.
fn reads_replica(database: &Database, keys: &[Written]) -> bool {
    now(async {
        let reader = database.reader(database.newest_write(keys)).await;
        diesel::select(diesel::dsl::sql::<Bool>("pg_is_in_recovery()"))
            .get_result(&mut reader.unwrap().connection())
            .await
            .unwrap()
    })
}

/// All that is to be seen of a replica, on one pair: making another one costs seconds.
#[tokio::test(flavor = "multi_thread")]
async fn reads_go_to_the_replica_and_never_behind_what_the_session_wrote() {
    let (primary, mut replica) = TestPostgres::start_pair().await;
    let (config, name) = {
        let database = primary.database().await;
        let config = format!(
            "{}replica_url = \"postgres://127.0.0.2:{}/{}\"\nreplica_max_lag_seconds = 3600\n[cache]\nseconds = 0\n",
            database.config_over_tcp(postgres::PASSWORD),
            replica.port(),
            database.name,
        );
        (config, database.name)
    };
    let settings = DatabaseSettings {
        host: primary.sockets().display().to_string(),
        port: primary.port(),
        name: name.clone(),
        replica_url: Some(
            format!("postgres://127.0.0.2:{}/{name}", replica.port())
                .parse()
                .unwrap(),
        ),
        replica_max_lag_seconds: 3600,
        ..DatabaseSettings::default()
    };
    migrate::migrate(&settings).await.unwrap();
    let database = Database::open(&settings, Metrics::new()).unwrap();
    database.mark_migrated();
    let (mine, other) = (Written::By([1; 32]), Written::By([2; 32]));
    wait_for("reads to go to the replica", || {
        reads_replica(&database, &[other]).then_some(())
    });

    let session = replica.session(&name).await;
    session
        .batch_execute("SELECT pg_wal_replay_pause()")
        .await
        .unwrap();
    let item = {
        let mut connection = database.connection().await.unwrap();
        let item = items::create_item(&mut connection, "written", None)
            .await
            .unwrap();
        let keys = [mine, Written::Row(item.id)];
        database.note_write(&mut connection, &keys).await;
        item
    };
    assert!(
        finds(&database, item.id, &[mine]),
        "not even its writer sees it"
    );
    assert!(finds(&database, item.id, &[Written::Row(item.id)]));
    assert!(
        !finds(&database, item.id, &[other]),
        "the replica is not used"
    );
    session
        .batch_execute("SELECT pg_wal_replay_resume()")
        .await
        .unwrap();
    wait_for("the others to see it too", || {
        finds(&database, item.id, &[other]).then_some(())
    });
    wait_for("the write to be forgotten", || {
        let (mine, other) = (
            database.newest_write(&[mine]),
            database.newest_write(&[other]),
        );
        (mine == other).then_some(())
    });

    a_replica_that_is_too_far_behind_is_left_alone(&settings, &session, item.id).await;
    drop(session);

    let server = TestServer::start(&config);
    let seen = |status: &str, replica: &str| {
        wait_for(&format!("the replica to be {replica}"), || {
            let answer = server.get("/ready");
            assert_eq!(answer.status, 200, "{answer:?}");
            let answer = answer.json();
            let parts = [&answer["status"], &answer["primary"], &answer["replica"]];
            (parts == [status, "ok", replica]).then_some(())
        });
    };
    seen("ready", "ok");
    let path = format!("/items/{}", item.id);
    assert_eq!(server.get(&path).status, 200);
    replica.stop().await;
    // Gives the server's event loop a turn to see the closed sockets.
    server.get("/health");
    for _ in 0..20 {
        assert_eq!(server.get(&path).status, 200, "{}", server.log());
        assert_eq!(server.get("/items").status, 200, "{}", server.log());
    }
    seen("degraded", "gone");
    replica.start_again().await;
    seen("ready", "ok");
    assert_eq!(server.get(&path).status, 200);
}

/// With a limit of a second, and the replica paused for longer.
async fn a_replica_that_is_too_far_behind_is_left_alone(
    settings: &DatabaseSettings,
    session: &tokio_postgres::Client,
    kept: uuid::Uuid,
) {
    let settings = DatabaseSettings {
        replica_max_lag_seconds: 1,
        ..settings.clone()
    };
    let database = Database::open(&settings, Metrics::new()).unwrap();
    database.mark_migrated();
    session
        .batch_execute("SELECT pg_wal_replay_pause()")
        .await
        .unwrap();
    let item = {
        let mut connection = database.connection().await.unwrap();
        let item = items::create_item(&mut connection, "later", None).await;
        item.unwrap()
    };
    wait_for("the replica to be too far behind", || {
        (database.replica() == Some(Standing::Behind)).then_some(())
    });
    // Nobody remembered the write, and all see it.
    assert!(finds(&database, item.id, &[]) && finds(&database, kept, &[]));
    session
        .batch_execute("SELECT pg_wal_replay_resume()")
        .await
        .unwrap();
    wait_for("the replica to be used again", || {
        (database.replica() == Some(Standing::Follows)).then_some(())
    });
}
