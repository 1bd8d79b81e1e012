use std::{fs, path::Path};

use crate::support::{
    postgres,
    server::{TestServer, host},
};

/// Shows every change of the published contract in review. To renew it after a change you meant:
/// `cargo run --bin drawbridge-host -- openapi > tests/snapshots/openapi.json`
#[test]
fn the_document_is_the_committed_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots/openapi.json");
    let committed = fs::read_to_string(path).unwrap();
    let output = host(Path::new("/nowhere")).arg("openapi").output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let renew = "cargo run --bin drawbridge-host -- openapi > tests/snapshots/openapi.json";
    assert!(
        output.status.success() && printed == committed,
        "the API changed; if you meant it: {renew}"
    );
}

#[tokio::test]
async fn the_document_is_served_and_the_docs_page_holds_the_same_one() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    let document = server.get("/openapi.json");
    assert_eq!(
        (document.status, document.header("content-type")),
        (200, Some("application/json"))
    );
    assert_eq!(
        document.json()["components"]["schemas"]["CreateItem"]["additionalProperties"],
        false
    );

    let page = server.get("/docs");
    assert_eq!(
        (page.status, page.header("content-type")),
        (200, Some("text/html; charset=utf-8"))
    );
    assert!(
        page.body.contains(&document.body.replace("</", "<\\/")),
        "another document is on the page"
    );
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.contains("default-src 'none'") && !policy.contains("http"),
        "{policy}"
    );
    for outside in ["src=\"http", "href=\"http", "@import url(http"] {
        assert!(
            !page.body.contains(outside),
            "the page loads something from elsewhere: {outside}"
        );
    }
}
