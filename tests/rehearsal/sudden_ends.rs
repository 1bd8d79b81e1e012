//! Ctrl-C, SIGTERM, `kill -9`, an emulator that dies: nothing may stay.

use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::stage::{Ended, Stage, find_process, processes_of};
use crate::support::eventually;

/// The emulator is up after some seconds, and Terraform under way at once.
const LIMIT: Duration = Duration::from_secs(90);

/// Starts a rehearsal and waits until Terraform applies.
fn applying(stage: &Stage) -> Child {
    let child = stage
        .command(&["--exit", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually(LIMIT, "terraform", || {
        find_process(&stage.work_dir(), "terraform apply")
            .ok_or_else(|| format!("{:?}", processes_of(&stage.work_dir())))
    });
    child
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
}

fn ends_orderly_after(signal: Signal) {
    let stage = Stage::new();
    let child = applying(&stage);
    send(&child, signal);
    let ended = Ended::from(child.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(130), "{}", ended.said);
    assert!(ended.said.contains("interrupted"), "{}", ended.said);
    stage.assert_nothing_is_left();
}

#[test]
fn ctrl_c_in_the_middle_leaves_nothing() {
    ends_orderly_after(Signal::SIGINT);
}

#[test]
fn sigterm_in_the_middle_leaves_nothing() {
    ends_orderly_after(Signal::SIGTERM);
}

#[test]
fn kill_9_leaves_no_process_and_the_next_start_clears_the_rest() {
    let stage = Stage::new();
    let mut child = applying(&stage);
    child.kill().unwrap();
    child.wait().unwrap();
    eventually(LIMIT, "the end of every process", || {
        let left = processes_of(&stage.work_dir());
        if left.is_empty() {
            Ok(())
        } else {
            Err(left.join("; "))
        }
    });
    assert!(
        stage.work_dir().exists(),
        "the killed run had made its folder"
    );
    let next = applying(&stage);
    send(&next, Signal::SIGINT);
    next.wait_with_output().unwrap();
    stage.assert_nothing_is_left();
}

#[test]
fn an_emulator_that_dies_is_named_at_once() {
    let stage = Stage::new();
    let child = applying(&stage);
    let emulator = find_process(&stage.work_dir(), "emulator.py").unwrap();
    kill(Pid::from_raw(emulator), Signal::SIGKILL).unwrap();
    let ended = Ended::from(child.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    assert!(
        ended.error().contains("the AWS emulator has ended"),
        "{}",
        ended.error()
    );
    stage.assert_nothing_is_left();
}
