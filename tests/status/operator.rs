//! `drawbridge status` as people run it.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use drawbridge::appliance::Role;
use serde_json::{Value, json};

use super::stage::{Stage, ended, host, images};
use crate::support::free_port;

fn unknown(seen: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let parts = seen["unknown"].as_array().unwrap().iter();
    parts
        .map(|one| (text(&one["part"]), text(&one["reason"])))
        .collect()
}

fn findings(seen: &Value) -> Vec<&str> {
    let all = seen["findings"].as_array().unwrap().iter();
    all.map(|one| one["finding"].as_str().unwrap()).collect()
}

/// `host()` with the host's clock as it is now.
fn now(mut host: Value) -> Value {
    let now = time::OffsetDateTime::now_utc();
    let format = time::format_description::well_known::Rfc3339;
    host["time"] = json!(now.format(&format).unwrap());
    host
}

#[test]
fn what_is_fine_wrong_and_unknown_is_told_apart() {
    let stage = Stage::fine();
    // The clock is the real one at the moment of the question.
    let script = now(host()).to_string();
    let time = script.split('"').nth(3).unwrap().to_owned();
    let alive = script.replace(&time, "'\"$(date -u +%Y-%m-%dT%H:%M:%S.%NZ)\"'");
    let alive = format!("#!/bin/sh\nprintf %s '{alive}'\n");
    stage.runs(&alive);
    let fine = stage.run(&["status", "--json"]);
    let seen = fine.json();
    assert_eq!(unknown(&seen), [], "{seen:#}");
    assert_eq!(findings(&seen), Vec::<&str>::new(), "{seen:#}");
    assert_eq!(fine.status, 0, "{fine:?}");
    let hosts = &seen["hosts"];
    assert_eq!(hosts["backend"]["instance_id"], "i-backend");
    assert_eq!(hosts["backend"]["bootstrap"]["is_complete"], true);
    assert_eq!(
        hosts["database"]["host"]["database"]["size_bytes"],
        9_000_000
    );
    assert_eq!(hosts["bastion"]["image"]["name"], "name of ami-1");
    assert_eq!(seen["api"]["direct"]["is_ready"], true);
    assert_eq!(seen["api"]["load_balancer"]["is_ready"], true);
    assert_eq!(seen["window"]["window"], "closed");
    assert_eq!(seen["last_backup"], Value::Null);
    let text = stage.run(&["status"]).stdout;
    for part in [
        "i-database",
        "bootstrap complete",
        "0 days old (name of ami-1)",
        "postgres 17.6: 8.5 MB, 9 of 100 connections",
        "memory 40 % of",
        "window    closed",
        "backup    none",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("unknown"), "{text}");
    assert!(text.lines().count() <= 24, "{text}");

    // Wrong: a failed unit with a name that would clear the screen, and an API that nobody serves.
    let failed = r#""failed_units":["\u001b[2Jx.service"]"#;
    stage.runs(&alive.replace(r#""failed_units":[]"#, failed));
    stage.api_port(free_port());
    stage
        .operator
        .report(Role::Database, "i-before", "complete");
    stage.aws("describe-images", &images(&[]));
    let wrong = stage.run(&["status"]);
    assert_eq!(wrong.status, 6, "{wrong:?}");
    assert!(!wrong.stdout.contains('\u{1b}'), "{wrong:?}");
    for part in [
        "\\u{1b}[2Jx.service",
        "NOT READY directly",
        "the report there is of i-before",
        "`drawbridge exec backend -- sudo systemctl restart",
        "does not exist any more",
    ] {
        assert!(wrong.stdout.contains(part), "{part}: {}", wrong.stdout);
    }
    let seen = stage.run(&["status", "--json"]);
    assert!(!seen.stdout.contains('\u{1b}'), "{seen:?}");
    let names = findings(&seen.json()).join(" ");
    for name in [
        "unit-failed",
        "api-not-ready",
        "bootstrap-incomplete",
        "image-gone",
    ] {
        assert!(names.contains(name), "{name}: {names}");
    }
}

#[test]
fn each_part_is_unknown_by_itself_and_says_why() {
    let stage = Stage::fine();
    // A host that may not ask Postgres, and a clock that is not told.
    let mut shy = host();
    shy["database"] = json!({"unknown": "only root may ask"});
    stage.says(&shy);
    let ended_shy = stage.run(&["status", "--json"]);
    let seen = unknown(&ended_shy.json());
    assert!(
        seen.contains(&("database postgres".into(), "only root may ask".into())),
        "{seen:?}"
    );
    assert!(
        seen.iter()
            .all(|(part, _)| part.ends_with("postgres") || part.ends_with("clock")),
        "{seen:?}"
    );
    assert_eq!(ended_shy.status, 5, "{ended_shy:?}");

    // Somebody whose key nobody knows sees what is seen from outside.
    stage.hosts.other_key();
    let other = stage.hosts.folder.path().join("other");
    let stranger = ended(&mut stage.signing_in_with(&other, &["status"]));
    assert_eq!(stranger.status, 5, "{stranger:?}");
    let reason = "unknown: bastion accepts none of these keys";
    assert_eq!(
        stranger.stdout.matches(reason).count(),
        4,
        "{}",
        stranger.stdout
    );
    assert!(stranger.stdout.contains("bootstrap complete"));
    assert!(stranger.stdout.contains("ready through the load balancer"));

    // A key that SSM exchanged though the instance is the same: nobody is signed in to.
    let written = stage.run(&["ssh-config"]);
    assert_eq!(written.status, 0, "{written:?}");
    let pinned = std::fs::read_to_string(stage.hosts.folder.path().join("backend_host_key.pub"));
    stage
        .operator
        .host_key(Role::Backend, &stage.hosts.other_key());
    let exchanged = stage.run(&["status"]);
    assert_eq!(exchanged.status, 5, "{exchanged:?}");
    let reason = "inside unknown: SSM holds another host key for backend";
    assert_eq!(
        exchanged.stdout.matches(reason).count(),
        3,
        "{}",
        exchanged.stdout
    );
    stage.operator.host_key(Role::Backend, &pinned.unwrap());

    // Without credentials the load balancer still answers.
    let mut command = stage.drawbridge(&["status", "--json"]);
    command
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_SECRET_ACCESS_KEY");
    let nobody = ended(&mut command);
    let seen = nobody.json();
    assert_eq!(nobody.status, 5, "{nobody:?}");
    assert_eq!(seen["api"]["load_balancer"]["is_ready"], true);
    for part in [
        "window",
        "backend",
        "backend bootstrap",
        "api directly",
        "database image",
    ] {
        let found = unknown(&seen);
        let reason = found.iter().find(|(name, _)| name == part);
        let (_, reason) = reason.unwrap_or_else(|| panic!("{part} is known: {found:?}"));
        assert!(reason.contains("no AWS credentials"), "{part}: {reason}");
    }

    // Our own program on a machine that is no host of ours.
    stage.runs_ours();
    let ours = stage.run(&["status", "--json"]).json();
    let bastion = &ours["hosts"]["bastion"]["host"];
    assert!(
        bastion["memory"]["total_bytes"].as_u64().unwrap() > 0,
        "{ours:#}"
    );
    assert!(bastion["root_disk"]["available_bytes"].is_u64(), "{ours:#}");
    assert_eq!(
        ours["hosts"]["backend"]["clock_ahead_seconds"], 0.0,
        "{ours:#}"
    );

    // An older one.
    stage.runs("#!/bin/sh\necho \"error: unrecognized subcommand 'status'\" >&2; exit 2\n");
    let older = stage.run(&["status"]);
    assert!(
        older.stdout.contains("is older than this drawbridge"),
        "{older:?}"
    );
}

#[test]
fn a_host_that_stalls_costs_ten_seconds_and_no_more() {
    let stage = Stage::fine();
    stage.runs("#!/bin/sh\nexec sleep 600\n");
    let begun = Instant::now();
    let stalled = stage.run(&["status"]);
    // Ten, and time for a slow machine to start and print.
    assert!(
        begun.elapsed() < Duration::from_secs(25),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(stalled.status, 5, "{stalled:?}");
    let reason =
        "inside unknown: no answer within 10 s, last seen: running `drawbridge-host status`";
    assert_eq!(
        stalled.stdout.matches(reason).count(),
        3,
        "{}",
        stalled.stdout
    );
    for part in ["bootstrap complete", "ready directly", "window    closed"] {
        assert!(stalled.stdout.contains(part), "{part}: {}", stalled.stdout);
    }
}

#[test]
fn a_terraform_that_stalls_or_fails_is_said_and_nothing_is_claimed() {
    let stage = Stage::fine();
    stage
        .operator
        .program("terraform", "#!/bin/sh\nexec sleep 600\n");
    let slow = stage.run(&["status", "--limit", "1"]);
    assert_eq!((slow.status, slow.stdout.as_str()), (1, ""), "{slow:?}");
    assert!(
        slow.stderr.contains("terraform did not say within 1 s"),
        "{slow:?}"
    );
}

#[test]
fn watch_looks_again_until_it_is_interrupted() {
    let stage = Stage::fine();
    let mut watch = stage
        .drawbridge(&["status", "--watch", "1", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        let line = lines.next().unwrap().unwrap();
        let seen: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(seen["deployment"], "drawbridge");
    }
    let id = nix::unistd::Pid::from_raw(i32::try_from(watch.id()).unwrap());
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(watch.wait().unwrap().code(), Some(130));
}
