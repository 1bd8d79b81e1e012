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

/// Plays terraform and drawbridge for `scripts/deploy.sh`: writes down what is asked, answers from files.
const PLAYS: &str = r#"#!/bin/sh
folder=${0%/*}
echo "${0##*/} $*" >>"$folder/calls"
case "$*" in
  *' output '*) cat "$folder/outputs" ;;
  *' plan '*) exit "$(cat "$folder/plan-status")" ;;
  *' show '*) cat "$folder/plan" ;;
  *) exit "$(cat "$folder/${0##*/}-status")" ;;
esac
"#;

/// `scripts/deploy.sh` with a position, what the state tells, and the addresses that the plan makes anew; the statuses
/// are those of terraform's and drawbridge's deeds. Returns how it ended and what it called, deeds only.
fn deploy(
    position: &str,
    outputs: &Value,
    made: &[&str],
    statuses: [u8; 2],
) -> (Outcome, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    for (program, status) in ["terraform", "drawbridge"].iter().zip(statuses) {
        put(program, PLAYS);
        let file = folder.path().join(program);
        fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
        put(&format!("{program}-status"), &status.to_string());
    }
    let changes: Vec<_> = made
        .iter()
        .map(|address| json!({"address": address, "change": {"actions": ["delete", "create"]}}))
        .collect();
    put("plan", &json!({"resource_changes": changes}).to_string());
    put("plan-status", "2");
    put("outputs", &outputs.to_string());
    put("nat.auto.tfvars.json", position);
    let path = std::env::var("PATH").unwrap();
    let mut command = Command::new(repository().join("scripts/deploy.sh"));
    command
        .arg("--without-ssh")
        .env("PATH", format!("{}:{path}", folder.path().display()))
        .env("DRAWBRIDGE_BIN", folder.path().join("drawbridge"))
        .env("DRAWBRIDGE_TERRAFORM_DIR", folder.path())
        .env_remove("CI");
    let ended = run(&mut command, Duration::from_secs(120));
    let calls = fs::read_to_string(folder.path().join("calls")).unwrap_or_default();
    let place = format!("-chdir={} ", folder.path().display());
    let deeds = calls
        .lines()
        .map(|call| call.replace(&place, ""))
        .filter(|call| call.starts_with("drawbridge") || call.contains(" apply "))
        .collect();
    (ended, deeds)
}

const OPEN: &str = r#"{"nat_gateway": true}"#;
const CLOSED: &str = r#"{"nat_gateway": false}"#;

#[test]
fn a_first_deploy_that_fails_closes_the_window() {
    let (ended, deeds) = deploy(CLOSED, &json!({}), &[], [1, 0]);
    assert_eq!(ended.code, Some(1), "{}", ended.text);
    assert_eq!(
        deeds.last().unwrap(),
        "drawbridge nat close --force --leave-rest --without-ssh"
    );
    // The apply went well, and the hosts do not come up.
    let (ended, deeds) = deploy(CLOSED, &json!({}), &[], [0, 3]);
    assert_eq!(ended.code, Some(3), "{}", ended.text);
    assert_eq!(
        deeds[1..],
        [
            "drawbridge nat close --wait --without-ssh",
            "drawbridge nat close --force --leave-rest --without-ssh"
        ]
    );
    assert!(
        ended.text.contains("THE WINDOW MAY STILL BE OPEN"),
        "{}",
        ended.text
    );
}

#[test]
fn a_window_is_opened_for_new_private_hosts_and_for_nothing_else() {
    let deployed = json!({"deployment": {}});
    for made in [&["aws_instance.bastion", "aws_lb_listener.http"][..], &[]] {
        let (ended, deeds) = deploy(CLOSED, &deployed, made, [0, 0]);
        assert_eq!(ended.code, Some(0), "{}", ended.text);
        assert!(
            deeds.len() == 1 && deeds[0].starts_with("terraform apply"),
            "{deeds:?}"
        );
    }
    let (ended, deeds) = deploy(CLOSED, &deployed, &["aws_instance.database"], [0, 5]);
    assert_eq!(ended.code, Some(5), "{}", ended.text);
    let lease = "drawbridge nat open --leave-rest --for 45m --without-ssh -- terraform ";
    assert!(
        deeds.len() == 1
            && deeds[0].starts_with(lease)
            && deeds[0].ends_with("-replace=aws_instance.backend"),
        "{deeds:?}"
    );
    let (_, deeds) = deploy(CLOSED, &deployed, &["aws_instance.backend"], [0, 0]);
    assert!(
        deeds[0].starts_with(lease) && !deeds[0].contains("-replace"),
        "{deeds:?}"
    );

    let (ended, deeds) = deploy(OPEN, &deployed, &["aws_instance.backend"], [0, 0]);
    assert_eq!((ended.code, deeds), (Some(4), vec![]), "{}", ended.text);
    let (ended, deeds) = deploy("{}", &deployed, &["aws_instance.backend"], [0, 0]);
    assert_eq!((ended.code, deeds), (Some(1), vec![]), "{}", ended.text);
}
