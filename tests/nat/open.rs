//! `nat open` against stand-ins: what the window is opened for, and that it is closed whatever comes of it.

use std::os::unix::process::CommandExt as _;
use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::close::appears;
use super::stage::{Ended, Stage};

const CLOSED: &str = "{\"nat_gateway\": false}\n";
const WHOLE: [&str; 5] = ["plan", "apply", "plan", "apply", "plan"];

fn open(stage: &Stage, time: &str, command: &[&str]) -> (Ended, Value) {
    let mut arguments = vec!["open", "--for", time, "--report", "report.json"];
    if !command.is_empty() {
        arguments.push("--");
        arguments.extend(command);
    }
    let ended = stage.nat(&arguments);
    (ended, report(stage))
}

fn report(stage: &Stage) -> Value {
    let text = std::fs::read_to_string(stage.path().join("report.json")).unwrap();
    serde_json::from_str(&text).unwrap_or_default()
}

/// A run in a process group of its own, as a terminal gives it one.
fn spawn(stage: &Stage, time: &str, command: &[&str]) -> Child {
    let mut arguments = vec!["nat", "open", "--for", time, "--report", "report.json"];
    if !command.is_empty() {
        arguments.push("--");
        arguments.extend(command);
    }
    stage
        .drawbridge(&arguments)
        .process_group(0)
        .spawn()
        .unwrap()
}

/// Ctrl-C on the terminal: to the whole group.
fn ctrl_c(child: &Child) {
    kill("-INT", &format!("-{}", child.id()));
}

fn kill(signal: &str, whom: &str) {
    let mut kill = std::process::Command::new("kill");
    assert!(kill.args([signal, "--", whom]).status().unwrap().success());
}

fn end(child: Child) -> Ended {
    Ended::of(child.wait_with_output().unwrap())
}

/// Gateway and address are gone, as far as stand-ins go: the hosts' two proofs need hosts.
fn assert_closed(stage: &Stage, report: &Value) {
    assert_eq!(stage.position_now(), CLOSED);
    let proofs = report["close"]["proofs"].as_array().unwrap();
    let holds = |claim: &str| {
        let proof = proofs.iter().find(|proof| proof["claim"] == claim);
        proof.unwrap()["holds"] == true
    };
    for claim in ["nat-gateway-gone", "address-released", "plan-empty"] {
        assert!(holds(claim), "{claim}: {report}");
    }
}

#[test]
fn the_window_stands_while_the_command_runs_and_is_closed_after_it() {
    let stage = Stage::closed();
    let look = "cat terraform/nat.auto.tfvars.json gateways.json; echo its own words >&2";
    let (ended, report) = open(&stage, "1m", &["sh", "-c", look]);
    // The command said 0, and the hosts' proofs do not hold here.
    assert_eq!(ended.status, 5, "{ended:?}");
    assert!(!ended.stderr.contains("MAY STILL BE OPEN"), "{ended:?}");
    assert!(
        ended
            .stdout
            .starts_with("{\"nat_gateway\": true, \"nat_gateway_until\": \"20"),
        "{ended:?}"
    );
    assert!(
        ended.stdout.contains("available") && ended.stdout.lines().count() <= 2,
        "{ended:?}"
    );
    assert_eq!(stage.calls(), WHOLE);
    assert_closed(&stage, &report);
    assert_eq!(
        (&report["gateway"], &report["command"]["status"]),
        (&"nat-1".into(), &0.into())
    );
    for said in [
        "about $0.061",
        "plus $0.056 per GB",
        "`drawbridge nat close` ends it",
        "AWS deletes the gateway at",
        "its own words",
    ] {
        assert!(ended.stderr.contains(said), "{said}: {ended:?}");
    }
    let line = &stage
        .lines()
        .into_iter()
        .find(|line| line.starts_with("plan"))
        .unwrap();
    assert!(
        line.contains("-var=nat_gateway=true -var=nat_gateway_until=20"),
        "{line}"
    );
}

#[test]
fn the_lease_ends_ten_minutes_after_the_time() {
    let stage = Stage::closed();
    let before = time::OffsetDateTime::now_utc();
    let (_, report) = open(&stage, "30m", &["true"]);
    let format = &time::format_description::well_known::Rfc3339;
    let until =
        time::OffsetDateTime::parse(report["lease_until"].as_str().unwrap(), format).unwrap();
    let minutes = (until - before).as_seconds_f64() / 60.0;
    assert!((39.9..40.5).contains(&minutes), "{minutes}");
}

#[test]
fn the_commands_status_is_ours_and_the_window_is_closed() {
    for (command, status) in [
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -9 $$"], 137),
        // Found, and yet it cannot be run: its interpreter is missing.
        (["./broken", "x", "y"], 127),
        (["/", "x", "y"], 126),
    ] {
        let stage = Stage::closed();
        stage.put("broken", "#!/no/such/interpreter\n");
        stage.make_executable("broken");
        let (ended, report) = open(&stage, "1m", &command);
        assert_eq!(ended.status, status, "{ended:?}");
        assert_eq!(report["command"]["status"], status);
        assert_closed(&stage, &report);
    }
}

#[test]
fn a_command_that_does_not_exist_opens_nothing() {
    let stage = Stage::closed();
    let ended = stage.nat(&["open", "--for", "1m", "--", "no-such-program"]);
    assert_eq!(ended.status, 127, "{ended:?}");
    assert!(ended.stderr.contains("no-such-program"), "{ended:?}");
    assert!(stage.lines().is_empty());
    let ended = stage.nat(&[
        "open",
        "--for",
        "1m",
        "--report",
        "no/such/folder",
        "--",
        "true",
    ]);
    assert_eq!((ended.status, stage.lines().len()), (1, 0), "{ended:?}");
}

#[test]
fn a_time_is_needed_and_has_limits() {
    let stage = Stage::closed();
    for wrong in [
        &["open"][..],
        &["open", "--for", "0s"],
        &["open", "--for", "169h"],
        &["open", "--for", "30"],
    ] {
        assert_eq!(stage.nat(wrong).status, 2, "{wrong:?}");
    }
    assert!(stage.lines().is_empty());
}

#[test]
fn at_the_end_of_the_time_the_command_is_ended_and_the_window_closed() {
    let stage = Stage::closed();
    let (ended, report) = open(&stage, "2s", &["sleep", "60"]);
    assert_eq!(ended.status, 143, "{ended:?}");
    assert!(ended.stderr.contains("the time was over"), "{ended:?}");
    assert_closed(&stage, &report);
    let stage = Stage::closed();
    let (ended, report) = open(&stage, "2s", &[]);
    assert_eq!(
        (ended.status, &report["command"]),
        (5, &Value::Null),
        "{ended:?}"
    );
    assert_closed(&stage, &report);
}

#[test]
fn ctrl_c_ends_the_command_and_the_window() {
    let stage = Stage::closed();
    let child = spawn(&stage, "1m", &["sh", "-c", "touch started; exec sleep 60"]);
    appears(&stage, "started");
    ctrl_c(&child);
    let ended = end(child);
    assert_eq!(ended.status, 130, "{ended:?}");
    assert_closed(&stage, &report(&stage));
}

#[test]
fn a_command_that_bears_ctrl_c_goes_on_and_the_window_with_it() {
    let stage = Stage::closed();
    let bears = "trap 'touch heard' INT; touch started; while :; do sleep 0.1; [ ! -e heard ] || exit 9; done";
    let child = spawn(&stage, "1m", &["sh", "-c", bears]);
    appears(&stage, "started");
    ctrl_c(&child);
    assert_eq!(end(child).status, 9);
    assert_closed(&stage, &report(&stage));
}

#[test]
fn sigterm_and_sighup_to_us_reach_the_command_as_sigterm() {
    for signal in ["-TERM", "-HUP"] {
        let stage = Stage::closed();
        let waits = "trap 'exit 8' TERM; touch started; while :; do sleep 0.1; done";
        let child = spawn(&stage, "1m", &["sh", "-c", waits]);
        appears(&stage, "started");
        kill(signal, &child.id().to_string());
        assert_eq!(end(child).status, 8, "{signal}");
        let report = report(&stage);
        assert_eq!(
            report["command"]["said"],
            Value::Null,
            "it was the end of the time"
        );
        assert_closed(&stage, &report);
    }
}

#[test]
fn ctrl_c_without_a_command_closes_in_order() {
    let stage = Stage::closed();
    let child = spawn(&stage, "10m", &[]);
    appears(&stage, "gateways.json");
    while !std::fs::read_to_string(stage.path().join("gateways.json"))
        .unwrap()
        .contains("available")
    {
        std::thread::sleep(Duration::from_millis(20));
    }
    // The route is looked at after the gateway stands.
    std::thread::sleep(Duration::from_secs(3));
    ctrl_c(&child);
    let ended = end(child);
    assert_eq!(ended.status, 5, "{ended:?}");
    assert_closed(&stage, &report(&stage));
}

#[test]
fn hosts_that_the_command_replaced_are_waited_for_until_ctrl_c_or_the_end_of_the_time() {
    let stage = Stage::closed();
    stage.report("backend", "i-before", "complete");
    let begun = Instant::now();
    let (ended, report_now) = open(&stage, "8s", &["true"]);
    assert!(begun.elapsed() > Duration::from_secs(6), "it did not wait");
    assert!(ended.stderr.contains("waiting: backend"), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("closing although not everybody is done: backend"),
        "{ended:?}"
    );
    assert_closed(&stage, &report_now);

    let stage = Stage::closed();
    stage.report("backend", "i-before", "complete");
    let child = spawn(&stage, "10m", &["touch", "ran"]);
    appears(&stage, "ran");
    std::thread::sleep(Duration::from_secs(3));
    ctrl_c(&child);
    let ended = end(child);
    assert!(ended.stderr.contains("closing although"), "{ended:?}");
    assert_eq!(ended.status, 5, "{ended:?}");
    assert_closed(&stage, &report(&stage));
}

#[test]
fn a_second_ctrl_c_in_the_close_interrupts_terraform_and_says_what_may_stand() {
    let stage = Stage::closed();
    let child = spawn(&stage, "1m", &["touch", "apply-hangs"]);
    appears(&stage, "started");
    ctrl_c(&child);
    std::thread::sleep(Duration::from_millis(500));
    assert!(
        !stage.path().join("interrupted").exists(),
        "the first is for waiting only"
    );
    ctrl_c(&child);
    let ended = end(child);
    assert_eq!(ended.status, 130, "{ended:?}");
    assert!(stage.path().join("interrupted").exists());
    assert!(ended.stderr.contains("MAY STILL BE OPEN"), "{ended:?}");
}

#[test]
fn an_opening_that_fails_half_way_is_closed() {
    let stage = Stage::closed();
    stage.put("apply-fails", "once\n");
    let (ended, report) = open(&stage, "1m", &["touch", "ran"]);
    assert_eq!(ended.status, 1, "{ended:?}");
    assert!(
        report["failure"].as_str().unwrap().contains("no such luck"),
        "{report}"
    );
    assert_eq!(stage.position_now(), CLOSED);
    assert!(!stage.path().join("ran").exists());
}

#[test]
fn a_close_that_fails_once_is_tried_again() {
    let stage = Stage::closed();
    let (ended, report) = open(&stage, "1m", &["sh", "-c", "echo once >apply-fails"]);
    assert!(ended.stderr.contains("trying again"), "{ended:?}");
    assert_eq!(ended.status, 5, "{ended:?}");
    assert_closed(&stage, &report);
}

#[test]
fn what_the_command_left_half_done_does_not_keep_the_window_open() {
    let stage = Stage::closed();
    stage.put("open/plan.jsonl", "{\"type\":\"planned_change\",\"change\":{\"resource\":{\"addr\":\"aws_instance.backend\",\"resource_type\":\"aws_instance\"},\"action\":\"create\"}}\n");
    let (ended, report) = open(&stage, "1m", &["true"]);
    assert_eq!(ended.status, 5, "{ended:?}");
    assert_closed(&stage, &report);
    let targeted = stage
        .lines()
        .into_iter()
        .find(|line| line.contains("-target="));
    assert_eq!(targeted.unwrap().matches("-target=").count(), 4);
}

#[test]
fn it_refuses_while_a_window_stands_or_the_plan_wants_more() {
    let stage = Stage::open();
    let (ended, report) = open(&stage, "1m", &["touch", "ran"]);
    assert_eq!(ended.status, 4, "{ended:?}");
    for part in [
        "open already: nat-1",
        "2026-11-20T10:00:00Z",
        "2099-01-01T00:00:00Z",
        "nat close",
    ] {
        assert!(
            report["refusal"].as_str().unwrap().contains(part),
            "{part}: {report}"
        );
    }
    let stage = Stage::fired();
    assert_eq!(open(&stage, "1m", &["true"]).0.status, 4);
    assert_eq!(stage.calls(), Vec::<String>::new());
    let stage = Stage::closed();
    stage.opening(&[
        ("aws_nat_gateway.main[0]", "create"),
        ("aws_instance.backend", "replace"),
    ]);
    let (ended, report) = open(&stage, "1m", &["touch", "ran"]);
    assert_eq!(ended.status, 4, "{ended:?}");
    assert!(
        report["refusal"]
            .as_str()
            .unwrap()
            .contains("replace aws_instance.backend")
    );
    assert_eq!(stage.position_now(), CLOSED);
    assert!(!stage.path().join("ran").exists());
}

#[test]
fn the_rest_is_left_to_the_command_on_request_but_the_window_alone_is_opened() {
    let wants_more = |stage: &Stage| {
        stage.opening(&[
            ("aws_nat_gateway.main[0]", "create"),
            ("aws_instance.backend", "replace"),
        ]);
    };
    let arguments = ["open", "--for", "1m", "--leave-rest", "--without-ssh", "--"];
    let run = |stage: &Stage| stage.nat(&[&arguments[..], &["touch", "ran"]].concat());

    let stage = Stage::closed();
    wants_more(&stage);
    stage.targeted_opening(&[("aws_nat_gateway.main[0]", "create")]);
    let ended = run(&stage);
    assert_eq!(ended.status, 0, "{ended:?}");
    assert!(stage.path().join("ran").exists());
    assert_eq!(stage.position_now(), CLOSED);
    let plans: Vec<_> = stage
        .lines()
        .into_iter()
        .filter(|line| line.contains("nat_gateway=true"))
        .map(|line| line.matches("-target=").count())
        .collect();
    assert_eq!(plans, [0, 4]);

    // What the window depends on is in a plan for it alone as well.
    let stage = Stage::closed();
    wants_more(&stage);
    stage.targeted_opening(&[
        ("aws_nat_gateway.main[0]", "create"),
        ("aws_vpc.main", "update"),
    ]);
    let ended = run(&stage);
    assert_eq!(ended.status, 4, "{ended:?}");
    assert!(!stage.path().join("ran").exists());
}
