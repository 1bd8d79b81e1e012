//! `/metrics`, as a parser that is not ours reads it.

use std::{
    collections::BTreeMap,
    fs,
    net::{SocketAddr, TcpListener},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::support::{
    eventually, postgres, run,
    server::{TestServer, host, wait_for},
};

/// A cold Python on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

const OWN: &str = "[metrics]\nlisten = \"127.0.0.1:0\"\n";

/// What a scrape finds: sample by sample, `name{label="value",…}` with the labels in order.
fn parsed(text: &str) -> BTreeMap<String, f64> {
    let program = "import json, sys\n\
         from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse\n\
         families = list(parse(open(sys.argv[1]).read()))\n\
         assert all(family.type != 'unknown' and family.documentation for family in families)\n\
         print(json.dumps([[s.name, s.labels, s.value] for f in families for s in f.samples]))\n";
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("metrics"), text).unwrap();
    let mut parser = super::contract::tool(folder.path(), &["-c", program, "metrics"]);
    let found = run(&mut parser, LIMIT);
    let samples: Value = serde_json::from_str(&found.expect_success(text)).unwrap();
    let samples = samples.as_array().unwrap().iter().map(|sample| {
        let labels: BTreeMap<String, String> = serde_json::from_value(sample[1].clone()).unwrap();
        let labels: Vec<_> = labels
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let name = sample[0].as_str().unwrap();
        (
            format!("{name}{{{}}}", labels.join(",")),
            sample[2].as_f64().unwrap(),
        )
    });
    samples.collect()
}

/// Where the listener of its own is.
fn own_address(server: &TestServer) -> SocketAddr {
    let events = server.events();
    let mut found = events
        .iter()
        .filter_map(|event| event["metrics.address"].as_str());
    found
        .next()
        .expect("the line with the address")
        .parse()
        .unwrap()
}

fn scrape(address: SocketAddr) -> String {
    let mut answer = ureq::get(format!("http://{address}/metrics"))
        .call()
        .unwrap();
    let kind = answer.headers()["content-type"].to_str().unwrap();
    assert_eq!(
        kind,
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    answer.body_mut().read_to_string().unwrap()
}

#[tokio::test]
async fn requests_are_counted_by_pattern_on_a_listener_of_its_own() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&format!("{}{OWN}", database.config()));
    let address = own_address(&server);
    for _ in 0..3 {
        assert_eq!(server.get("/items").status, 200);
    }
    for path in [
        "/items/00000000-0000-0000-0000-000000000000?q=planted",
        "/planted",
        "/metrics",
    ] {
        server.get(path).problem(404);
    }
    assert_eq!(server.method("PLANTED", "/items").status, 405);

    // The first sweep may still hold the only connection there is.
    let text = wait_for("an idle connection", || {
        let text = scrape(address);
        let idle = parsed(&text)["db_pool_connections{state=idle}"];
        (idle > 0.0).then_some(text)
    });
    assert!(
        !text.contains("planted") && !text.contains("PLANTED"),
        "{text}"
    );
    let found = parsed(&text);
    for (sample, count) in [
        (
            "http_requests_total{method=GET,route=/items,status=200}",
            3.0,
        ),
        (
            "http_requests_total{method=GET,route=/items/{id},status=404}",
            1.0,
        ),
        (
            "http_requests_total{method=GET,route=(none),status=404}",
            2.0,
        ),
        (
            "http_requests_total{method=_OTHER,route=/items,status=405}",
            1.0,
        ),
        (
            "http_request_duration_seconds_count{method=GET,route=/items}",
            3.0,
        ),
        (
            "http_request_duration_seconds_bucket{le=+Inf,method=GET,route=/items}",
            3.0,
        ),
        ("http_requests_in_flight{}", 0.0),
        ("http_requests_shed_total{}", 0.0),
        ("auth_logins_total{outcome=refused}", 0.0),
        ("cache_requests_total{outcome=bypass}", 0.0),
    ] {
        assert_eq!(found.get(sample), Some(&count), "{sample}: {text}");
    }
    for sample in [
        "db_pool_wait_seconds_count{}",
        "process_cpu_seconds_total{}",
        "process_max_fds{}",
        "process_open_fds{}",
        "process_resident_memory_bytes{}",
        "process_start_time_seconds{}",
        "process_virtual_memory_bytes{}",
    ] {
        assert!(
            found.get(sample).is_some_and(|value| *value > 0.0),
            "{sample}: {text}"
        );
    }
    // A sum is a float: at least what three requests to a database take.
    assert!(found["http_request_duration_seconds_sum{method=GET,route=/items}"] > 0.0);
    // A replica nobody has configured lags behind nothing.
    assert!(!text.contains("db_replica_lag_bytes{"), "{text}");

    let other = ureq::get(format!("http://{address}/items")).call();
    assert!(
        matches!(other, Err(ureq::Error::StatusCode(404))),
        "{other:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_under_way_shows_in_flight_and_in_the_pool() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&format!(
        "{}statement_timeout_seconds = 200\n[http]\nrequest_timeout_seconds = 300\n{OWN}",
        database.config()
    ));
    let address = own_address(&server);
    let session = database.session().await;
    session
        .batch_execute("BEGIN; LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let shows = |line: &str| {
        let text = scrape(address);
        let found = text.lines().any(|found| found == line);
        if found { Ok(()) } else { Err(text) }
    };
    thread::scope(|scope| {
        // A change, which no cache answers.
        let id = "00000000-0000-0000-0000-000000000000";
        let request = scope.spawn(move || server.method("DELETE", &format!("/items/{id}")));
        tokio::task::block_in_place(|| {
            eventually(LIMIT, "the request", || shows("http_requests_in_flight 1"));
            eventually(LIMIT, "its connection", || {
                shows("db_pool_connections{state=\"busy\"} 1")
            });
            let runtime = tokio::runtime::Handle::current();
            runtime.block_on(session.batch_execute("COMMIT")).unwrap();
        });
        request.join().unwrap().problem(404);
    });
}

#[tokio::test]
async fn metrics_are_public_only_where_that_is_configured() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&format!("{}[metrics]\npublic = true\n", database.config()));
    let text = scrape(server.address());
    assert!(
        parsed(&text).contains_key("http_requests_in_flight{}"),
        "{text}"
    );
    let refused = server.method("POST", "/metrics");
    refused.problem(405);
    assert_eq!(refused.header("allow"), Some("GET, HEAD"));
    wait_for("the count of it", || {
        let text = scrape(server.address());
        text.contains("route=\"/metrics\",status=\"405\"")
            .then_some(())
    });
}

#[test]
fn a_taken_port_is_named_with_its_key_before_anything_else_starts() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (_folder, config) =
        super::configuration::file(&format!("[metrics]\nlisten = \"{address}\"\n"));
    let output = host(&config).arg("serve").output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains(&format!(
            "cannot listen on {address} (configuration key metrics.listen)"
        )),
        "{text}"
    );
    assert_eq!(text.lines().count(), 1, "{text}");
}
