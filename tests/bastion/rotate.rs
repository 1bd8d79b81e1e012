//! The operator's side of a rotation: real sshds, and hosts that play their halves.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use drawbridge::appliance::Role;
use drawbridge::command::rotate::{Outcome, rotate};
use drawbridge::progress::Progress;

use super::sshd::Hosts;

/// Both hosts are one here, so the same program plays whatever half is asked for.
fn played(script: &str) -> Hosts {
    Hosts::start_with(|folder| {
        let sudo = folder.join("sudo");
        fs::write(&sudo, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&sudo, fs::Permissions::from_mode(0o755)).unwrap();
        format!("SetEnv PATH={}:/usr/bin:/bin\n", folder.display())
    })
}

async fn outcomes(hosts: &Hosts) -> [(Role, Outcome); 2] {
    rotate(
        &hosts.access_to_all(),
        Duration::from_secs(30),
        &Progress::quiet(),
    )
    .await
}

#[tokio::test]
async fn both_halves_run_side_by_side_and_each_says_how_it_ended() {
    // Each half waits for the other: one after the other, neither would end.
    let hosts = played(
        "[ \"$*\" = '-n drawbridge-host rotate-password --timeout 30' ] || exit 9\n\
         me=$(mktemp \"$(dirname \"$0\")/half.XXXXXX\")\n\
         for i in $(seq 100); do [ $(ls \"$(dirname \"$0\")\"/half.* | wc -l) = 2 ] && break; sleep 0.1; done\n\
         [ $i -lt 100 ] || { echo alone >&2; exit 1; }\n\
         echo 'on the way' >&2; echo 'rotated: drawbridge_b is the login now'",
    );
    for (role, outcome) in outcomes(&hosts).await {
        assert!(outcome.is_done(), "{role}: {outcome}");
        assert_eq!(
            outcome.to_string(),
            "rotated: drawbridge_b is the login now"
        );
    }
}

#[tokio::test]
async fn a_half_that_fails_or_is_lost_is_told_with_its_last_words() {
    let hosts = played("echo begin >&2; echo 'both logins stay valid' >&2; exit 1");
    for (_, outcome) in outcomes(&hosts).await {
        assert!(!outcome.is_done());
        assert_eq!(
            outcome.to_string(),
            "failed: both logins stay valid (exit status 1)"
        );
    }
    let hosts = played("kill -9 $PPID");
    for (_, outcome) in outcomes(&hosts).await {
        assert!(!outcome.is_done());
        assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome}");
    }
    let mut hosts = played("echo rotated");
    hosts.stop_backend();
    for (_, outcome) in outcomes(&hosts).await {
        assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome}");
    }
}
