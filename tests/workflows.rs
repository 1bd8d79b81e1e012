//! What GitHub Actions runs: the workflows as files, and the scripts that they call.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Outcome, repository, run};

/// The first time it installs the checkers.
const LIMIT: Duration = Duration::from_secs(1800);

fn check(folder: &Path) -> Outcome {
    let mut command = Command::new(repository().join("scripts/check-workflows"));
    run(command.arg(folder), LIMIT)
}

fn shipped() -> std::path::PathBuf {
    repository().join(".github/workflows")
}

#[test]
fn the_workflows_are_well_formed_and_harmless_and_a_planted_mistake_is_named() {
    check(&shipped()).expect_success("scripts/check-workflows");

    // In which file what is replaced by what, and what is said of it.
    let mistakes = [
        (
            "tests.yml",
            "        run: sudo env",
            "        run: echo ${{ github.head_ref }} && sudo env",
            "template-injection",
        ),
        (
            "tests.yml",
            "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1",
            "actions/checkout@v7",
            "pinned as owner/name@<commit>",
        ),
        (
            "tests.yml",
            "          persist-credentials: false",
            "          fetch-depth: 1",
            "artipacked",
        ),
        (
            "tests.yml",
            "    timeout-minutes: 120\n",
            "",
            "has no timeout-minutes",
        ),
        (
            "tests.yml",
            "permissions: {}",
            "permissions: write-all",
            "must be {} for the workflow",
        ),
        (
            "images.yml",
            "\"$ROLE\" \"$SYSTEM\"",
            "$ROLE $SYSTEM",
            "SC2086",
        ),
        (
            "images.yml",
            "shell: bash",
            "shell: sh",
            "run.shell must be bash",
        ),
        (
            "deploy.yml",
            "runs-on: ubuntu-24.04",
            "run-on: ubuntu-24.04",
            "Schema validation errors",
        ),
        (
            "deploy.yml",
            "  workflow_dispatch:",
            "  pull_request_target:\n  workflow_dispatch:",
            "dangerous-triggers",
        ),
    ];
    let unseen: Vec<_> = mistakes
        .into_iter()
        .filter(|(file, right, wrong, said)| {
            let folder = tempfile::tempdir().unwrap();
            let text = fs::read_to_string(shipped().join(file)).unwrap();
            assert!(text.contains(right), "{file} has no {right}");
            let planted = text.replacen(right, wrong, 1);
            fs::write(folder.path().join(file), planted).unwrap();
            let checked = check(folder.path());
            checked.code == Some(0) || !checked.text.contains(said)
        })
        .collect();
    assert_eq!(unseen, []);
}

/// A deploy may not be called from anywhere else, and nobody else may have what it has.
#[test]
fn only_the_protected_environment_gets_credentials_and_two_deploys_never_run_at_once() {
    let text = |name: &str| fs::read_to_string(shipped().join(name)).unwrap();
    let deploy = text("deploy.yml");
    assert!(deploy.contains("concurrency:\n  group: deploy\n  cancel-in-progress: false\n"));
    // One environment for each job that may ask for a token, and each way to AWS behind one.
    for part in ["    environment: production\n", "      id-token: write\n"] {
        assert_eq!(deploy.matches(part).count(), 2, "{part}");
    }
    assert_eq!(deploy.matches("configure-aws-credentials@").count(), 2);
    for key in ["secrets.", "aws-access-key-id", "AWS_SECRET_ACCESS_KEY"] {
        assert!(!deploy.contains(key), "{key}");
    }
    for name in ["tests.yml", "images.yml"] {
        let text = text(name);
        for part in ["id-token", "write", "secrets.", "vars."] {
            assert!(!text.contains(part), "{name}: {part}");
        }
    }
}

/// `scripts/closure-size` beside a `nix` that says `told`; the arguments that it was called with, one call a line.
fn closure_size(arguments: &[&str], told: &Value) -> (Outcome, String) {
    let folder = tempfile::tempdir().unwrap();
    let nix = folder.path().join("nix");
    fs::write(folder.path().join("told"), told.to_string()).unwrap();
    let plays = "#!/bin/sh\necho \"$*\" >>\"${0%/*}/calls\"\n[ \"$1\" != path-info ] || cat \"${0%/*}/told\"\n";
    fs::write(&nix, plays).unwrap();
    fs::set_permissions(&nix, fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    let mut command = Command::new(repository().join("scripts/closure-size"));
    command
        .args(arguments)
        .env("PATH", format!("{}:{path}", folder.path().display()))
        .env_remove("GITHUB_STEP_SUMMARY");
    let ended = run(&mut command, Duration::from_secs(120));
    let calls = fs::read_to_string(folder.path().join("calls")).unwrap_or_default();
    (ended, calls)
}

#[test]
fn a_closure_is_held_against_its_budget_whatever_nix_tells_it_in() {
    let budgets = fs::read_to_string(repository().join("nixos/closure-budget.json")).unwrap();
    let budgets: Value = serde_json::from_str(&budgets).unwrap();
    let mib = budgets["backend"].as_u64().unwrap();
    let path = "/nix/store/0000-nixos-system-backend";
    // Nix before 2.19, since then, and with the format that 2.33 brought.
    let shapes: [&dyn Fn(u64) -> Value; 3] = [
        &|size| json!([{"path": path, "closureSize": size, "narSize": 1}]),
        &|size| json!({path: {"closureSize": size, "narSize": 1}}),
        &|size| json!({"version": 2, "storeDir": "/nix/store", "info": {path: {"closureSize": size}}}),
    ];
    for told in shapes {
        let (within, calls) = closure_size(&["backend", "aarch64-linux"], &told(mib * 1024 * 1024));
        let said = within.expect_success("a closure as large as its budget");
        assert_eq!(
            said,
            format!("backend aarch64-linux: {mib} MiB of {mib} MiB\n")
        );
        let system = ".#nixosConfigurations.backend-aarch64.config.system.build.toplevel";
        assert!(
            calls.lines().all(|call| call.ends_with(system)) && calls.contains("path-info"),
            "{calls}"
        );
        let (over, _) = closure_size(&["backend", "x86_64-linux"], &told(mib * 1024 * 1024 + 1));
        assert_eq!(over.code, Some(1), "{}", over.text);
        assert!(over.text.contains("over the budget"), "{}", over.text);
    }
}

#[test]
fn what_nix_does_not_tell_is_no_small_closure() {
    let two = json!([{"closureSize": 1}, {"closureSize": 1}]);
    for told in [
        json!([]),
        json!({}),
        json!(null),
        json!("0"),
        json!([{"closureSize": null}]),
        json!([{"closureSize": "12"}]),
        json!([{"path": "/nix/store/0000-x", "valid": false}]),
        two,
    ] {
        let (ended, _) = closure_size(&["bastion", "x86_64-linux"], &told);
        assert_eq!(ended.code, Some(1), "{told}: {}", ended.text);
        assert!(
            ended.text.contains("nothing that can be read"),
            "{told}: {}",
            ended.text
        );
    }
    for wrong in [
        &["backend"][..],
        &["proxy", "x86_64-linux"],
        &["backend", "riscv64-linux"],
    ] {
        let (ended, calls) = closure_size(wrong, &json!([]));
        assert_eq!((ended.code, calls.as_str()), (Some(2), ""), "{wrong:?}");
    }
}
