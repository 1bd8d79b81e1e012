//! `drawbridge up` and `drawbridge open` against stand-ins: what is done, in which order, and what running it again does
//! after a sudden end.

use std::fs;
use std::time::Duration;

use super::stage::{Ended, Stage};
use crate::support::eventually;

const CLOSED: &str = "{\"nat_gateway\": false}\n";
const LIMIT: Duration = Duration::from_secs(120);
const UP: [&str; 4] = ["up", "--skip-publish", "--yes", "--without-ssh"];

fn up(stage: &Stage, more: &[&str]) -> Ended {
    let arguments: Vec<_> = UP.iter().chain(more).copied().collect();
    let mut command = stage.drawbridge(&arguments);
    command.env_remove("CI").env_remove("DISPLAY");
    Ended::of(command.output().unwrap())
}

fn assert_refused(stage: &Stage, ended: &Ended, why: &str) {
    assert_eq!(ended.status, 4, "{ended:?}");
    assert!(ended.stderr.contains(why), "{why}: {ended:?}");
    assert!(!stage.calls().contains(&"apply".to_owned()), "{ended:?}");
}

/// Nothing is applied yet: no output, and a state without anything in it.
fn empty() -> Stage {
    let stage = Stage::closed();
    stage.put("deployment.json", "");
    stage
}

#[test]
fn the_first_run_applies_waits_closes_and_says_where_the_docs_are() {
    let stage = empty();
    let ended = up(&stage, &[]);
    assert_eq!(ended.status, 0, "{ended:?}");
    assert_eq!(ended.stdout, "http://lb/docs\n");
    for part in [
        "the first apply, with the NAT window in it",
        "closed the NAT window of drawbridge",
        "ok   nat-gateway-gone",
        "ok   api-ready",
        "no-egress-backend: left out (--without-ssh)",
    ] {
        assert!(ended.stderr.contains(part), "{part}: {ended:?}");
    }
    assert_eq!(
        stage.calls(),
        ["init", "plan", "apply", "plan", "apply", "plan"]
    );
    assert!(stage.lines().iter().any(|line| {
        line.starts_with("plan") && line.contains("-var=nat_gateway=true -var=nat_gateway_until=")
    }));
    assert_eq!(stage.position_now(), CLOSED);
}

#[test]
fn killed_while_the_hosts_boot_and_run_again_it_goes_on() {
    let stage = empty();
    stage.report("database", "i-database", "volume");
    let log = stage.path().join("log");
    let mut command = stage.drawbridge(&UP);
    command.stderr(fs::File::create(&log).unwrap());
    let mut killed = command.env_remove("CI").spawn().unwrap();
    // A line for each host, with its step.
    eventually(LIMIT, "a wait for the database", || {
        let said = fs::read_to_string(&log).unwrap();
        let rows = [
            "waiting: backend (i-backend) is complete",
            "waiting: database (i-database) stands at step volume (4 of 8), for ",
        ];
        let is_there = rows.iter().all(|row| said.contains(row));
        is_there.then_some(()).ok_or(said)
    });
    killed.kill().unwrap();
    killed.wait().unwrap();
    let position = stage.position_now();
    assert!(position.contains("nat_gateway_until"), "{position}");

    stage.report("database", "i-database", "complete");
    let ended = up(&stage, &["--no-open"]);
    assert_eq!(ended.status, 0, "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("a NAT window stands already: going on in it"),
        "{ended:?}"
    );
    assert_eq!(stage.position_now(), CLOSED);
    let again = up(&stage, &[]);
    assert_eq!(again.status, 0, "{again:?}");
    assert!(again.stderr.contains("nothing to do"), "{again:?}");
}

#[test]
fn a_first_apply_that_fails_or_is_interrupted_leaves_no_window_and_the_next_run_goes_on() {
    let stage = empty();
    // What it had made, and that it has not come to its output.
    stage.as_in("open", "state.json");
    stage.put("closed/deployment.json", "");
    stage.put("apply-fails", "once\n");
    let ended = up(&stage, &[]);
    assert_eq!(ended.status, 1, "{ended:?}");
    for part in ["no such luck", "run `drawbridge up` again"] {
        assert!(ended.stderr.contains(part), "{part}: {ended:?}");
    }
    assert!(!ended.stderr.contains("MAY STILL BE OPEN"), "{ended:?}");
    assert_eq!(stage.position_now(), CLOSED);
    let targeted = "-target=aws_nat_gateway.main[0]";
    let closes = |line: &String| line.starts_with("plan") && line.contains(targeted);
    assert!(stage.lines().iter().any(closes), "{:?}", stage.lines());

    // Ctrl-C in the middle of the next.
    stage.as_in("open", "state.json");
    stage.put("apply-hangs", "");
    let interrupted = stage.drawbridge(&UP).env_remove("CI").spawn().unwrap();
    super::close::appears(&stage, "started");
    fs::remove_file(stage.path().join("apply-hangs")).unwrap();
    let id = interrupted.id().to_string();
    let mut kill = std::process::Command::new("kill");
    assert!(kill.args(["-INT", &id]).status().unwrap().success());
    let ended = Ended::of(interrupted.wait_with_output().unwrap());
    assert_eq!(ended.status, 130, "{ended:?}");
    assert!(!ended.stderr.contains("MAY STILL BE OPEN"), "{ended:?}");
    assert_eq!(stage.position_now(), CLOSED);

    stage.put(
        "closed/deployment.json",
        &fs::read_to_string(stage.path().join("open/deployment.json")).unwrap(),
    );
    let ended = up(&stage, &[]);
    assert_eq!(ended.status, 0, "{ended:?}");
}

#[test]
fn a_window_is_opened_for_new_private_hosts_and_for_nothing_else() {
    let stage = Stage::closed();
    stage.plan(&[
        ("aws_instance.bastion", "replace"),
        ("aws_lb.main", "update"),
    ]);
    let ended = up(&stage, &[]);
    assert_eq!(ended.status, 0, "{ended:?}");
    for part in [
        "replace aws_instance.bastion",
        "the plan: update 1, replace 1",
        "ok   api-ready",
    ] {
        assert!(ended.stderr.contains(part), "{part}: {ended:?}");
    }
    assert_eq!(stage.calls(), ["init", "plan", "show", "apply"]);
    assert!(
        !stage
            .lines()
            .iter()
            .any(|line| line.contains("nat_gateway=true"))
    );

    let stage = Stage::closed();
    stage.plan(&[("aws_instance.database", "replace")]);
    let ended = up(&stage, &["--for", "20m"]);
    assert_eq!(ended.status, 0, "{ended:?}");
    for part in [
        "made anew, with the NAT window open: aws_instance.database",
        "opening the NAT window of drawbridge for 20 min",
        "closed the NAT window of drawbridge",
    ] {
        assert!(ended.stderr.contains(part), "{part}: {ended:?}");
    }
    let also = "-replace=aws_instance.backend";
    let plans = stage.lines();
    let plans: Vec<_> = plans
        .iter()
        .filter(|line| line.starts_with("plan"))
        .collect();
    // As the files say, with the backend, the opening, inside, the close, the proof.
    let replaced: Vec<_> = plans.iter().map(|line| line.contains(also)).collect();
    assert_eq!(
        replaced,
        [false, true, false, true, false, false],
        "{plans:?}"
    );
    assert_eq!(stage.position_now(), CLOSED);
}

#[test]
fn what_nobody_agreed_to_is_not_applied_inside_the_window() {
    let stage = Stage::closed();
    stage.plan(&[("aws_instance.backend", "replace")]);
    let more = r#"{"type":"planned_change","change":{"resource":{"addr":"aws_ebs_volume.database","resource_type":"aws_ebs_volume"},"action":"replace"}}"#;
    stage.put("open/plan.jsonl", more);
    let ended = up(&stage, &[]);
    assert_eq!(ended.status, 1, "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("nobody agreed to (replace aws_ebs_volume.database)"),
        "{ended:?}"
    );
    // Opened and closed, and nothing between.
    let applies = stage.calls().iter().filter(|call| *call == "apply").count();
    assert_eq!((applies, stage.position_now().as_str()), (2, CLOSED));
}

#[test]
fn a_host_whose_window_was_closed_too_early_gets_another() {
    let stage = Stage::closed();
    stage.parameter("hosts/backend/bootstrap", "pending");
    let ended = up(&stage, &["--for", "1s"]);
    // It needs longer than that, and this is said; another run opens again.
    assert_eq!(ended.status, 5, "{ended:?}");
    for part in [
        "in need of the window: backend (i-backend) has not reported yet",
        "the time was over before everybody was done: backend",
        "next: `drawbridge up",
    ] {
        assert!(ended.stderr.contains(part), "{part}: {ended:?}");
    }
    assert_eq!(stage.position_now(), CLOSED);
}

#[test]
fn what_the_dead_mans_switch_left_is_cleared_first() {
    let stage = Stage::fired();
    let ended = up(&stage, &[]);
    assert_eq!(ended.status, 0, "{ended:?}");
    for part in ["clearing what it has left", "nothing to do"] {
        assert!(ended.stderr.contains(part), "{part}: {ended:?}");
    }
    assert_eq!(stage.position_now(), CLOSED);
}

#[test]
fn what_stands_in_the_way_is_named_and_nothing_is_applied() {
    // Nobody to ask: the plan is shown all the same.
    let stage = Stage::closed();
    stage.plan(&[("aws_instance.backend", "replace")]);
    let mut command = stage.drawbridge(&["up", "--skip-publish", "--without-ssh"]);
    let ended = Ended::of(command.env_remove("CI").output().unwrap());
    assert_refused(&stage, &ended, "`drawbridge up --yes`");
    assert!(
        ended.stderr.contains("replace aws_instance.backend"),
        "{ended:?}"
    );

    let ci = |stage: &Stage| {
        let mut command = stage.drawbridge(&UP);
        Ended::of(command.env("CI", "true").output().unwrap())
    };
    assert_refused(&stage, &ci(&stage), "which a CI job loses");
    stage.put(
        "terraform/.terraform/terraform.tfstate",
        r#"{"backend": {"type": "s3"}}"#,
    );
    stage.position("{\"nat_gateway\": true}\n");
    assert_refused(&stage, &ci(&stage), r#"commit {"nat_gateway": false}"#);
    stage.position(CLOSED);
    let ended = ci(&stage);
    assert_eq!(ended.status, 0, "{ended:?}");

    let stage = Stage::closed();
    stage.plan(&[("aws_instance.backend", "replace")]);
    stage.variables("shop", "ap-south-1");
    assert_refused(
        &stage,
        &up(&stage, &[]),
        "`drawbridge`, but the configuration says `shop`",
    );

    let stage = Stage::closed();
    stage.gateways(&[("nat-9", "available", false)]);
    assert_refused(
        &stage,
        &up(&stage, &[]),
        "nat-9 stands in this VPC but is not the window's",
    );

    let stage = Stage::closed();
    stage.position("{}");
    let ended = up(&stage, &[]);
    assert_eq!((ended.status, stage.calls()), (1, vec![]), "{ended:?}");
    assert!(ended.stderr.contains("nat.auto.tfvars.json"), "{ended:?}");
}

#[test]
fn the_docs_open_in_the_browser_that_is_named() {
    let stage = Stage::closed();
    stage.put("bin/browser", "#!/bin/sh\necho \"$@\" >\"$0.called\"\n");
    stage.make_executable("bin/browser");
    let open = |arguments: &[&str]| {
        let mut command = stage.drawbridge(arguments);
        let command = command.env_remove("CI").env("BROWSER", "browser --new");
        Ended::of(command.output().unwrap())
    };
    let called = stage.path().join("bin/browser.called");
    let printed = open(&["open", "--print"]);
    assert_eq!(
        (printed.status, printed.stdout.as_str()),
        (0, "http://lb/docs\n")
    );
    assert!(!called.exists(), "{printed:?}");
    let opened = open(&["open"]);
    assert_eq!(
        (opened.status, opened.stdout.as_str()),
        (0, "http://lb/docs\n")
    );
    assert_eq!(
        fs::read_to_string(called).unwrap(),
        "--new http://lb/docs\n"
    );
}
