//! Each finding from a machine that is fine but for it, and what cannot be known is unknown.

use time::macros::datetime;

use super::super::machine::Lock;
use super::*;

const NOW: OffsetDateTime = datetime!(2026-11-21 18:00 UTC);
const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl alice@laptop";
const OTHER: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHUBPJ5wpv9nKUPiYqR2IWVWcXS2bDmDgWCX8MRW9SBS bob@laptop";

fn key(text: &str) -> SshPublicKey {
    text.parse().unwrap()
}

fn machine() -> Machine {
    Machine {
        terraform: Known::Value("1.11.4".into()),
        required: Known::Value(Some(">= 1.11".into())),
        aws: Some("/usr/bin/aws".into()),
        regions: vec![("AWS_REGION", "ap-south-1".into())],
        keys: vec![key(KEY)],
        address: Known::Value(None),
        clock_ahead: Known::Value(0.0),
        building: Ok(()),
        lock: Known::Value(None),
        position_differs: Known::Value(Some(false)),
    }
}

fn rules() -> Rules {
    let mut pins = Pins::default();
    for role in Role::ALL {
        pins.insert_published(role, "p", KEY).unwrap();
    }
    Rules {
        account: Known::Value(()),
        region: Some("ap-south-1".into()),
        admin_keys: Known::Value(vec![key(KEY)]),
        admin_cidrs: Known::Value(vec!["203.0.113.0/24".parse().unwrap()]),
        pins: Known::Value(pins),
        session_files: Known::Value(SessionFiles::Current),
        way: WayIn::SignedIn,
        position: Some(Position::Closed),
    }
}

/// How `check` comes out where all is fine but for this; all others have to be fine.
#[track_caller]
fn but(check: &str, change: impl FnOnce(&mut Machine, &mut Rules)) -> Outcome {
    let (mut machine, mut rules) = (machine(), rules());
    change(&mut machine, &mut rules);
    let mut wanted = None;
    for (name, outcome) in checks(&machine, &rules, NOW) {
        if name == check {
            wanted = Some(outcome);
        } else if !["ssh key", "own address"].contains(&name) {
            assert!(matches!(outcome, Outcome::Fine(_)), "{name}: {outcome:?}");
        }
    }
    wanted.unwrap()
}

#[track_caller]
fn found(outcome: &Outcome, name: &str, means: &str, command: &str) {
    let Outcome::Found(found) = outcome else {
        panic!("{name}: {outcome:?}")
    };
    assert_eq!(found.finding, name);
    assert!(found.means.contains(means), "{found:?}");
    assert!(found.command.contains(command), "{found:?}");
}

#[track_caller]
fn unknown(outcome: &Outcome, reason: &str) {
    let Outcome::Unknown(why) = outcome else {
        panic!("{reason}: {outcome:?}")
    };
    assert!(why.contains(reason), "{why}");
}

fn fine(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Fine(_))
}

#[test]
fn a_machine_where_all_is_fine_is_found_fine() {
    for (name, outcome) in checks(&machine(), &rules(), NOW) {
        assert!(fine(&outcome), "{name}: {outcome:?}");
    }
}

#[test]
fn a_terraform_that_is_too_old_is_found() {
    let old = but("terraform", |machine, _| {
        machine.terraform = Known::Value("1.9.8".into())
    });
    found(&old, "terraform-version", "1.9.8", "nix develop");
    let odd = but("terraform", |machine, _| {
        machine.terraform = Known::Unknown("stuck".into())
    });
    unknown(&odd, "stuck");
}

#[test]
fn a_missing_aws_command_is_found() {
    found(
        &but("aws command", |machine, _| machine.aws = None),
        "no-aws-command",
        "PATH",
        "nix develop",
    );
}

#[test]
fn credentials_are_found_missing_expired_or_somebody_elses() {
    use crate::cloud::{CloudError, Trouble};
    let access = |trouble| CloudError::Access {
        account: "123456789012".into(),
        region: "ap-south-1".into(),
        trouble,
    };
    let other = CloudError::OtherAccount {
        account: "123456789012".into(),
        given: "999999999999".into(),
        arn: "arn:aws:iam::999999999999:user/bob".into(),
    };
    for (error, name, command) in [
        (
            access(Trouble::NoCredentials),
            "no-credentials",
            "aws configure",
        ),
        (
            access(Trouble::ExpiredCredentials),
            "credentials-expired",
            "aws sso login",
        ),
        (
            access(Trouble::RejectedCredentials),
            "credentials-rejected",
            "get-caller-identity",
        ),
        (other, "other-account", "AWS_PROFILE"),
    ] {
        let reason = error.to_string();
        let outcome = but("credentials", |_, rules| {
            rules.account = Known::Unknown(reason.clone())
        });
        found(&outcome, name, &reason, command);
    }
    let message = "timed out".to_owned();
    let silent = access(Trouble::NoAnswer { message }).to_string();
    unknown(
        &but("credentials", |_, rules| {
            rules.account = Known::Unknown(silent)
        }),
        "timed out",
    );
}

#[test]
fn another_region_is_found() {
    let other = but("region", |machine, _| {
        machine.regions = vec![("AWS_REGION", "us-east-1".into())]
    });
    found(
        &other,
        "other-region",
        "us-east-1",
        "export AWS_REGION=ap-south-1",
    );
    assert!(fine(&but("region", |machine, _| machine.regions.clear())));
}

#[test]
fn a_clock_that_is_off_is_found() {
    for (ahead, direction) in [(61.0, "61 s ahead"), (-400.0, "400 s behind")] {
        let off = but("clock", |machine, _| {
            machine.clock_ahead = Known::Value(ahead)
        });
        found(&off, "clock-off-here", direction, "sudo");
    }
    assert!(fine(&but("clock", |machine, _| machine.clock_ahead =
        Known::Value(59.0))));
}

#[test]
fn a_key_is_tried_or_else_looked_up() {
    let way = |way: WayIn| but("ssh key", move |_, rules| rules.way = way);
    let said = || "bastion accepts none of these keys".to_owned();
    found(
        &way(WayIn::NotAuthorized(said())),
        "key-not-authorized",
        "none of these keys",
        "admin_ssh_keys",
    );
    found(
        &way(WayIn::NoIdentity("no SSH key".into())),
        "no-ssh-key",
        "no SSH key",
        "ssh-keygen",
    );
    let away = || WayIn::NotReached("cannot connect".into());
    // With another comment it is the same key.
    assert!(fine(&but("ssh key", |machine, rules| {
        rules.way = away();
        machine.keys = vec![key(&KEY.replace("alice@laptop", "me"))];
    })));
    let other = but("ssh key", |machine, rules| {
        rules.way = away();
        machine.keys = vec![key(OTHER)];
    });
    found(
        &other,
        "key-not-listed",
        "admin_ssh_keys",
        "terraform.tfvars",
    );
    let none = but("ssh key", |machine, rules| {
        rules.way = away();
        machine.keys.clear();
    });
    unknown(&none, "cannot connect");
}

#[test]
fn the_own_address_is_proven_asked_for_or_unknown() {
    let away = || WayIn::NotReached("cannot connect".into());
    unknown(
        &but("own address", |_, rules| rules.way = away()),
        "--checkip",
    );
    let from = |address: &str| {
        let address = address.parse().unwrap();
        but("own address", move |machine, rules| {
            rules.way = away();
            machine.address = Known::Value(Some(address));
        })
    };
    assert!(fine(&from("203.0.113.7")));
    found(
        &from("198.51.100.7"),
        "address-not-allowed",
        "203.0.113.0/24",
        "\"198.51.100.7/32\"",
    );
    let refused = but("own address", |machine, rules| {
        rules.way = WayIn::NotAuthorized("no".into());
        machine.address = Known::Value(None);
    });
    assert!(fine(&refused), "its sshd answered: {refused:?}");
}

#[test]
fn a_host_key_that_is_not_published_is_found() {
    let none = but("host keys", |_, rules| {
        rules.pins = Known::Value(Pins::default())
    });
    found(
        &none,
        "host-key-not-published",
        "bastion, backend, database",
        "drawbridge nat status",
    );
}

#[test]
fn stale_session_files_and_a_changed_key_are_found() {
    let files = |files: SessionFiles| {
        but("session files", move |_, rules| {
            rules.session_files = Known::Value(files);
        })
    };
    let stale = files(SessionFiles::Stale(
        "known_hosts holds other host keys".into(),
    ));
    found(
        &stale,
        "session-files-stale",
        "other host keys",
        "drawbridge ssh-config",
    );
    let changed = files(SessionFiles::Changed("SSM holds another host key".into()));
    found(
        &changed,
        "host-key-changed",
        "SSM holds another",
        "drawbridge nat status",
    );
}

#[test]
fn an_old_lock_is_found_and_a_fresh_one_noted() {
    let held = |created: &str| {
        let lock = Lock {
            id: "0d4b-1".into(),
            operation: "OperationTypeApply".into(),
            who: "alice@laptop".into(),
            created: created.into(),
        };
        but("state lock", |machine, _| {
            machine.lock = Known::Value(Some(lock))
        })
    };
    let old = held("2026-11-21T16:59:00Z");
    found(
        &old,
        "state-locked",
        "alice@laptop",
        "terraform -chdir=terraform force-unlock 0d4b-1",
    );
    let fresh = held("2026-11-21T17:30:00Z");
    assert!(
        matches!(&fresh, Outcome::Note(note) if note.means.contains("wait for it")),
        "{fresh:?}"
    );
    found(&held("once"), "state-locked", "once", "force-unlock");
}

#[test]
fn a_position_that_is_not_committed_is_found_but_during_a_lease() {
    let differs = |position: Position| {
        but("position file", move |machine, rules| {
            machine.position_differs = Known::Value(Some(true));
            rules.position = Some(position);
        })
    };
    found(
        &differs(Position::Closed),
        "position-not-committed",
        "differs",
        "git commit",
    );
    assert!(fine(&differs(Position::Leased { until: NOW })));
}

#[test]
fn a_machine_that_builds_no_images_is_no_fault() {
    let cannot = but("building", |machine, _| {
        machine.building = Err("no `nix`".into())
    });
    assert!(
        matches!(&cannot, Outcome::Note(note) if note.means.contains("no `nix`")),
        "{cannot:?}"
    );
}
