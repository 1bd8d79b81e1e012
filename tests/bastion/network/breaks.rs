//! Hosts that go away or stand still while something runs on them.

use std::time::{Duration, Instant};

use drawbridge::appliance::Role;
use drawbridge::bastion::{Access, SshError};
use nix::sys::signal::Signal;

use super::data::Endless;
use super::stage::{Conditions, Stage};

/// A peer that says nothing is given up after 20 s; the rest is for a slow machine.
const NOTICED: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(60);
/// In the middle of a transfer, whatever was kept on the way.
const MIDDLE: usize = 8 * 1024 * 1024;

/// A command that writes nothing, one whose output and one whose input never ends, each over a session of its own. Once all
/// are at work, `break_it` is called; how each ended after that, and how long that took.
async fn three(
    access: &Access,
    break_it: impl FnOnce(),
) -> [(&'static str, Result<u32, SshError>, Duration); 3] {
    let sessions = tokio::join!(
        access.connect(Role::Backend),
        access.connect(Role::Backend),
        access.connect(Role::Backend)
    );
    let (waiting, getting, putting) = (
        sessions.0.unwrap(),
        sessions.1.unwrap(),
        sessions.2.unwrap(),
    );
    let [begun, got, put] = [(); 3].map(|()| Endless::default());
    let (nothing, sink) = (tokio::io::empty, tokio::io::sink);
    let broken = std::sync::OnceLock::new();
    let after = || broken.get().map_or(Duration::ZERO, Instant::elapsed);
    let wait = async {
        let ended = waiting.run("echo up; exec sleep 900", nothing(), begun.clone(), sink());
        ("command", ended.await, after())
    };
    let get = async {
        let ended = getting.run("exec cat /dev/zero", nothing(), got.clone(), sink());
        ("get", ended.await, after())
    };
    let feed = async {
        let ended = putting.run("exec cat >/dev/null", put.clone(), sink(), sink());
        ("put", ended.await, after())
    };
    let watch = async {
        let end = Instant::now() + LIMIT;
        while begun.bytes() == 0 || got.bytes() < MIDDLE || put.bytes() < MIDDLE {
            assert!(
                Instant::now() < end,
                "{} {} {}",
                begun.bytes(),
                got.bytes(),
                put.bytes()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        break_it();
        broken.set(Instant::now()).unwrap();
    };
    let (wait, get, feed, ()) = tokio::join!(wait, get, feed, watch);
    [wait, get, feed]
}

fn assert_all_lost(ended: [(&'static str, Result<u32, SshError>, Duration); 3]) {
    for (what, ended, after) in ended {
        eprintln!("{what} {ended:?} {after:?}");
        assert!(
            matches!(
                ended,
                Err(SshError::Lost {
                    host: Role::Backend
                })
            ),
            "{what}: {ended:?}"
        );
        assert!(after < NOTICED, "{what}: noticed after {after:?}");
    }
}

async fn is_well(access: &Access) {
    let session = access.connect(Role::Backend).await.unwrap();
    let output = session.collect("echo back", LIMIT).await.unwrap();
    assert_eq!((output.status, output.stdout), (0, b"back\n".to_vec()));
}

#[test]
fn a_bastion_that_is_restarted_ends_what_runs_through_it_and_the_next_connection_works() {
    let Some(stage) = Stage::start(Conditions::default()) else {
        return;
    };
    let stage = &stage;
    stage.operate(async |access| {
        assert_all_lost(three(&access, || stage.bastion.kill()).await);
        stage.start_sshd(Role::Bastion);
        is_well(&access).await;
    });
}

#[test]
fn a_bastion_that_is_gone_without_a_word_is_noticed() {
    let Some(stage) = Stage::start(Conditions::default()) else {
        return;
    };
    let stage = &stage;
    stage.operate(async |access| {
        // No packet says that it is gone, as when a machine loses its power or a laptop its network.
        let off = || {
            stage.cut();
            stage.bastion.kill();
        };
        assert_all_lost(three(&access, off).await);
        stage.start_sshd(Role::Bastion);
        stage.mend();
        is_well(&access).await;
    });
}

#[test]
fn a_host_that_stands_still_is_noticed() {
    let Some(stage) = Stage::start(Conditions::default()) else {
        return;
    };
    let stage = &stage;
    stage.operate(async |access| {
        // Its kernel goes on to acknowledge what is sent until its memory for that is full, and the bastion is well.
        assert_all_lost(three(&access, || stage.backend.signal(Signal::SIGSTOP)).await);
        let error = access.connect(Role::Backend).await.err().unwrap();
        assert!(
            matches!(
                error,
                SshError::TimedOut {
                    host: Role::Backend,
                    ..
                }
            ),
            "{error}"
        );
        stage.backend.signal(Signal::SIGCONT);
        is_well(&access).await;
    });
}

#[test]
fn somebody_whom_the_hosts_do_not_know_is_refused_by_name() {
    let Some(stage) = Stage::start(Conditions::default()) else {
        return;
    };
    stage.operate(async |access| {
        for (role, user, jump) in [
            (Role::Bastion, "admin", "nobody"),
            (Role::Backend, "root", "tunnel"),
            // Through the bastion only; a shell is not for this one.
            (Role::Backend, "stranger", "tunnel"),
        ] {
            let mut access = access.clone();
            access.login.user = user.into();
            access.login.jump = jump.into();
            let error = access.connect(Role::Backend).await.err().unwrap();
            let wrong = if role == Role::Bastion { jump } else { user };
            assert!(
                matches!(&error, SshError::NotAuthorized { host, user, .. } if *host == role && user == wrong),
                "{error}"
            );
            assert!(!error.is_passing(), "trying again does not help");
        }
    });
}
