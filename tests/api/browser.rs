//! What a person sees: pages in a real Chromium.

use std::process::Command;
use std::time::Duration;

use crate::support::{postgres, run, server::TestServer};

/// A cold Chromium on a busy machine; it usually takes two seconds.
const LIMIT: Duration = Duration::from_secs(90);

/// The page as it stands once its scripts have run.
fn rendered(url: &str) -> String {
    let profile = tempfile::tempdir().unwrap();
    let mut command = Command::new("chromium");
    command
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
        ])
        // Nothing but the page itself: browsers like to talk to their makers.
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-quic",
        ])
        .args(["--virtual-time-budget=10000", "--dump-dom", url])
        .arg(format!("--user-data-dir={}", profile.path().display()));
    run(&mut command, LIMIT).expect_success("chromium (Debian package chromium)")
}

#[tokio::test]
async fn the_docs_page_shows_every_operation_in_a_browser() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    let page = rendered(&format!("http://{}/docs", server.address()));
    for path in ["/health", "/ready", "/items", "/items/{id}"] {
        // Swagger UI writes this attribute only when it has understood the document.
        assert!(
            page.contains(&format!("data-path=\"{path}\"")),
            "{path} is not on the page"
        );
    }
}
