//! Ctrl-C, SIGTERM, `kill -9`, an emulator that dies: nothing may stay.

use std::process::{Command, Stdio};
use std::time::Duration;

use drawbridge::rehearsal::memory_folder;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::stage::{Rehearsal, Stage, find_process, processes_of};
use crate::support::{eventually, repository};

/// The emulator is up after some seconds, and Terraform under way at once.
const LIMIT: Duration = Duration::from_secs(900);

/// Starts a rehearsal and waits until Terraform applies.
fn applying(stage: &Stage) -> Rehearsal {
    until(stage, "terraform apply")
}

/// Starts a rehearsal and waits until this program runs in it.
fn until(stage: &Stage, program: &str) -> Rehearsal {
    let inner = stage.command(&["--exit", "--json"]);
    // As from a terminal, also where the tests were started by nohup.
    let mut command = Command::new("env");
    command
        .current_dir(repository())
        .arg("--default-signal=HUP")
        .arg(inner.get_program())
        .args(inner.get_args())
        .envs(
            inner
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .stdin(Stdio::null());
    let mut rehearsal = Rehearsal::start(command);
    eventually(LIMIT, program, || {
        rehearsal.assert_under_way();
        find_process(&stage.work_dir(), program)
            .ok_or_else(|| format!("{:?}", processes_of(&stage.work_dir())))
    });
    rehearsal
}

/// What a run leaves that was killed at the wrong moment: a loop device over a file on a file system that is gone.
fn leave_a_device_behind(stage: &Stage) {
    let script = "mount -t tmpfs rest /run; mkdir -p \"$1\"; truncate -s 1M \"$1/rest.img\"; losetup -f \"$1/rest.img\"";
    let made = Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-euc",
            script,
            "sh",
        ])
        .arg(memory_folder(&stage.work_dir()))
        .status()
        .unwrap();
    assert!(made.success());
    assert!(!stage.devices().is_empty());
}

fn ends_orderly_after(signal: Signal, program: &str) {
    let stage = Stage::new();
    let rehearsal = until(&stage, program);
    rehearsal.send(signal);
    let ended = rehearsal.end();
    assert_eq!(ended.code, Some(130), "{}", ended.said);
    assert!(ended.said.contains("interrupted"), "{}", ended.said);
    stage.assert_nothing_is_left();
}

#[test]
fn a_terminal_that_closes_while_the_emulator_starts_leaves_nothing() {
    ends_orderly_after(Signal::SIGHUP, "emulator.py");
}

#[test]
fn ctrl_c_in_the_middle_of_an_apply_leaves_nothing() {
    ends_orderly_after(Signal::SIGINT, "terraform apply");
}

#[test]
fn sigterm_before_an_apply_leaves_nothing() {
    ends_orderly_after(Signal::SIGTERM, "terraform init");
}

#[test]
fn kill_9_leaves_no_process_and_the_next_start_clears_the_rest() {
    let stage = Stage::new();
    let killed = applying(&stage);
    killed.send(Signal::SIGKILL);
    killed.end();
    stage.assert_no_process_is_left();
    assert!(
        stage.work_dir().exists(),
        "the killed run had made its folder"
    );
    leave_a_device_behind(&stage);
    let next = until(&stage, "emulator.py");
    next.send(Signal::SIGINT);
    next.end();
    stage.assert_nothing_is_left();
}

#[test]
fn an_emulator_that_dies_is_named_at_once() {
    let stage = Stage::new();
    let rehearsal = applying(&stage);
    let emulator = find_process(&stage.work_dir(), "emulator.py").unwrap();
    kill(Pid::from_raw(emulator), Signal::SIGKILL).unwrap();
    let ended = rehearsal.end();
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    assert!(
        ended.error().contains("the AWS emulator has ended"),
        "{}",
        ended.error()
    );
    stage.assert_nothing_is_left();
}
