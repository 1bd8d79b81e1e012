use std::fs;

use crate::support::{
    postgres::{self, PASSWORD, self_signed},
    server::{TestServer, host, wait_for},
};

#[tokio::test]
async fn tls_is_used_and_verified_against_the_named_certificate() {
    let postgres = postgres::shared();
    let database = postgres.database().await;
    let ca = postgres.certificate();
    let server = TestServer::start(&format!(
        "{}ca_file = {ca:?}\n",
        database.config_over_tcp(PASSWORD)
    ));
    assert_eq!(server.get("/items").status, 200);
    let session = database.session().await;
    let rows = session
        .query(
            "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
             WHERE datname = current_database() AND application_name = 'drawbridge-host'",
            &[],
        )
        .await
        .unwrap();
    assert!(
        !rows.is_empty() && rows.iter().all(|row| row.get::<_, bool>(0)),
        "a connection is not encrypted"
    );
}

#[tokio::test]
async fn another_certificate_and_another_name_are_refused() {
    let postgres = postgres::shared();
    let database = postgres.database().await;
    let other = postgres.folder().join("other.pem");
    fs::write(&other, self_signed("127.0.0.1").0).unwrap();
    let config = database.config_over_tcp(PASSWORD);
    let certificate = postgres.certificate();
    for (config, cause) in [
        (
            format!("{config}ca_file = {other:?}\n"),
            "invalid peer certificate",
        ),
        // The server answers there too, and its certificate is for 127.0.0.1 only.
        (
            format!(
                "{}ca_file = {certificate:?}\n",
                config.replace("\"127.0.0.1\"", "\"localhost\"")
            ),
            "not valid for name",
        ),
    ] {
        let (_folder, path) =
            super::configuration::file(&format!("{config}start_timeout_seconds = 1\n"));
        let output = host(&path).arg("migrate").output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(cause), "{text}");
    }
}

#[tokio::test]
async fn a_ca_file_that_is_missing_or_holds_no_certificate_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    for content in [None, Some("no certificate")] {
        if let Some(content) = content {
            fs::write(&ca, content).unwrap();
        }
        let (_folder, path) =
            super::configuration::file(&format!("[database]\nca_file = {ca:?}\n"));
        let output = host(&path).arg("migrate").output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            text.contains("database.ca_file") && text.contains("ca.pem"),
            "{text}"
        );
    }
}

/// The same scanner must find the password where it is planted, or its silence says nothing.
fn shows_the_password(text: &str) -> bool {
    text.contains(PASSWORD)
}

#[tokio::test]
async fn the_password_is_in_no_log_line_and_no_error() {
    let postgres = postgres::shared();
    let database = postgres.database().await;
    let verbose = "[log]\nfilter = \"trace\"\n";
    let server = TestServer::start(&format!("{}{verbose}", database.config_over_tcp(PASSWORD)));
    server.post("/items", r#"{"name":"n"}"#);
    let log = server.log();
    assert!(
        log.contains("listening") && !shows_the_password(&log),
        "{log}"
    );

    // Refused by the server, the password's own text in every place an error could quote it from.
    let wrong = format!("{PASSWORD}-wrong");
    let config = format!(
        "{}start_timeout_seconds = 1\n{verbose}",
        database.config_over_tcp(&wrong)
    );
    let (_folder, path) = super::configuration::file(&config);
    let output = host(&path).arg("migrate").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("password authentication failed") && !shows_the_password(&text),
        "{text}"
    );

    // The twin: as the database's name it does appear.
    let planted =
        TestServer::start_unready(&format!("[database]\nport = 1\nname = \"{PASSWORD}\"\n"));
    wait_for("the planted password in the log", || {
        shows_the_password(&planted.log()).then_some(())
    });
}
