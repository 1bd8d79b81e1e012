//! Ends in the middle, and bad days: what has arrived is not sent again, and nothing is left twice.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::json;

use super::stage::{BLOCK, LIMIT, Stage};
use crate::support::{eventually, text};

const BYTES: u64 = 300 << 20;
const PUT: &str = "ebs:PutSnapshotBlock";

fn blocks(number: u64) -> Vec<u64> {
    (0..number).map(|block| block * 3).collect()
}

/// Publishes in the background, two blocks at a time.
fn begin(stage: &Stage, folder: &Path) -> Child {
    let image = format!("backend={}", folder.display());
    let mut command = stage.command(&["publish", "--image", &image, "--parallel", "2"]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().unwrap()
}

fn after(stage: &Stage, call: &str, times: usize) {
    eventually(LIMIT, &format!("{times} {call}"), || {
        match stage.proxy.count(call) {
            seen if seen >= times => Ok(()),
            seen => Err(format!("{seen}: {:?}", stage.proxy.calls())),
        }
    });
}

fn journal(stage: &Stage) -> PathBuf {
    let folder = stage.path(".drawbridge/publish");
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut journals = files.filter(|path| path.extension().is_some_and(|end| end == "jsonl"));
    journals.next().expect("a journal")
}

#[test]
fn a_killed_run_is_gone_on_with_and_only_what_was_under_way_is_sent_twice() {
    let stage = Stage::new();
    let folder = stage.image("backend", BYTES, &blocks(120), 1);
    let mut sent = 0;
    for _ in 0..2 {
        let mut child = begin(&stage, &folder);
        after(&stage, PUT, sent + 40);
        child.kill().unwrap();
        child.wait().unwrap();
        sent = stage.proxy.count(PUT);
    }
    assert!(sent < 120, "killed too late: {sent}");
    let one = stage.published("backend", &folder, &["--parallel", "2"]);
    assert_eq!(one["outcome"], "resumed");
    // Two at each kill.
    let all = stage.proxy.count(PUT);
    assert!((120..=124).contains(&all), "{all}");
    assert!(one["sent"].as_u64().unwrap() < 120 - 60, "{one}");
    assert_eq!(stage.proxy.count("ebs:StartSnapshot"), 1);
    assert_eq!(stage.compare(&text(&one["snapshot"]), &folder), 120);
    assert_eq!(
        stage.snapshots(),
        [(text(&one["snapshot"]), "completed".to_owned())]
    );
    let left = fs::read_dir(stage.path(".drawbridge/publish")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert!(
        left.len() == 1 && left[0].to_string_lossy().ends_with(".lock"),
        "{left:?}"
    );
}

#[test]
fn ended_between_any_two_steps_it_makes_one_snapshot_and_one_image() {
    let stage = Stage::new();
    let folder = stage.image("backend", BYTES, &blocks(6), 1);
    let failed = |call: &str, said: &str| {
        stage.proxy.fail(call, "UnauthorizedOperation");
        let outcome = stage.publish("backend", &folder, &[]);
        assert_eq!(outcome.code, Some(1), "{}", outcome.text);
        assert!(outcome.text.contains(said), "{}", outcome.text);
        assert_eq!(stage.variables(), json!(null));
        stage.proxy.heal();
    };
    // EBS has begun it, and the answer was lost: the journal has no id.
    failed(PUT, "cannot write a block of the snapshot");
    let text_of = fs::read_to_string(journal(&stage)).unwrap();
    let first = text_of.lines().next().unwrap();
    fs::write(journal(&stage), format!("{first}\n")).unwrap();
    failed("ebs:CompleteSnapshot", "cannot complete the snapshot");
    assert_eq!(stage.proxy.count("ebs:StartSnapshot"), 2);
    assert_eq!(stage.snapshots().len(), 1, "the same token began it twice");
    stage.proxy.forget();
    failed("ec2:RegisterImage", "cannot register the image");
    assert_eq!(stage.proxy.count(PUT), 0);
    let one = stage.published("backend", &folder, &[]);
    assert_eq!(one["outcome"], "registered");
    assert_eq!(stage.proxy.count(PUT), 0);
    assert_eq!(stage.snapshots().len(), 1);
}

#[test]
fn a_completion_whose_answer_was_lost_is_found_out() {
    let stage = Stage::new();
    let folder = stage.image("backend", BYTES, &blocks(6), 1);
    stage.publish_but_complete("backend", &folder);
    stage.proxy.heal();
    // By hand, as the killed run would have had it done; EC2 still says pending.
    let (snapshot, state) = stage.snapshots().remove(0);
    assert_eq!(state, "pending");
    let done = json!({"SnapshotId": snapshot, "ChangedBlocksCount": 7});
    stage.emulator.aws("ebs", "complete_snapshot", done);
    let one = stage.published("backend", &folder, &[]);
    assert_eq!(
        (&one["snapshot"], &one["sent"]),
        (&json!(snapshot), &json!(0))
    );
}

#[test]
fn a_snapshot_that_is_lost_or_of_other_content_is_begun_anew_and_it_says_so() {
    let stage = Stage::new();
    let folder = stage.image("backend", BYTES, &blocks(6), 1);
    stage.publish_but_complete("backend", &folder);
    let (lost, _) = stage.snapshots().remove(0);
    stage
        .emulator
        .aws("ec2", "delete_snapshot", json!({"SnapshotId": lost}));
    let outcome = stage.publish("backend", &folder, &[]);
    let said = format!("beginning anew: {lost}, begun by an earlier run, is gone");
    assert!(outcome.text.contains(&said), "{}", outcome.text);
    stage.proxy.heal();

    let (other, _) = stage.snapshots().remove(0);
    let folder = stage.image("backend", BYTES, &blocks(7), 2);
    let outcome = stage.publish("backend", &folder, &[]);
    let said = format!("beginning anew: {other} was begun for other content");
    assert!(outcome.text.contains(&said), "{}", outcome.text);
    assert_eq!(outcome.code, Some(0), "{}", outcome.text);
    let states: Vec<_> = stage
        .snapshots()
        .into_iter()
        .map(|(_, state)| state)
        .collect();
    assert_eq!(states, ["pending", "completed"]);
}

#[test]
fn what_may_pass_is_tried_again_and_the_rest_ends_it_at_once() {
    let stage = Stage::new();
    let folder = stage.image("backend", BYTES, &blocks(30), 1);
    stage.proxy.fail(PUT, "AccessDeniedException");
    let denied = stage.publish("backend", &folder, &["--parallel", "4"]);
    assert_eq!(denied.code, Some(1), "{}", denied.text);
    assert!(
        denied.text.contains("not allowed: AccessDeniedException"),
        "{}",
        denied.text
    );
    assert!(stage.proxy.count(PUT) <= 4, "{:?}", stage.proxy.calls());
    stage.proxy.heal();
    stage.proxy.forget();

    for code in [
        "RequestThrottledException",
        "InternalServerError",
        "ResourceNotFoundException",
    ] {
        stage.proxy.fail_times(PUT, code, 2);
    }
    stage
        .proxy
        .fail_times("ebs:CompleteSnapshot", "ThrottlingException", 2);
    let image = format!("backend={}", folder.display());
    let mut command = stage.command(&["publish", "--image", &image, "--parallel", "2"]);
    let child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    after(&stage, PUT, 16);
    // The network goes for as long as a first pause lasts, and comes back.
    stage.proxy.go_down();
    std::thread::sleep(Duration::from_millis(400));
    stage.proxy.heal();
    stage
        .proxy
        .fail_times("ebs:CompleteSnapshot", "ThrottlingException", 2);
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}");
    assert_eq!(stage.proxy.count("ebs:CompleteSnapshot"), 3);
    let (snapshot, state) = stage.snapshots().remove(0);
    assert_eq!(state, "completed");
    assert_eq!(stage.compare(&snapshot, &folder), 30);
}

#[test]
fn a_disk_that_changes_while_it_is_uploaded_becomes_no_image() {
    let stage = Stage::new();
    let folder = stage.image("backend", BYTES, &blocks(60), 1);
    let image = format!("backend={}", folder.display());
    let mut command = stage.command(&["publish", "--image", &image, "--parallel", "1"]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    after(&stage, "ebs:StartSnapshot", 1);
    let disk = fs::File::options()
        .write(true)
        .open(folder.join("disk.img"))
        .unwrap();
    disk.write_all_at(b"changed", 59 * 3 * BLOCK).unwrap();
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("changed while it was uploaded"), "{said}");
    assert!(said.contains("block 177 is not what it was"), "{said}");
    assert!(
        stage.proxy.count("ebs:CompleteSnapshot") == 0,
        "{:?}",
        stage.proxy.calls()
    );
    assert_eq!(stage.proxy.count("ec2:RegisterImage"), 0);
}

#[test]
fn ctrl_c_ends_it_in_order() {
    let stage = Stage::new();
    let folder = stage.image("backend", BYTES, &blocks(120), 1);
    let mut child = begin(&stage, &folder);
    after(&stage, PUT, 20);
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(child.id() as i32),
        nix::sys::signal::Signal::SIGINT,
    )
    .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let one = stage.published("backend", &folder, &[]);
    assert_eq!(one["outcome"], "resumed");
    assert!(stage.proxy.count(PUT) <= 122, "{:?}", stage.proxy.calls());
}
