use super::*;

#[test]
fn a_method_that_a_client_made_up_makes_no_series_of_its_own() {
    let metrics = Metrics::new();
    let route = Arc::from("/items");
    for method in ["GET", "BREW", "brew"] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        metrics.observe(&route, &method, StatusCode::OK, Duration::from_millis(3));
    }
    let text = metrics.text();
    for line in [
        "http_requests_total{method=\"GET\",route=\"/items\",status=\"200\"} 1",
        "http_requests_total{method=\"_OTHER\",route=\"/items\",status=\"200\"} 2",
        "http_request_duration_seconds_bucket{le=\"0.0025\",method=\"GET\",route=\"/items\"} 0",
        "http_request_duration_seconds_bucket{le=\"0.005\",method=\"GET\",route=\"/items\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
    }
    assert!(!text.to_lowercase().contains("brew"), "{text}");
}

#[test]
fn what_is_under_way_is_counted_for_as_long_as_it_is() {
    let metrics = Metrics::new();
    let count = || {
        let text = metrics.text();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("http_requests_in_flight "));
        line.unwrap().to_owned()
    };
    let (first, second) = (metrics.request(), metrics.request());
    assert_eq!(count(), "2");
    drop(first);
    assert_eq!(count(), "1");
    drop(second);
    assert_eq!(count(), "0");
}

#[test]
fn a_lag_nobody_can_tell_is_absent_instead_of_zero() {
    let metrics = Metrics::new();
    let lag = || {
        let text = metrics.text();
        let line = text
            .lines()
            .find(|line| line.starts_with("db_replica_lag_bytes"));
        line.map(ToOwned::to_owned)
    };
    assert_eq!(lag(), None);
    metrics.replica_lag(Some(16));
    assert!(lag().unwrap().ends_with(" 16"));
    metrics.replica_lag(None);
    assert_eq!(lag(), None);
}
