//! The same rehearsal with a systemd on every instance and the evaluated settings of `nixos/evaluated/`; and settings that
//! are wrong. Needs the root file system that `scripts/rehearse --systemd` makes; scripts/test says so where there is none.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::stage::{Ended, Stage};
use crate::support::repository;

/// Proofs without which a booted rehearsal would prove less than it promises.
const PROMISED: &[&str] = &[
    "backend has bootstrapped",
    "database has bootstrapped",
    "internet → alb-1a: POST and GET /items",
    "ssh to backend through the bastion",
    "nothing but flows.json gets through",
    "the database password is in no state, user data, log or argument",
    "bastion: every unit of its image runs, none has failed",
    "backend: every unit of its image runs, none has failed",
    "database: every unit of its image runs, none has failed",
    "bastion: systemd-analyze security drawbridge-bootstrap.service is at most 2.0",
    "backend: systemd-analyze security drawbridge-bootstrap.service is at most 2.0",
    "database: systemd-analyze security drawbridge-bootstrap.service is at most 2.0",
    "backend: systemd-analyze security drawbridge-api.service is at most 2.0",
    "bastion: its own firewall lets in its flows and nothing else",
    "backend: its own firewall lets in its flows and nothing else",
    "database: its own firewall lets in its flows and nothing else",
    "bastion: nobody may become root",
    "backend: an operator may become root",
    "database: an operator may become root",
    "backend: the API can write nowhere",
    "backend: the API's /tmp is its own",
    "backend: the API sees no other process",
    "backend: the API has no capability",
    "backend: the API cannot reach the instance's metadata",
    "no booted host has the database password in clear outside of its credentials",
    "drawbridge rotate-password does both halves",
    "internet → API: no request fails while the password is replaced",
    "another login with another password is published",
    "the database lets the new login in",
    "the database refuses the login of before",
    "destroy-nat.sh closes the window",
    "backend has no way out",
    "backend's bootstrap is complete without the internet",
    "database's bootstrap is complete without the internet",
    "backend: the journal of the boot before is kept",
    "database: the journal of the boot before is kept",
    "backend: the sealed password is the same and still opens",
    "backend: the API is back after kill -9",
    "backend: the API is back after the kernel has killed it for its memory",
    "database: Postgres is back after one of its processes was killed with -9",
    "database: Postgres is back after kill -9 of its first process",
    "bastion: sshd is back after kill -9",
    "backend: sshd is back after kill -9",
    "database: sshd is back after kill -9",
    "backend: a request under way is answered across a restart of the API",
    "backend: no connection is refused while the API restarts",
    "drawbridge audit finds nothing",
];

#[test]
fn every_proof_holds_with_a_systemd_on_every_host() {
    let stage = Stage::new();
    let ended = stage.rehearse_with(&["--systemd"]);
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    for name in PROMISED {
        assert!(ended.held(name), "{name}");
    }
    let own = ended.report["seconds"].as_f64().unwrap()
        - ended.report["terraform_seconds"].as_f64().unwrap();
    println!("{} proofs; {own:.1} s of its own", ended.proofs().len());
}

/// Rehearses with one line of an evaluated unit replaced.
fn rehearse_with(unit: &str, old: &str, new: &str) -> Ended {
    let stage = Stage::new();
    let folder = tempfile::tempdir().unwrap();
    let evaluated: PathBuf = folder.path().join("evaluated");
    let copied = Command::new("cp")
        .arg("-r")
        .arg(repository().join("nixos/evaluated"))
        .arg(&evaluated)
        .status()
        .unwrap();
    assert!(copied.success());
    let path = evaluated.join(unit);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(old), "{unit} does not contain {old}");
    fs::write(&path, text.replace(old, new)).unwrap();
    let ended = stage.rehearse_with(&["--systemd", "--evaluated", evaluated.to_str().unwrap()]);
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    assert_eq!(ended.report["held"], false);
    ended
}

#[test]
fn a_unit_that_is_denied_too_little_is_named_with_its_exposure() {
    let ended = rehearse_with(
        "backend/units/drawbridge-api.service",
        // The last line, so that what is planted after it is what counts.
        "User=drawbridge\n",
        "User=drawbridge\nPrivateUsers=false\nRestrictNamespaces=false\nSystemCallFilter=\nIPAddressDeny=\n\
         ProtectProc=default\nProcSubset=all\n",
    );
    for name in [
        "backend: systemd-analyze security drawbridge-api.service is at most 2.0",
        "backend: the API cannot reach the instance's metadata",
        "backend: the API sees no other process",
    ] {
        assert!(!ended.held(name), "{name}");
    }
    // What is wrong with one host's unit is said of that host.
    assert!(
        ended
            .held("database: systemd-analyze security drawbridge-bootstrap.service is at most 2.0")
    );
    assert!(ended.held("backend: every unit of its image runs, none has failed"));
}

#[test]
fn an_api_that_its_sandbox_keeps_from_its_configuration_is_named_with_its_log() {
    let ended = rehearse_with(
        "backend/units/drawbridge-api.service",
        "ProtectSystem=strict\n",
        "ProtectSystem=strict\nInaccessiblePaths=/var/lib/drawbridge\n",
    );
    let error = ended.error();
    assert!(error.contains("backend at api: "), "{error}");
    assert!(
        error.contains("backend's log of drawbridge-api.service ends"),
        "{error}"
    );
    assert!(
        error.contains("/var/lib/drawbridge/api/config.toml"),
        "{error}"
    );
}
