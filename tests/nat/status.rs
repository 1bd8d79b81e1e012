//! What `nat status` says when file, state and cloud disagree, and when one of them does not answer.

use serde_json::Value;

use super::stage::Stage;

fn status(stage: &Stage) -> Value {
    let ended = stage.nat(&["status", "--json"]);
    assert_eq!(ended.status, 0, "{ended:?}");
    assert_eq!(
        stage.calls(),
        Vec::<String>::new(),
        "status changed something"
    );
    serde_json::from_str(&ended.stdout).unwrap()
}

/// The findings' names, and what the text for people says of them.
fn findings(stage: &Stage) -> (Vec<String>, String) {
    let status = status(stage);
    let found = status["findings"].as_array().unwrap();
    let text = stage.nat(&["status"]).stdout;
    let buts = text.lines().filter(|line| line.starts_with("but")).count();
    assert_eq!(buts, found.len(), "{text}");
    let name = |finding: &Value| finding["finding"].as_str().unwrap().to_owned();
    (found.iter().map(name).collect(), text)
}

#[test]
fn an_open_window_is_shown_with_its_deadline_cost_and_hosts() {
    let stage = Stage::open();
    stage.report("database", "i-database", "volume");
    let seen = status(&stage);
    for (field, wanted) in [
        ("window", Value::from("open")),
        ("gateway", "nat-1".into()),
        ("position", "open".into()),
        ("account", "123456789012".into()),
        ("next", "drawbridge nat close --wait".into()),
    ] {
        assert_eq!(seen[field], wanted, "{field}: {seen}");
    }
    assert_eq!(seen["findings"], Value::Array(vec![]));
    assert_eq!(seen["state"]["schedule"], "drawbridge-nat-1-4h");
    assert_eq!(seen["route"]["target"], "nat-1");
    assert_eq!(seen["deadline"]["at"], "2099-01-01T00:00:00Z");
    assert!(seen["seconds_to_deadline"].as_i64().unwrap() > 0);
    assert_eq!(seen["waiting"][0]["host"], "database");
    let text = stage.nat(&["status"]).stdout;
    for row in [
        "since     2026-11-20T10:00:00Z",
        "deadline  2099-01-01T00:00:00Z, in ",
        "cost      standing for",
        "backend   complete",
        "database  stands at step volume",
        "next      `drawbridge nat close --wait`",
    ] {
        assert!(text.contains(row), "{row}: {text}");
    }
}

#[test]
fn a_lease_is_shown_with_its_end() {
    let stage = Stage::open();
    stage.position(r#"{"nat_gateway": true, "nat_gateway_until": "2099-01-01T00:00:00Z"}"#);
    let seen = status(&stage);
    assert_eq!(
        (&seen["position"], &seen["lease_until"]),
        (&"leased".into(), &"2099-01-01T00:00:00Z".into())
    );
    assert_eq!(seen["findings"], Value::Array(vec![]));
}

#[test]
fn after_the_switch_fired_it_says_what_is_left() {
    let (found, text) = findings(&Stage::fired());
    assert_eq!(found, ["gateway-gone"]);
    for part in [
        "203.0.113.10 still stands and costs",
        "route leads nowhere",
        "`drawbridge nat close`",
        "expired",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn file_state_and_cloud_may_each_be_the_odd_one() {
    let stage = Stage::open();
    stage.position("{\"nat_gateway\": false}\n");
    assert_eq!(findings(&stage).0, ["file-closed"]);
    let stage = Stage::closed();
    stage.position("{\"nat_gateway\": true}\n");
    assert_eq!(findings(&stage).0, ["file-open"]);
    let stage = Stage::open();
    stage.as_in("closed", "state.json");
    assert_eq!(findings(&stage).0, ["unknown-to-state"; 4]);
    let stage = Stage::open();
    stage.schedule(None);
    assert_eq!(findings(&stage).0, ["deadline-gone"]);
    let stage = Stage::open();
    stage.schedule(Some("at(2026-01-01T00:00:00)"));
    assert_eq!(findings(&stage).0, ["overdue"]);
}

#[test]
fn what_cannot_be_learnt_is_unknown_with_its_reason_and_never_fine() {
    let stage = Stage::open();
    stage.schedule(Some("AccessDeniedException"));
    let aws = std::fs::read_to_string(stage.path().join("bin/aws")).unwrap();
    let denied = "describe-route-tables) echo '(UnauthorizedOperation) no' >&2; exit 254 ;;\n  describe-route-tables-)";
    stage.put("bin/aws", &aws.replace("describe-route-tables)", denied));
    stage.forget_parameter("hosts/backend/bootstrap");
    let seen = status(&stage);
    for (field, reason, text) in [
        ("deadline", "deadline_unknown", "AccessDenied"),
        ("route", "route_unknown", "UnauthorizedOperation"),
        ("waiting", "reports_unknown", "bootstrap"),
    ] {
        assert_eq!(seen[field], Value::Null, "{field}");
        assert!(
            seen[reason].as_str().unwrap().contains(text),
            "{reason}: {seen}"
        );
    }
    let text = stage.nat(&["status"]).stdout;
    assert_eq!(text.matches("unknown (").count(), 4, "{text}");
    assert!(
        text.contains("deadline  unknown (cannot read the window's deadline"),
        "{text}"
    );
}

#[test]
fn without_the_gateways_nothing_is_claimed() {
    let stage = Stage::open();
    stage.put(
        "bin/aws",
        "#!/bin/sh\necho '(UnauthorizedOperation) no' >&2; exit 254\n",
    );
    let ended = stage.nat(&["status"]);
    assert_eq!((ended.status, ended.stdout.as_str()), (1, ""), "{ended:?}");
}
