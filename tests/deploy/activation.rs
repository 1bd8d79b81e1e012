//! From the switch to its confirmation, or back; and every kill in between.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};

use drawbridge::appliance::Role;
use drawbridge::appliance::system::{Activation, Phase};
use drawbridge::closure::activate::{Activating, Ended, Outcome};
use drawbridge::closure::copy::{copy, stage};
use drawbridge::closure::remote::{Remote, RemoteError};
use drawbridge::closure::source::Source;
use drawbridge::progress::Progress;

use super::stage::{LIMIT, Stage};
use crate::support::{eventually, run};

/// Far above what anything takes.
const LONG: u64 = 600;

async fn copied(stage_: &Stage, folder: &Path) -> u64 {
    let access = stage_.hosts.access();
    let mut remote = Remote::new(&access, Role::Backend);
    let source = Source::given(folder).await.unwrap();
    let first = stage(&mut remote, &source).await.unwrap();
    let (staged, _) = copy(&mut remote, &source, first, &Progress::quiet())
        .await
        .unwrap();
    remote.hang_up().await;
    staged.generation
}

async fn activate(stage: &Stage, confirm_timeout: u64) -> Result<(Activation, Ended), RemoteError> {
    let access = stage.hosts.access();
    let mut remote = Remote::new(&access, Role::Backend);
    let activating = Activating {
        remote: &mut remote,
        door: None,
        progress: &Progress::quiet(),
    };
    activating.run(confirm_timeout).await
}

async fn deploy(stage: &Stage, name: &str) -> Ended {
    copied(stage, &stage.closure(name, 300)).await;
    activate(stage, LONG).await.unwrap().1
}

fn begin(stage: &Stage, confirm_timeout: u64) {
    let timeout = confirm_timeout.to_string();
    stage
        .host(&[
            "activate",
            "--role",
            "backend",
            "--confirm-timeout",
            &timeout,
        ])
        .expect_success("activate");
}

#[tokio::test]
async fn a_system_that_is_seen_at_work_becomes_the_one_that_boots() {
    let stage_ = Stage::start();
    let ended = deploy(&stage_, "two").await;
    assert_eq!(
        ended.outcome,
        Outcome::Confirmed,
        "{ended:?}\n{}",
        stage_.journal()
    );
    assert!(
        ended.reason.contains("/ready answers 200"),
        "{}",
        ended.reason
    );
    assert_eq!(stage_.switched(), ["two test", "two boot"]);
    assert_eq!(stage_.generations(), (vec![1, 2], 2));
    // Before the switch: migrations as the API runs, then the timer.
    let journal = stage_.journal();
    let at = |word: &str| {
        journal
            .find(word)
            .unwrap_or_else(|| panic!("{word}: {journal}"))
    };
    assert!(at("drawbridge-migration: ") < at("drawbridge-switch-limit after "));
    assert!(
        !stage_.has("drawbridge-rollback.timer") && !stage_.has("drawbridge-switch-limit.timer")
    );
    // The same again is nothing to do.
    let source = Source::given(&stage_.root.parent().unwrap().join("closure-two"))
        .await
        .unwrap();
    let access = stage_.hosts.access();
    let mut remote = Remote::new(&access, Role::Backend);
    let staged = stage(&mut remote, &source).await.unwrap();
    assert!(staged.is_current && staged.generation == 2);
    // And back, the same way.
    stage_
        .host(&["stage", "--generation", "1"])
        .expect_success("stage");
    let (_, ended) = activate(&stage_, LONG).await.unwrap();
    assert_eq!(ended.outcome, Outcome::Confirmed, "{ended:?}");
    assert_eq!(stage_.switched()[2..], ["image test", "image boot"]);
    assert_eq!(stage_.generations(), (vec![1, 2], 1));
    assert_eq!(journal_count(&stage_, "drawbridge-migration: "), 1);
}

fn journal_count(stage: &Stage, word: &str) -> usize {
    stage.journal().matches(word).count()
}

#[tokio::test]
async fn only_the_last_three_are_kept_and_never_a_path_of_the_image() {
    let stage = Stage::start();
    for name in ["two", "three", "four", "five"] {
        assert_eq!(
            deploy(&stage, name).await.outcome,
            Outcome::Confirmed,
            "{}",
            stage.journal()
        );
    }
    // 1 was booted from.
    assert_eq!(stage.generations(), (vec![1, 3, 4, 5], 5));
    for (name, is_there) in [
        ("image", true),
        ("two", false),
        ("three", true),
        ("five", true),
    ] {
        let system = stage.store(&format!("nixos-system-{name}"));
        assert_eq!(system.exists(), is_there, "{name}");
    }
    assert!(!stage.store("lib-one-two").exists() && stage.store("lib-one-three").exists());
    // Something of the image's that no list names.
    let received =
        fs::read_to_string(stage.root.join("var/lib/drawbridge/system/received")).unwrap();
    assert!(
        !received.contains("system-image") && !received.contains("system-two"),
        "{received}"
    );
}

#[tokio::test]
async fn a_switch_that_fails_or_is_not_seen_at_work_is_taken_back() {
    let stage = Stage::start();
    stage.switching("case $0$1 in *-bad/*test) echo 'no such unit' >&2; exit 4 ;; esac");
    let ended = deploy(&stage, "bad").await;
    assert_eq!(ended.outcome, Outcome::RolledBack, "{ended:?}");
    assert!(ended.reason.contains("no such unit"), "{}", ended.reason);
    assert_eq!(stage.switched(), ["bad test", "image test"]);
    // One that runs, but whose API does not answer.
    let note = stage.root.join("var/lib/drawbridge/ready-url");
    let (well, mute) = (
        fs::read_to_string(&note).unwrap(),
        "http://127.0.0.1:1/ready",
    );
    let well = well.trim();
    stage.switching(&format!(
        "case $0 in *-mute/*) echo {mute} >{0} ;; *) echo {well} >{0} ;; esac",
        note.display()
    ));
    copied(&stage, &stage.closure("mute", 300)).await;
    let (last, ended) = activate(&stage, 5).await.unwrap();
    assert_eq!(
        ended.outcome,
        Outcome::RolledBack,
        "{ended:?}\n{}",
        stage.journal()
    );
    assert!(
        ended.reason.contains("nobody confirmed it within 5 s"),
        "{}",
        ended.reason
    );
    assert_eq!(
        (last.phase, stage.generations()),
        (Phase::RolledBack, (vec![1], 1))
    );
}

#[tokio::test]
async fn nobody_confirms_and_the_host_goes_back_by_itself() {
    let stage = Stage::start();
    let number = copied(&stage, &stage.closure("two", 300)).await;
    begin(&stage, 1);
    let last = stage.until(Phase::RolledBack);
    assert_eq!(last.reason, "nobody confirmed it within 1 s");
    assert_eq!(stage.switched(), ["two test", "image test"]);
    let late = stage.host(&["confirm", "--generation", &number.to_string()]);
    assert_eq!(late.code, Some(4), "{}", late.text);
    assert!(late.text.contains("too late"), "{}", late.text);
    assert_eq!(stage.generations(), (vec![1], 1));
}

#[tokio::test]
async fn while_one_is_under_way_another_is_refused() {
    let stage_ = Stage::start();
    let folder = stage_.closure("two", 300);
    copied(&stage_, &folder).await;
    begin(&stage_, LONG);
    stage_.until(Phase::Waiting);
    let access = stage_.hosts.access();
    let mut remote = Remote::new(&access, Role::Backend);
    let source = Source::given(&folder).await.unwrap();
    let error = stage(&mut remote, &source).await.unwrap_err();
    assert!(
        matches!(&error, RemoteError::Refused(why) if why.contains("generation 2 is waiting")),
        "{error}"
    );
    // A confirmation of another one does nothing.
    assert_eq!(stage_.host(&["confirm", "--generation", "3"]).code, Some(4));
    stage_
        .host(&["confirm", "--generation", "2"])
        .expect_success("confirm");
    // Whose answer was lost may ask again.
    stage_
        .host(&["confirm", "--generation", "2"])
        .expect_success("confirm");
}

#[tokio::test]
async fn a_system_for_another_host_and_one_whose_migrations_fail_change_nothing() {
    let stage = Stage::start();
    copied(&stage, &stage.closure_for("other", 300, "database")).await;
    let error = activate(&stage, LONG).await.unwrap_err();
    assert!(
        matches!(&error, RemoteError::Refused(why) if why.contains("a system for a database")),
        "{error}"
    );
    stage.migration("echo 'column \"x\" exists already' >&2; exit 1");
    let ended = deploy(&stage, "two").await;
    assert_eq!(ended.outcome, Outcome::Failed, "{ended:?}");
    assert!(ended.reason.contains("exists already"), "{}", ended.reason);
    assert!(stage.switched().is_empty());
    stage.migration("");
    assert_eq!(
        deploy(&stage, "three").await.outcome,
        Outcome::Confirmed,
        "{}",
        stage.journal()
    );
}

#[test]
fn the_bastion_is_refused_before_anything_is_asked() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drawbridge"));
    let refused = run(command.args(["deploy", "bastion"]), LIMIT);
    assert_eq!(refused.code, Some(4), "{}", refused.text);
    assert!(
        refused.text.contains("image publish --role bastion"),
        "{}",
        refused.text
    );
}

/// Holds a script up until it is killed, and says that it has come there.
fn held(stage: &Stage, case: &str) -> String {
    format!(
        "case \"$0 $1\" in {case}) : >{}/held; sleep 1000 ;; esac",
        stage.bin.display()
    )
}

fn kill_group(child: &mut Child) {
    let group = format!("-{}", child.id());
    let killed = Command::new("kill").args(["-KILL", "--", &group]).status();
    assert!(killed.unwrap().success());
    child.wait().unwrap();
}

fn until_held(stage: &Stage) {
    let held = stage.bin.join("held");
    eventually(LIMIT, "the hold", || match held.exists() {
        true => Ok(()),
        false => Err(stage.journal()),
    });
    fs::remove_file(held).unwrap();
}

#[tokio::test]
async fn killed_before_the_switch_the_old_system_was_never_touched() {
    let stage = Stage::start();
    let folder = stage.closure("two", 300);
    copied(&stage, &folder).await;
    stage.migration(&held(&stage, "*"));
    begin(&stage, LONG);
    until_held(&stage);
    assert_eq!(stage.status().activation.unwrap().phase, Phase::Migrating);
    stage.kill("drawbridge-activation.service");
    let last = stage.status().activation.unwrap();
    assert_eq!(
        (last.phase, last.reason.as_str()),
        (Phase::Failed, "it was cut off while migrating")
    );
    // The next one goes through.
    stage.migration("");
    copied(&stage, &folder).await;
    assert_eq!(
        activate(&stage, LONG).await.unwrap().1.outcome,
        Outcome::Confirmed
    );
}

#[tokio::test]
async fn killed_in_the_switch_or_on_the_way_back_the_timer_brings_the_old_system() {
    let stage = Stage::start();
    copied(&stage, &stage.closure("two", 300)).await;
    stage.switching(&held(&stage, "*-two/*test"));
    begin(&stage, LONG);
    until_held(&stage);
    stage.kill("drawbridge-activation.service");
    // Armed before the switch, so it is there; it would go off in some minutes.
    assert!(stage.has("drawbridge-switch-limit.timer"));
    assert_eq!(stage.status().activation.unwrap().phase, Phase::Switching);
    // What it runs, cut off as well, and then again.
    stage.switching(&held(&stage, "*-image/*test"));
    let mut expire = stage.begin(&["expire", "--generation", "2"]);
    until_held(&stage);
    kill_group(&mut expire);
    assert_eq!(stage.status().activation.unwrap().phase, Phase::RollingBack);
    stage.switching("");
    stage
        .host(&["expire", "--generation", "2"])
        .expect_success("expire");
    let last = stage.status().activation.unwrap();
    assert_eq!(
        (last.phase, last.reason.as_str()),
        (Phase::RolledBack, "the switch did not end")
    );
    assert_eq!(stage.generations(), (vec![1], 1));
}

#[tokio::test]
async fn killed_in_the_confirmation_it_can_be_confirmed_again_or_goes_back_whole() {
    let stage = Stage::start();
    for name in ["two", "three"] {
        let number = copied(&stage, &stage.closure(name, 300)).await.to_string();
        begin(&stage, LONG);
        stage.until(Phase::Waiting);
        stage.switching(&held(&stage, "*boot"));
        let mut confirm = stage.begin(&["confirm", "--generation", &number]);
        until_held(&stage);
        kill_group(&mut confirm);
        stage.switching("");
        if name == "two" {
            stage
                .host(&["confirm", "--generation", &number])
                .expect_success("confirm");
            assert_eq!(stage.generations(), (vec![1, 2], 2));
        } else {
            // The boot loader may know it already: the old one is told to it again.
            stage
                .host(&["expire", "--generation", &number])
                .expect_success("expire");
            assert_eq!(stage.generations(), (vec![1, 2], 2));
            assert_eq!(stage.switched().last().unwrap(), "two switch");
        }
    }
}

#[tokio::test]
async fn a_reboot_without_a_confirmation_is_the_old_system_again() {
    let stage = Stage::start();
    copied(&stage, &stage.closure("two", 300)).await;
    begin(&stage, LONG);
    let last = stage.until(Phase::Waiting);
    let state = stage.root.join("var/lib/drawbridge/system/state.json");
    let text = fs::read_to_string(&state).unwrap();
    fs::write(&state, text.replace(&last.boot_id, "another")).unwrap();
    let late = stage.host(&["confirm", "--generation", "2"]);
    assert_eq!(late.code, Some(4), "{}", late.text);
    let last = stage.status().activation.unwrap();
    assert_eq!(last.phase, Phase::RolledBack);
    assert!(last.reason.contains("restarted"), "{}", last.reason);
}

#[tokio::test]
async fn timers_that_are_gone_are_made_up_for() {
    let stage = Stage::start();
    copied(&stage, &stage.closure("two", 300)).await;
    begin(&stage, LONG);
    stage.until(Phase::Waiting);
    stage.kill("drawbridge-rollback.timer");
    stage.kill("drawbridge-switch-limit.timer");
    stage.until(Phase::RolledBack);
    assert_eq!(stage.switched(), ["two test", "image test"]);
}
