//! `terraform/github/`, and deploys as a CI job does them: the state in the bucket made there, the window open for as
//! long as new hosts need it.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::{ADMIN_KEY, rows};
use crate::support::{
    ACCOUNT, Emulator, Outcome, REGION, Stack, always_ready, eventually, repository, run, text,
};

const BUCKET: &str = "octocat-shop-states";
const STATE: &str = "drawbridge/terraform.tfstate";
/// An apply, a wait for the hosts and a close, on a busy machine.
const LIMIT: Duration = Duration::from_secs(3600);

#[test]
fn a_ci_job_deploys_with_the_state_in_a_bucket_and_leaves_no_window() {
    let emulator = Emulator::start();
    let github = Stack::github(
        &emulator,
        &json!({"repository": "octocat/shop", "state_bucket": BUCKET}),
    );
    github.apply();
    assert_eq!(github.plan(), [], "the plan after an apply is empty");
    the_role_trusts_one_environment(&emulator);
    let policy = the_bucket_is_closed(&emulator);
    // The emulator heeds a Deny and not its condition, so that it would refuse everybody.
    let only_tls = json!({"Bucket": BUCKET});
    emulator.aws("s3", "delete_bucket_policy", only_tls);

    let stack = Stack::new(&emulator, ADMIN_KEY);
    let url = always_ready();
    // On the runner's own disk the state would go with the job.
    refused(&deploy(&stack, &url, None), "which a CI job loses");
    stack.write("backend_override.tf", &text(&github.output("backend")));
    stack
        .terraform(&["init", "-lockfile=readonly"])
        .expect_success("terraform init with the bucket");
    refused(
        &deploy(&stack, &url, None),
        r#"commit {"nat_gateway": false}"#,
    );
    stack.write("nat.auto.tfvars.json", "{\"nat_gateway\": false}\n");

    let first = deploy(&stack, &url, Some((&emulator, "")));
    assert_eq!(first.code, Some(0), "{}", first.text);
    for part in [
        "ok   no-route",
        "ok   plan-empty",
        "no-egress-backend: left out (--without-ssh)",
    ] {
        assert!(first.text.contains(part), "{part}: {}", first.text);
    }
    assert_eq!(gateways(&emulator), BTreeMap::from([("deleted".into(), 1)]));
    assert_eq!(stack.state(), Vec::<String>::new(), "no state on the disk");
    let kept = emulator.aws("s3", "head_object", json!({"Bucket": BUCKET, "Key": STATE}));
    assert_eq!(kept["ServerSideEncryption"], "AES256");
    is_closed(&stack);

    let again = deploy(&stack, &url, None);
    assert!(again.text.contains("nothing to do"), "{}", again.text);
    let docs = again.expect_success("a deploy of nothing");
    assert_eq!(docs.trim_end(), text(&stack.output("docs_url")));

    // What touches no host needs no window.
    stack.write("zz.auto.tfvars.json", r#"{"health_check_path": "/health"}"#);
    deploy(&stack, &url, None).expect_success("a deploy that makes no host anew");
    assert_eq!(gateways(&emulator), BTreeMap::from([("deleted".into(), 1)]));

    held_lock_is_refused(&emulator, &stack);

    // Only the database's image, and the backend goes with it.
    let before = stack.output("deployment");
    let images = fs::read_to_string(stack.path("images.auto.tfvars.json")).expect("the images");
    let mut images: Value = serde_json::from_str(&images).expect("the images");
    images["images"]["database"] = emulator.image("database").into();
    stack.write("images.auto.tfvars.json", &images.to_string());
    let id = text(&before["backend"]["instance_id"]);
    let second = deploy(&stack, &url, Some((&emulator, &id)));
    assert_eq!(second.code, Some(0), "{}", second.text);
    assert!(second.text.contains("made anew"), "{}", second.text);
    let after = stack.output("deployment");
    for (host, is_kept) in [("bastion", true), ("backend", false), ("database", false)] {
        let id = |deployment: &Value| text(&deployment[host]["instance_id"]);
        assert_eq!(id(&before) == id(&after), is_kept, "{host}");
    }
    assert_eq!(gateways(&emulator), BTreeMap::from([("deleted".into(), 2)]));
    is_closed(&stack);

    // Somebody whom the bucket does not let in is told so, and nothing about the window.
    emulator.aws(
        "s3",
        "put_bucket_policy",
        json!({"Bucket": BUCKET, "Policy": policy}),
    );
    for command in ["status", "close"] {
        refused(
            &stack.drawbridge(&["nat", command]),
            "terraform is not let in: not allowed",
        );
    }
}

/// `drawbridge up` as the workflow calls it. With a host's id, or none, the hosts report their bootstrap once the
/// state tells of another backend than that.
fn deploy(stack: &Stack<'_>, url: &str, hosts: Option<(&Emulator, &str)>) -> Outcome {
    let mut command = stack.command(env!("CARGO_BIN_EXE_drawbridge"));
    command
        .args([
            "up",
            "--skip-publish",
            "--yes",
            "--no-open",
            "--without-ssh",
        ])
        .env("CI", "true")
        .env("DRAWBRIDGE_URL", url);
    let has_ended = AtomicBool::new(false);
    thread::scope(|scope| {
        if let Some((emulator, old)) = hosts {
            let has_ended = &has_ended;
            scope.spawn(move || {
                eventually(LIMIT, "the new backend", || {
                    let told = stack.terraform(&["output", "-json", "deployment"]);
                    let deployment: Value = serde_json::from_str(&told.stdout).unwrap_or_default();
                    let id = text(&deployment["backend"]["instance_id"]);
                    let is_new = told.code == Some(0) && !id.is_empty() && id != old;
                    let is_over = is_new || has_ended.load(Ordering::Relaxed);
                    is_over.then_some(()).ok_or(told.text)
                });
                if !has_ended.load(Ordering::Relaxed) {
                    stack.complete(emulator);
                }
            });
        }
        let ended = run(&mut command, LIMIT);
        has_ended.store(true, Ordering::Relaxed);
        ended
    })
}

fn refused(ended: &Outcome, why: &str) {
    assert_eq!(ended.code, Some(4), "{}", ended.text);
    assert!(ended.text.contains(why), "{}", ended.text);
}

fn is_closed(stack: &Stack<'_>) {
    let position = fs::read_to_string(stack.path("nat.auto.tfvars.json")).expect("the position");
    assert_eq!(position, "{\"nat_gateway\": false}\n");
    let said = stack.drawbridge(&["nat", "status", "--json"]);
    let status: Value = serde_json::from_str(&said.expect_success("nat status")).expect("a status");
    assert_eq!(
        (&status["window"], &status["findings"]),
        (&json!("closed"), &json!([])),
        "{status}"
    );
}

/// Somebody else's terraform works on the state: reading goes on, changing is refused and names them.
fn held_lock_is_refused(emulator: &Emulator, stack: &Stack<'_>) {
    let lock = format!("{STATE}.tflock");
    let info = json!({
        "ID": "0d4b3c1e-5a55-4c56-8f70-0123456789ab", "Operation": "OperationTypeApply", "Info": "", "Who": "bob@laptop",
        "Version": "1.11.4", "Created": "2026-11-20T19:23:21.23Z", "Path": format!("{BUCKET}/{STATE}"),
    });
    let object = |more: Value| {
        let mut object = json!({"Bucket": BUCKET, "Key": lock});
        object
            .as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("an object").clone());
        object
    };
    emulator.aws(
        "s3",
        "put_object",
        object(json!({"Body": info.to_string()})),
    );
    let arguments = ["nat", "open", "--for", "5m", "--without-ssh", "--", "true"];
    let opened = stack.drawbridge(&arguments);
    refused(&opened, "locked by `apply` of bob@laptop");
    assert!(
        opened
            .text
            .contains("force-unlock 0d4b3c1e-5a55-4c56-8f70-0123456789ab"),
        "{}",
        opened.text
    );
    is_closed(stack);
    emulator.aws("s3", "delete_object", object(json!({})));
}

/// How many NAT gateways there are in each state. The emulator lists deleted ones for ever.
fn gateways(emulator: &Emulator) -> BTreeMap<String, usize> {
    let mut states = BTreeMap::new();
    for gateway in rows(
        &emulator.aws("ec2", "describe_nat_gateways", json!({})),
        "NatGateways",
    ) {
        *states.entry(text(&gateway["State"])).or_default() += 1;
    }
    states
}

fn the_role_trusts_one_environment(emulator: &Emulator) {
    let role = &emulator.aws("iam", "get_role", json!({"RoleName": "github-drawbridge"}))["Role"];
    let issuer = "token.actions.githubusercontent.com";
    let provider = format!("arn:aws:iam::{ACCOUNT}:oidc-provider/{issuer}");
    let trust = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Action": "sts:AssumeRoleWithWebIdentity", "Principal": {"Federated": provider},
        "Condition": {"StringEquals": {
            format!("{issuer}:aud"): "sts.amazonaws.com",
            format!("{issuer}:sub"): "repo:octocat/shop:environment:production",
        }},
    }]});
    assert_eq!(role["AssumeRolePolicyDocument"], trust);
    assert_eq!(role["Path"], "/github/");
    let provider = emulator.aws(
        "iam",
        "get_open_id_connect_provider",
        json!({"OpenIDConnectProviderArn": provider}),
    );
    assert_eq!(provider["ClientIDList"], json!(["sts.amazonaws.com"]));

    let attached = emulator.aws(
        "iam",
        "list_attached_role_policies",
        json!({"RoleName": "github-drawbridge"}),
    );
    let attached: BTreeMap<_, _> = rows(&attached, "AttachedPolicies")
        .iter()
        .map(|policy| (text(&policy["PolicyName"]), text(&policy["PolicyArn"])))
        .collect();
    assert_eq!(attached.len(), 2, "{attached:?}");
    for kind in ["deployer", "publisher"] {
        let arn = &attached[&format!("github-drawbridge-{kind}")];
        let version = emulator.aws(
            "iam",
            "get_policy_version",
            json!({"PolicyArn": arn, "VersionId": "v1"}),
        );
        let file = repository().join(format!("terraform/{kind}-policy.json"));
        let filled = fs::read_to_string(file)
            .expect("the policy")
            .replace("ACCOUNT", ACCOUNT)
            .replace("REGION", REGION)
            .replace("NAME", "drawbridge");
        let filled: Value = serde_json::from_str(&filled).expect("JSON");
        assert_eq!(version["PolicyVersion"]["Document"], filled, "{kind}");
    }
    let state = emulator.aws(
        "iam",
        "get_role_policy",
        json!({"RoleName": "github-drawbridge", "PolicyName": "state"}),
    );
    let resources: Vec<_> = rows(&state["PolicyDocument"], "Statement")
        .iter()
        .map(|statement| text(&statement["Resource"]))
        .collect();
    let bucket = format!("arn:aws:s3:::{BUCKET}");
    let object = format!("{bucket}/{STATE}");
    let lock = format!("{object}.tflock");
    assert_eq!(resources, [bucket, object, lock]);
}

/// Returns its policy.
fn the_bucket_is_closed(emulator: &Emulator) -> String {
    let ask = |operation: &str| emulator.aws("s3", operation, json!({"Bucket": BUCKET}));
    assert_eq!(ask("get_bucket_versioning")["Status"], "Enabled");
    let rules = &ask("get_bucket_encryption")["ServerSideEncryptionConfiguration"]["Rules"];
    assert_eq!(
        rules[0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"],
        "AES256"
    );
    let block = &ask("get_public_access_block")["PublicAccessBlockConfiguration"];
    for setting in [
        "BlockPublicAcls",
        "BlockPublicPolicy",
        "IgnorePublicAcls",
        "RestrictPublicBuckets",
    ] {
        assert_eq!(block[setting], true, "{setting}");
    }
    let policy = text(&ask("get_bucket_policy")["Policy"]);
    let read: Value = serde_json::from_str(&policy).expect("a policy");
    let statement = &read["Statement"][0];
    assert_eq!(
        (&statement["Effect"], &statement["Condition"]),
        (
            &json!("Deny"),
            &json!({"Bool": {"aws:SecureTransport": "false"}})
        )
    );
    policy
}
