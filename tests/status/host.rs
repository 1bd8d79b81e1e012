//! `drawbridge-host status`: against a real Postgres, and as a program on this machine.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use drawbridge::appliance::status::HostStatus;
use drawbridge::host::{Host, status};
use serde_json::json;

use crate::support::postgres;

fn report(role: &str) -> String {
    json!({
        "instance_id": "i-1", "image_id": "ami-1", "role": role, "step": "complete", "started_at": "2026-11-20T10:00:00Z",
        "updated_at": "2026-11-20T10:01:00Z", "finished_at": null, "error": null, "delivered": true,
    })
    .to_string()
}

/// A machine whose Postgres is the tests' own and whose processor files are this machine's.
fn machine(folder: &Path, socket: &Path) -> Host {
    for place in ["run/postgresql", "var/lib/drawbridge", "var/lib/postgresql"] {
        std::fs::create_dir_all(folder.join(place)).unwrap();
    }
    symlink("/proc", folder.join("proc")).unwrap();
    symlink(socket, folder.join("run/postgresql/.s.PGSQL.5432")).unwrap();
    std::fs::write(
        folder.join("var/lib/drawbridge/bootstrap.json"),
        report("database"),
    )
    .unwrap();
    Host::under(folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_tells_its_size_and_connections() {
    let postgres = postgres::shared();
    let folder = tempfile::tempdir().unwrap();
    let host = machine(folder.path(), &postgres.socket());
    let session = postgres.session("postgres").await;
    let before = status(&host).await;
    // Other tests of this process may have asked for it already.
    let made = session.batch_execute("CREATE DATABASE drawbridge").await;
    let reason = before
        .database
        .reason()
        .unwrap_or("there is no database drawbridge yet");
    assert_eq!(reason, "there is no database drawbridge yet", "{made:?}");
    let seen = status(&host).await;
    let database = seen.database.value().unwrap_or_else(|| panic!("{seen:?}"));
    let database = database.as_ref().unwrap();
    assert!(database.size_bytes > 1_000_000, "{database:?}");
    assert!((2..100).contains(&database.connections), "{database:?}");
    assert_eq!(database.max_connections, 100);
    assert!(!database.is_in_recovery);
    assert!(
        seen.memory.value().is_some() && seen.load.value().is_some(),
        "{seen:?}"
    );
    let volume = seen.volume.reason().unwrap();
    assert!(volume.contains("not mounted"), "{volume}");
    assert_eq!(seen.api.value(), Some(&None), "a database has no API");
}

#[tokio::test]
async fn a_database_that_does_not_answer_is_unknown_and_the_rest_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let host = machine(folder.path(), Path::new("/nowhere"));
    let seen = status(&host).await;
    assert!(
        seen.database.reason().unwrap().contains("Postgres"),
        "{seen:?}"
    );
    assert!(seen.memory.value().is_some());
}

#[test]
fn the_program_prints_one_document_that_the_operator_reads() {
    let output = Command::new(env!("CARGO_BIN_EXE_drawbridge-host"))
        .arg("status")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let seen = HostStatus::parse(&output.stdout).unwrap();
    assert!(seen.uptime_seconds.value().is_some(), "{seen:?}");
    assert_eq!(
        seen.version.value().map(String::as_str),
        Some(env!("CARGO_PKG_VERSION"))
    );
}
