//! `drawbridge audit` against the emulator: nothing is found in what Terraform made, each planted thing is, the plan
//! stays empty meanwhile, and the commands it prints mend it.

mod plant;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::python::path_with_aws;
use crate::support::{Emulator, Outcome, REGION, Stack, run, text};

const ADMIN_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJx0hGm7dZ1s8dVYhVb1uWq0yq3P2m9c1r5mJ0m7vX3d alice@laptop";

/// Twenty commands of a second or two each, three at a time, on a busy machine.
const LIMIT: Duration = Duration::from_secs(900);

/// What is found: class, kind, id.
type Found = BTreeSet<(String, String, String)>;

/// The folder first, and then the `aws` of the rehearsal.
fn path(first: &Path) -> String {
    let rest = path_with_aws();
    format!("{}:{}", first.display(), rest.to_str().unwrap())
}

/// Runs `drawbridge audit`. `tools` may hold an `aws` of the test's own.
fn audit(emulator: &Emulator, directory: &Path, tools: &Path, arguments: &[&str]) -> Outcome {
    let mut command = emulator.command(env!("CARGO_BIN_EXE_drawbridge"));
    command
        .arg("audit")
        .arg("--terraform-dir")
        .arg(directory)
        .args(arguments)
        .env("PATH", path(tools));
    run(&mut command, LIMIT)
}

/// The JSON among progress lines.
fn report(outcome: &Outcome) -> Value {
    let start = outcome.text.find("{\n").unwrap_or_default();
    let mut values = serde_json::Deserializer::from_str(&outcome.text[start..]).into_iter();
    let value = values.next().and_then(Result::ok);
    value.unwrap_or_else(|| panic!("no JSON: {}", outcome.text))
}

fn found(report: &Value) -> Found {
    let findings = report["findings"].as_array().unwrap().iter();
    findings
        .map(|finding| {
            let field = |name: &str| text(&finding[name]);
            (field("class"), field("kind"), field("id"))
        })
        .collect()
}

/// Runs the commands that a report prints, findings side by side, each one's commands in order.
fn mend(emulator: &Emulator, report: &Value) {
    std::thread::scope(|threads| {
        for finding in report["findings"].as_array().unwrap() {
            threads.spawn(move || {
                for command in finding["mend"].as_array().unwrap() {
                    let line = text(command);
                    assert!(line.starts_with("aws "), "{finding}");
                    let mut shell = emulator.command("sh");
                    shell
                        .args(["-c", &line])
                        .env("PATH", path(Path::new("/nonexistent")));
                    run(&mut shell, LIMIT).expect_success(&line);
                }
            });
        }
    });
}

/// One applied stack for everything.
#[test]
fn what_no_plan_shows_is_found_and_mended() {
    let emulator = Emulator::start();
    let stack = Stack::new(&emulator, ADMIN_KEY);
    let tools = tempfile::tempdir().unwrap();
    let look = |arguments: &[&str]| audit(&emulator, &stack.path(""), tools.path(), arguments);
    stack.apply();

    let clean = look(&[]);
    assert_eq!(clean.code, Some(0), "{}", clean.text);
    assert!(
        clean.text.contains("found nothing in Elastic IPs, "),
        "{}",
        clean.text
    );

    let deployment = stack.output("deployment");
    let planted = plant::everything(&emulator, &deployment);
    let dirty = look(&["--json"]);
    let report_of_dirty = report(&dirty);
    assert_eq!(found(&report_of_dirty), planted, "{report_of_dirty:#}");
    assert_eq!(
        (dirty.code, &report_of_dirty["unknown"]),
        (Some(6), &json!([]))
    );
    assert_eq!(stack.plan(), [], "a plan sees none of it");
    costs_are_those_of_the_table(&report_of_dirty);

    refusals(&emulator, &stack, tools.path());
    a_look_that_is_denied_is_unknown_and_the_others_are_taken(&emulator, &stack);

    mend(&emulator, &report_of_dirty);
    plant::take_the_deadline(&emulator, &deployment);
    let gateway = text(&deployment["nat_gateway"]["id"]);
    let wanted = Found::from([("drift".into(), "no-deadline".into(), gateway)]);
    assert_eq!(
        found(&report(&look(&["--json"]))),
        wanted,
        "the rest is mended"
    );

    // As scripts/destroy.sh does it.
    let mut forget = emulator.command("terraform");
    forget
        .arg(format!("-chdir={}", stack.path("").display()))
        .args(["state", "rm", "aws_ebs_volume.database"]);
    run(&mut forget, LIMIT).expect_success("terraform state rm");
    stack
        .terraform(&["destroy", "-auto-approve"])
        .expect_success("terraform destroy");
    let unnamed = look(&[]);
    assert_eq!(unnamed.code, Some(1), "{}", unnamed.text);
    assert!(
        unnamed.text.contains("--name and --region"),
        "{}",
        unnamed.text
    );

    let volume = text(&deployment["database_volume_id"]);
    let mut wanted = plant::after_destroy(&emulator);
    wanted.insert(("kept".into(), "volume".into(), volume.clone()));
    let left = look(&["--name", "drawbridge", "--region", REGION, "--json"]);
    let report_of_left = report(&left);
    assert_eq!((left.code, found(&report_of_left)), (Some(6), wanted));
    let findings = report_of_left["findings"].as_array().unwrap();
    let kept = findings
        .iter()
        .find(|finding| finding["class"] == "kept")
        .unwrap();
    assert_eq!(kept["month_usd_micros"], 912_000, "10 GiB of gp3");
    let commands = kept["mend"].to_string();
    assert!(
        commands.contains(&format!("import aws_ebs_volume.database {volume}"))
            && commands.contains(&format!("delete-volume --volume-id {volume}")),
        "{commands}"
    );
}

fn costs_are_those_of_the_table(report: &Value) {
    let cost = |kind: &str| {
        let findings = report["findings"].as_array().unwrap().iter();
        let of_kind = findings.filter(|finding| finding["kind"] == kind);
        of_kind
            .map(|finding| finding["month_usd_micros"].clone())
            .next()
            .unwrap()
    };
    assert_eq!(cost("nat-gateway"), 40_880_000);
    assert_eq!(cost("elastic-ip"), 3_650_000);
    assert_eq!(cost("volume"), 7 * 91_200);
    assert_eq!(cost("snapshot"), 7 * 50_000);
    assert_eq!(cost("load-balancer"), 17_447_000);
    assert_eq!(cost("security-group-rule"), Value::Null);
}

fn refusals(emulator: &Emulator, stack: &Stack<'_>, tools: &Path) {
    for (arguments, given) in [
        (["--name", "other"], "other"),
        (["--region", "us-east-1"], "us-east-1"),
    ] {
        let refused = audit(emulator, &stack.path(""), tools, &arguments);
        assert_eq!(refused.code, Some(1), "{}", refused.text);
        let wanted = format!("deployment drawbridge in {REGION}, not of {given}");
        assert!(refused.text.contains(&wanted), "{}", refused.text);
    }
    // Where nothing of ours stands, nothing would be found.
    let elsewhere = Emulator::start();
    let refused = audit(&elsewhere, &stack.path(""), tools, &[]);
    assert_eq!(refused.code, Some(1), "{}", refused.text);
    assert!(
        refused.text.contains("does not exist in ap-south-1"),
        "{}",
        refused.text
    );
}

fn a_look_that_is_denied_is_unknown_and_the_others_are_taken(
    emulator: &Emulator,
    stack: &Stack<'_>,
) {
    let real = Command::new("sh")
        .args(["-c", "command -v aws"])
        .env("PATH", path(Path::new("/nonexistent")))
        .output()
        .unwrap();
    let real = String::from_utf8(real.stdout).unwrap();
    let tools = tempfile::tempdir().unwrap();
    let file = tools.path().join("aws");
    // Whether the VPC is there, and the security groups: the rest is not allowed.
    let script = format!(
        "#!/bin/sh
case \"$2\" in
  describe-vpcs | describe-security-group*) exec {} \"$@\" ;;
esac
echo \"An error occurred (AccessDenied) when calling $2: \u{1b}[31mno\" >&2
exit 254
",
        real.trim()
    );
    fs::write(&file, script).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    let outcome = audit(emulator, &stack.path(""), tools.path(), &[]);
    assert_eq!(outcome.code, Some(1), "{}", outcome.text);
    assert!(
        outcome.text.contains(
            "unknown   IAM roles: cannot list the IAM roles in ap-south-1: not allowed: "
        ),
        "{}",
        outcome.text
    );
    assert!(
        !outcome.text.contains('\u{1b}'),
        "remote text is escaped: {}",
        outcome.text
    );
    assert!(
        outcome.text.contains("drift     security-group-rule sgr-"),
        "{}",
        outcome.text
    );
    assert!(
        !outcome.text.contains("role drawbridge-old"),
        "{}",
        outcome.text
    );
}
