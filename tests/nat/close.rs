use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::stage::{Ended, Stage};

const OPEN: &str = "{\"nat_gateway\": true}\n";
const CLOSED: &str = "{\"nat_gateway\": false}\n";

fn interrupt(child: &std::process::Child) {
    let sent = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}

pub fn appears(stage: &Stage, name: &str) {
    let end = Instant::now() + Duration::from_secs(300);
    while !stage.path().join(name).exists() {
        assert!(Instant::now() < end, "{name} did not appear");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn close_refuses_until_both_hosts_are_complete_and_names_the_step() {
    let stage = Stage::open();
    stage.report("database", "i-database", "volume");
    stage.parameter("hosts/backend/bootstrap", "pending");
    let ended = stage.nat(&["close"]);
    assert_eq!(ended.status, 3, "{ended:?}");
    assert!(
        ended
            .stdout
            .contains("database (i-database) stands at step volume"),
        "{ended:?}"
    );
    assert!(
        ended
            .stdout
            .contains("backend (i-backend) has not reported yet"),
        "{ended:?}"
    );
    assert_eq!(
        (stage.position_now().as_str(), stage.calls()),
        (OPEN, Vec::<String>::new())
    );
}

#[test]
fn a_replaced_instances_report_does_not_count() {
    let stage = Stage::open();
    stage.report("backend", "i-before", "complete");
    let ended = stage.nat(&["close", "--json"]);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(ended.status, 3);
    assert_eq!(
        (&report["outcome"], &report["waiting"][0]["host"]),
        (&"not-ready".into(), &"backend".into())
    );
    assert!(
        report["waiting"][0]["reason"]
            .as_str()
            .unwrap()
            .contains("i-before"),
        "{report}"
    );
}

#[test]
fn close_refuses_a_plan_that_wants_more_than_the_window() {
    let stage = Stage::open();
    stage.plan(&[
        ("aws_nat_gateway.main[0]", "delete"),
        ("aws_instance.backend", "replace"),
        ("aws_lb.main", "update"),
    ]);
    let ended = stage.nat(&["close"]);
    assert_eq!(ended.status, 4, "{ended:?}");
    assert!(
        ended
            .stdout
            .contains("replace aws_instance.backend, update aws_lb.main"),
        "{ended:?}"
    );
    assert_eq!(stage.position_now(), OPEN);
    assert!(!stage.calls().contains(&"apply".to_owned()));
}

#[test]
fn a_gateway_of_somebody_else_is_named_and_nothing_is_touched() {
    let stage = Stage::open();
    stage.gateways(&[("nat-1", "available", true), ("nat-9", "available", false)]);
    let ended = stage.nat(&["close", "--force"]);
    assert_eq!(ended.status, 4, "{ended:?}");
    assert!(ended.stdout.contains("nat-9"), "{ended:?}");
    assert_eq!(stage.calls(), Vec::<String>::new());
}

#[test]
fn closing_what_is_closed_says_so_and_does_nothing() {
    let stage = Stage::closed();
    let ended = stage.nat(&["close"]);
    assert_eq!(ended.status, 0, "{ended:?}");
    assert!(ended.stdout.contains("closed already"), "{ended:?}");
    assert_eq!(stage.calls(), Vec::<String>::new());
    let status: Value = serde_json::from_str(&stage.nat(&["status", "--json"]).stdout).unwrap();
    assert_eq!(
        (&status["window"], &status["position"], &status["next"]),
        (&"closed".into(), &"closed".into(), &Value::Null)
    );
}

#[test]
fn a_malformed_position_file_is_one_clear_line() {
    let stage = Stage::open();
    stage.position("{\"nat_gatway\": true}");
    for command in ["close", "status"] {
        let ended = stage.nat(&[command]);
        assert_eq!(ended.status, 1, "{ended:?}");
        let line = ended.stderr.lines().last().unwrap();
        assert!(
            line.contains("nat.auto.tfvars.json")
                && line.contains("nat_gatway")
                && line.contains("{\"nat_gateway\": false}"),
            "{line}"
        );
    }
    assert!(
        stage.lines().is_empty(),
        "terraform was asked before the file was read"
    );
}

/// Everything but the way in is there, so all proofs hold but the two that need it.
fn assert_closed_but_for_ssh(ended: &Ended, stage: &Stage) {
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(
        (ended.status, &report["outcome"]),
        (5, &"unproven".into()),
        "{ended:?}"
    );
    let holds = |proof: &Value| {
        (
            proof["claim"].as_str().unwrap().to_owned(),
            proof["holds"].as_bool().unwrap(),
        )
    };
    let proofs: Vec<_> = report["proofs"]
        .as_array()
        .unwrap()
        .iter()
        .map(holds)
        .collect();
    let wanted = [
        ("nat-gateway-gone", true),
        ("address-released", true),
        ("plan-empty", true),
        ("api-ready", true),
        ("no-egress-backend", false),
        ("no-egress-database", false),
    ];
    assert_eq!(
        proofs,
        wanted.map(|(claim, holds)| (claim.to_owned(), holds))
    );
    assert_eq!(report["window"]["seconds"], 5400);
    // Two started hours of gateway and address in ap-south-1.
    assert_eq!(report["window"]["cost"]["usd_micros"], 122_000);
    assert_eq!(stage.position_now(), CLOSED);
}

#[test]
fn what_could_not_be_proven_is_not_called_closed_and_the_rest_is() {
    let stage = Stage::open();
    let ended = stage.nat(&["close", "--json"]);
    assert_closed_but_for_ssh(&ended, &stage);
    assert_eq!(stage.calls(), ["plan", "apply", "plan"]);
    assert_eq!(stage.nat(&["close"]).status, 0, "now it is closed");
}

#[test]
fn an_apply_that_fails_can_be_run_again() {
    let stage = Stage::open();
    stage.put("apply-fails", "once\n");
    let ended = stage.nat(&["close"]);
    assert_eq!(ended.status, 1, "{ended:?}");
    let line = ended.stderr.lines().last().unwrap();
    assert!(
        line.contains("run `drawbridge nat close` again") && line.contains("no such luck"),
        "{line}"
    );
    assert_closed_but_for_ssh(&stage.nat(&["close", "--json"]), &stage);
}

#[test]
fn an_interrupt_reaches_terraform_once_and_the_next_run_goes_on() {
    let stage = Stage::open();
    stage.put("apply-hangs", "");
    let child = stage.drawbridge(&["nat", "close"]).spawn().unwrap();
    appears(&stage, "started");
    interrupt(&child);
    let ended = Ended::of(child.wait_with_output().unwrap());
    assert_eq!(ended.status, 130, "{ended:?}");
    assert!(
        stage.path().join("interrupted").exists(),
        "terraform was not told"
    );
    std::fs::remove_file(stage.path().join("apply-hangs")).unwrap();
    assert_closed_but_for_ssh(&stage.nat(&["close", "--json"]), &stage);
}

#[test]
fn wait_goes_on_as_soon_as_the_hosts_are_complete() {
    let stage = Stage::open();
    stage.report("backend", "i-backend", "seal");
    let child = stage
        .drawbridge(&["nat", "close", "--wait", "--json"])
        .spawn()
        .unwrap();
    sleep(Duration::from_secs(3));
    assert_eq!(stage.calls(), Vec::<String>::new(), "it did not wait");
    stage.report("backend", "i-backend", "complete");
    let ended = Ended::of(child.wait_with_output().unwrap());
    assert!(
        ended
            .stderr
            .contains("backend (i-backend) stands at step seal"),
        "{ended:?}"
    );
    assert_closed_but_for_ssh(&ended, &stage);
}

#[test]
fn waiting_ends_at_its_limit_and_at_an_interrupt_with_nothing_changed() {
    let stage = Stage::open();
    stage.report("backend", "i-backend", "seal");
    assert_eq!(
        stage.nat(&["close", "--wait", "--wait-limit", "1s"]).status,
        3
    );
    let child = stage
        .drawbridge(&["nat", "close", "--wait"])
        .spawn()
        .unwrap();
    sleep(Duration::from_secs(2));
    interrupt(&child);
    let ended = Ended::of(child.wait_with_output().unwrap());
    assert_eq!(ended.status, 130, "{ended:?}");
    assert_eq!(stage.position_now(), OPEN);
}

#[test]
fn complete_hosts_are_not_enough_while_the_api_is_not_ready() {
    let stage = Stage::open();
    stage.ready(503);
    let ended = stage.nat(&["close", "--json"]);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((ended.status, &report["outcome"]), (3, &"not-ready".into()));
    let waiting = &report["waiting"][0];
    assert_eq!(waiting["host"], "backend");
    let reason = waiting["reason"].as_str().unwrap();
    assert!(reason.contains("/ready answers 503"), "{reason}");
    assert_eq!(
        (stage.position_now().as_str(), stage.calls().len()),
        (OPEN, 0)
    );

    let child = stage
        .drawbridge(&["nat", "close", "--wait", "--json"])
        .spawn()
        .unwrap();
    sleep(Duration::from_secs(8));
    assert_eq!(stage.calls(), Vec::<String>::new(), "it did not wait");
    stage.ready(200);
    assert_closed_but_for_ssh(&Ended::of(child.wait_with_output().unwrap()), &stage);
}

#[test]
fn force_asks_neither_the_hosts_nor_the_api() {
    let stage = Stage::open();
    stage.parameter("hosts/backend/bootstrap", "pending");
    let ended = stage.nat(&["close", "--force", "--json"]);
    assert_closed_but_for_ssh(&ended, &stage);
}

#[test]
fn what_is_closed_is_proven_again_on_request() {
    let stage = Stage::closed();
    let ended = stage.nat(&["close", "--prove"]);
    assert_eq!(ended.status, 5, "{ended:?}");
    for part in [
        "ok   nat-gateway-gone",
        "FAIL no-egress-backend",
        "`drawbridge nat close --prove`",
    ] {
        assert!(ended.stdout.contains(part), "{part}: {ended:?}");
    }
    assert_eq!(stage.calls(), ["plan"]);
}

#[test]
fn without_ssh_the_hosts_are_left_out_aloud_and_the_route_table_is_asked() {
    let stage = Stage::open();
    let ended = stage.nat(&["close", "--without-ssh", "--json"]);
    assert_eq!(ended.status, 0, "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    let claims: Vec<_> = report["proofs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|proof| (proof["claim"].as_str().unwrap(), proof["holds"] == true))
        .collect();
    let wanted = [
        "nat-gateway-gone",
        "address-released",
        "plan-empty",
        "api-ready",
        "no-route",
    ];
    assert_eq!(claims, wanted.map(|claim| (claim, true)));
    let left_out = serde_json::json!(["no-egress-backend", "no-egress-database"]);
    assert_eq!(report["left_out"], left_out);
}

#[test]
fn without_ssh_a_way_out_that_stands_is_not_called_closed() {
    let stage = Stage::open();
    fs::copy(
        stage.path().join("open/routes.json"),
        stage.path().join("closed/routes.json"),
    )
    .unwrap();
    let ended = stage.nat(&["close", "--without-ssh"]);
    assert_eq!(ended.status, 5, "{ended:?}");
    assert!(
        ended
            .stdout
            .contains("FAIL no-route: rtb-1 still leads to nat-1"),
        "{ended:?}"
    );
    let line = "no-egress-database: left out (--without-ssh)";
    assert!(ended.stdout.contains(line), "{ended:?}");
}

#[test]
fn the_rest_is_left_on_request_and_only_the_window_is_planned() {
    let stage = Stage::open();
    stage.plan(&[
        ("aws_nat_gateway.main[0]", "delete"),
        ("aws_instance.backend", "create"),
    ]);
    let refused = stage.nat(&["close"]);
    assert_eq!(refused.status, 4);
    assert!(
        refused
            .stdout
            .contains("`drawbridge nat close --leave-rest`"),
        "{refused:?}"
    );
    let ended = stage.nat(&["close", "--leave-rest", "--json"]);
    assert_closed_but_for_ssh(&ended, &stage);
    let targeted = stage
        .lines()
        .into_iter()
        .find(|line| line.contains("-target="));
    for address in drawbridge::nat::window::RESOURCES {
        assert!(
            targeted
                .as_ref()
                .unwrap()
                .contains(&format!("-target={address}"))
        );
    }
    // What the four depend on may want more, and then it is refused all the same.
    let stage = Stage::open();
    let more = [("aws_subnet.main[\"management\"]", "replace")];
    stage.plan(&more);
    std::fs::copy(
        stage.path().join("plan.jsonl"),
        stage.path().join("targeted.jsonl"),
    )
    .unwrap();
    assert_eq!(stage.nat(&["close", "--leave-rest"]).status, 4);
    assert_eq!(stage.position_now(), OPEN);
}

#[test]
fn what_the_state_does_not_know_is_imported_and_closed() {
    // Without a lease as well: where nat_gateway_max_hours is 0, only one gives the schedule a place.
    for position in [
        r#"{"nat_gateway": true, "nat_gateway_until": "2026-01-01T00:00:00Z"}"#,
        r#"{"nat_gateway": true}"#,
    ] {
        imports_and_closes(position);
    }
}

fn imports_and_closes(position: &str) {
    let stage = Stage::open();
    stage.as_in("closed", "state.json");
    stage.as_in("closed", "deployment.json");
    stage.position(position);
    let ended = stage.nat(&["close", "--json"]);
    assert_closed_but_for_ssh(&ended, &stage);
    assert_eq!(
        stage.calls(),
        [
            "import", "import", "import", "import", "apply", "plan", "apply", "plan"
        ]
    );
    let imports: Vec<_> = stage
        .lines()
        .into_iter()
        .filter(|line| line.starts_with("import"))
        .collect();
    for (line, end) in imports.iter().zip([
        "aws_nat_gateway.main[0] nat-1",
        "aws_eip.nat[0] eipalloc-1",
        "aws_scheduler_schedule.nat_deadline[0] default/drawbridge-nat-1-4h",
        "aws_route.private_internet[0] rtb-1_0.0.0.0/0",
    ]) {
        assert!(line.ends_with(end), "{line}");
        // A lease that has ended is refused by the configuration, so another one is given.
        assert!(
            line.contains("-var=nat_gateway=true -var=nat_gateway_until=2"),
            "{line}"
        );
        assert!(!line.contains("2026-01-01"), "{line}");
    }
}

#[test]
fn after_the_switch_fired_nobody_is_waited_for() {
    let stage = Stage::fired();
    stage.parameter("hosts/backend/bootstrap", "pending");
    let ended = stage.nat(&["close", "--json"]);
    assert_closed_but_for_ssh(&ended, &stage);
}

#[test]
fn the_script_runs_the_same_command() {
    let stage = Stage::closed();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/destroy-nat.sh");
    let mut command = stage.drawbridge(&[]);
    let environment: Vec<_> = command
        .get_envs()
        .map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned)))
        .collect();
    command = std::process::Command::new(script);
    for (name, value) in environment {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
        .env("DRAWBRIDGE_BIN", env!("CARGO_BIN_EXE_drawbridge"))
        .current_dir(stage.path());
    let ended = Ended::of(command.output().unwrap());
    assert_eq!(ended.status, 0, "{ended:?}");
    assert!(ended.stdout.contains("closed already"), "{ended:?}");
}

#[test]
fn the_windows_resources_are_exactly_those_that_nat_tf_makes_by_the_variable() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/terraform/nat.tf");
    let text = std::fs::read_to_string(file).unwrap();
    let mut found = Vec::new();
    for block in text.split("\nresource \"").skip(1) {
        let mut words = block.split('"');
        let (kind, name) = (words.next().unwrap(), words.nth(1).unwrap());
        let counted = block
            .lines()
            .any(|line| line.trim_start().starts_with("count") && line.contains("var.nat_gateway"));
        if counted {
            found.push(format!("{kind}.{name}[0]"));
        }
    }
    let mut known = drawbridge::nat::window::RESOURCES.map(str::to_owned);
    found.sort();
    known.sort();
    assert_eq!(found, known);
}
