//! What keeps all of status, open and close from anything: named, with status 4, nothing changed.

use drawbridge::terraform::executable;

use super::close::appears;
use super::stage::{Ended, Stage};

const COMMANDS: [&[&str]; 3] = [
    &["status"],
    &["close", "--force"],
    &["open", "--for", "1m", "--", "touch", "ran"],
];

/// Runs all three on a window that is open, and one more `open` on a closed one.
fn all_refuse(arrange: impl Fn(&Stage), parts: &[&str]) {
    for (stage, position) in [(Stage::open(), "true"), (Stage::closed(), "false")] {
        arrange(&stage);
        for command in COMMANDS {
            let ended = stage.nat(command);
            assert_refused(&ended, parts);
        }
        assert_eq!(
            stage.calls(),
            Vec::<String>::new(),
            "terraform changed something"
        );
        assert!(stage.position_now().contains(position));
        assert!(!stage.path().join("ran").exists());
    }
}

fn assert_refused(ended: &Ended, parts: &[&str]) {
    assert_eq!(ended.status, 4, "{ended:?}");
    for part in parts {
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert!(said.contains(part), "{part}: {ended:?}");
    }
}

#[test]
fn the_credentials_of_another_account() {
    let both = [
        "123456789012",
        "999999999999",
        "user/alice",
        "AWS_PROFILE",
        "aws sso login",
    ];
    all_refuse(|stage| stage.identity("999999999999"), &both);
}

#[test]
fn expired_credentials() {
    let parts = [
        "have expired (`aws sso login`",
        "belongs to account 123456789012",
    ];
    all_refuse(|stage| stage.identity("ExpiredToken"), &parts);
}

#[test]
fn credentials_that_aws_does_not_know() {
    let parts = ["does not accept the credentials", "account 123456789012"];
    all_refuse(|stage| stage.identity("InvalidClientTokenId"), &parts);
}

#[test]
fn no_credentials() {
    let stage = Stage::open();
    for command in COMMANDS {
        let words: Vec<_> = ["nat"].iter().chain(command).copied().collect();
        let mut run = stage.drawbridge(&words);
        run.env_remove("AWS_ACCESS_KEY_ID")
            .env_remove("AWS_SECRET_ACCESS_KEY");
        let ended = Ended::of(run.output().unwrap());
        assert_refused(
            &ended,
            &["no AWS credentials", "AWS_PROFILE", "123456789012"],
        );
    }
    assert_eq!(stage.calls(), Vec::<String>::new());
}

#[test]
fn an_endpoint_where_the_deployment_is_not() {
    let remove = |stage: &Stage| std::fs::remove_file(stage.path().join("routes.json")).unwrap();
    let parts = [
        "rtb-1",
        "does not exist in ap-south-1 of account 123456789012",
        "AWS_ENDPOINT_URL",
    ];
    all_refuse(remove, &parts);
}

#[test]
fn nobody_at_the_endpoint() {
    let stage = Stage::open();
    let mut run = stage.drawbridge(&["nat", "close", "--force"]);
    // Port 1 of this machine: nothing listens there, and the kernel says so at once.
    run.env("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
    let ended = Ended::of(run.output().unwrap());
    assert_refused(&ended, &["AWS does not answer", "AWS_ENDPOINT_URL"]);
    assert_eq!(stage.calls(), Vec::<String>::new());
}

#[test]
fn a_state_behind_expired_credentials() {
    let stage = Stage::open();
    // Terraform's words for a bucket it is not let into.
    let script = "#!/bin/sh\necho 'Error: Error refreshing state: api error ExpiredToken: expired' >&2; exit 1\n";
    stage.put("bin/terraform", script);
    for command in COMMANDS {
        assert_refused(
            &stage.nat(command),
            &["terraform is not let in", "aws sso login"],
        );
    }
}

#[test]
fn another_name_or_region_in_the_configuration() {
    let more = [
        ("aws_nat_gateway.main[0]", "replace"),
        ("aws_vpc.main", "update"),
    ];
    for (name, region, parts) in [
        (
            "shop",
            "ap-south-1",
            ["name is `drawbridge`", "says `shop`"],
        ),
        (
            "drawbridge",
            "us-east-1",
            ["region is `ap-south-1`", "says `us-east-1`"],
        ),
    ] {
        let stage = Stage::open();
        stage.plan(&more);
        stage.variables(name, region);
        // Not even --leave-rest: whatever it is, it is not this deployment's rest.
        let ended = stage.nat(&["close", "--force", "--leave-rest"]);
        assert_refused(&ended, &parts);
        assert!(!ended.stdout.contains("aws_vpc.main"), "{ended:?}");
        assert_eq!(stage.calls(), ["plan", "show"]);
        let stage = Stage::closed();
        stage.opening(&more);
        stage.variables(name, region);
        assert_refused(&stage.nat(&["open", "--for", "1m"]), &parts);
        assert_eq!(stage.calls(), ["plan", "show"]);
    }
}

#[test]
fn a_locked_state() {
    let lock = "Error acquiring the state lock: Error message: resource temporarily unavailable Lock Info: ID: 0d4b-1 \
                Path: terraform.tfstate Operation: OperationTypeApply Who: alice@laptop Version: 1.11.4 \
                Created: 2026-11-20 19:23:21 +0000 UTC Info: ";
    let line = serde_json::json!({"type": "diagnostic", "@message": "Error", "diagnostic": {
        "severity": "error", "summary": lock, "detail": ""}});
    for (stage, command) in [
        (Stage::open(), ["close", "--force"].as_slice()),
        (Stage::closed(), &["open", "--for", "1m"]),
    ] {
        let before = stage.position_now();
        stage.put("locked", &line.to_string());
        assert_refused(
            &stage.nat(command),
            &["locked", "alice@laptop", "force-unlock 0d4b-1"],
        );
        assert_eq!(
            (stage.position_now(), stage.calls()),
            (before, vec!["plan".to_owned()])
        );
    }
}

/// The output of a deployment without a provider, and something that holds the lock for as long as it is let.
const LOCKABLE: &str = r#"
variable "nat_gateway" { type = bool }
variable "hold" { default = false }
resource "terraform_data" "held" {
  count = var.hold ? 1 : 0
  provisioner "local-exec" {
    command = "touch held; for i in $(seq 1200); do [ ! -e release ] || exit 0; sleep 0.1; done"
  }
}
output "deployment" { value = jsondecode(file("../deployment.json")) }
"#;

#[test]
fn a_state_that_another_terraform_has_locked() {
    let stage = Stage::closed();
    stage.position("{\"nat_gateway\": true}\n");
    stage.put("terraform/main.tf", LOCKABLE);
    let real = executable("terraform", std::env::var_os("PATH").as_deref()).unwrap();
    let script = format!("#!/bin/sh\nexec {} \"$@\"\n", real.display());
    stage.put("bin/terraform", &script);
    let terraform = |arguments: &[&str]| {
        let mut command = std::process::Command::new(&real);
        command
            .args(arguments)
            .current_dir(stage.path().join("terraform"))
            .env_remove("TF_CLI_CONFIG_FILE")
            .env("CHECKPOINT_DISABLE", "1")
            .stdout(std::process::Stdio::null());
        command
    };
    for arguments in [&["init"][..], &["apply", "-auto-approve"]] {
        assert!(terraform(arguments).status().unwrap().success());
    }
    let mut other = terraform(&["apply", "-auto-approve", "-var=hold=true"])
        .spawn()
        .unwrap();
    appears(&stage, "terraform/held");
    let ended = stage.nat(&["close"]);
    stage.put("terraform/release", "");
    other.wait().unwrap();
    assert_refused(&ended, &["state is locked by `apply` of", "force-unlock"]);
    assert!(stage.position_now().contains("true"));
}

#[test]
fn a_gateway_that_is_not_the_windows() {
    for stage in [Stage::open(), Stage::closed()] {
        let ours = stage.path().join("gateways.json");
        let is_open = std::fs::read_to_string(ours).unwrap().contains("available");
        let mut gateways = vec![("nat-9", "available", false)];
        gateways.extend(is_open.then_some(("nat-1", "available", true)));
        stage.gateways(&gateways);
        for command in &COMMANDS[1..] {
            assert_refused(&stage.nat(command), &["nat-9", "never touched"]);
        }
        assert_eq!(stage.calls(), Vec::<String>::new());
        let status = stage.nat(&["status"]);
        assert_eq!(status.status, 0);
        assert!(status.stdout.contains("nat-9"), "{status:?}");
    }
}
