//! `terraform/deployer-policy.json`: whoever has it can do all that an operator does, and nothing in it is superfluous.
//!
//! The emulator enforces IAM policies by action only. That the resources and conditions fit is not shown here.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::{ADMIN_KEY, leftovers, rows};
use crate::support::{
    Emulator, Outcome, Proxy, REGION, Stack, always_ready, repository, run, text,
};

/// What AWS asks for though no call has its name, or what no call here needs, and why it is in the policy.
const NOT_CALLED: [(&str, &str); 5] = [
    (
        "ec2:ModifySecurityGroupRules",
        "how terraform changes a rule in place, as when another `why` is written; no rule changes here",
    ),
    (
        "ec2:ReplaceRoute",
        "how terraform leads the route to a gateway made anew after the switch has fired; here it does not fire",
    ),
    (
        "iam:CreateServiceLinkedRole",
        "checked when an account's first load balancer is made",
    ),
    (
        "iam:PassRole",
        "checked when a role is handed to EC2, Scheduler or VPC flow logs",
    ),
    (
        "logs:UntagResource",
        "how terraform takes a tag off the log group; here the group goes too",
    ),
];

fn policy() -> String {
    fs::read_to_string(repository().join("terraform/deployer-policy.json")).expect("the policy")
}

fn statements(policy: &Value) -> &Vec<Value> {
    rows(policy, "Statement")
}

/// One text or a list of them.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(values) => values.iter().map(text).collect(),
        one => vec![text(one)],
    }
}

fn actions() -> BTreeSet<String> {
    let policy = serde_json::from_str(&policy()).expect("JSON");
    let all = statements(&policy).iter();
    all.flat_map(|statement| texts(&statement["Action"]))
        .collect()
}

/// The policy as far as the emulator understands it, without one action. It denies wherever a resource is named, and
/// calls the tagging service by the name its signatures have.
fn emulated(without: &str) -> Value {
    let left = actions().into_iter().filter(|action| action != without);
    let actions: Vec<_> = left
        .map(|action| action.replace("tag:", "tagging:"))
        .collect();
    json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]})
}

#[test]
fn filled_in_the_policy_fits_into_iam_and_is_scoped_wherever_iam_can_scope() {
    let readme = fs::read_to_string(repository().join("README.md")).expect("README.md");
    let fill = readme
        .lines()
        .find(|line| line.starts_with("sed 's/ACCOUNT/"))
        .expect("how to fill it in");
    let mut shell = Command::new("sh");
    shell.args(["-c", fill]).current_dir(repository());
    let filled = run(&mut shell, Duration::from_secs(60)).expect_success(fill);
    for placeholder in ["ACCOUNT", "REGION", "NAME"] {
        assert!(
            !filled.contains(placeholder),
            "{placeholder} is left:\n{filled}"
        );
    }
    let filled: Value = serde_json::from_str(&filled).expect("JSON");
    // https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html: a managed policy, white space not counted.
    assert!(
        filled.to_string().len() <= 6144,
        "{}",
        filled.to_string().len()
    );
    for statement in statements(&filled) {
        assert_eq!(statement["Effect"], "Allow", "{statement}");
        for resource in texts(&statement["Resource"]) {
            let is_ours = resource.starts_with("arn:aws:") && resource.contains(":123456789012:");
            let by_region =
                statement["Condition"]["StringEquals"]["aws:RequestedRegion"] == "ap-south-1";
            // IAM has neither regions nor, for this one, resources.
            let is_list = statement["Action"] == "iam:ListRoles";
            assert!(
                is_ours || resource == "*" && (by_region || is_list),
                "{statement}"
            );
        }
        for action in texts(&statement["Action"]) {
            assert!(!action.ends_with(":*") && action != "*", "{action}");
        }
    }
}

#[test]
fn with_the_policy_an_operator_can_do_everything_and_nothing_in_it_is_superfluous() {
    let emulator = Emulator::start();
    let proxy = Proxy::start(&emulator);
    let everything = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]});
    let admin = emulator.user("admin", &everything);
    let operator = emulator.user("operator", &emulated("")).through(&proxy);
    // Publishing images is not an operator's affair: the stack does it before anything is enforced.
    let stack = Stack::new(&operator, ADMIN_KEY);
    let optional = json!({
        "certificate_arn": "arn:aws:acm:ap-south-1:123456789012:certificate/8a1f", "domain": "api.example.org",
        "flow_log_retention_days": 30,
    });
    stack.write("optional.auto.tfvars.json", &optional.to_string());
    emulator.enforce_policies();
    assert_eq!(
        emulator.call("ec2", "describe_vpcs", &json!({})).code,
        Some(1),
        "policies are not enforced"
    );
    proxy.forget();

    stack.apply();
    assert_eq!(stack.plan(), [], "the plan after an apply is empty");
    stack.complete(&admin);
    let closed = stack.drawbridge(&["nat", "close", "--json", "--url", &always_ready()]);
    assert_closed_but_for_ssh(&closed);
    assert_eq!(status(&stack)["window"], "closed");
    stack
        .drawbridge(&["audit"])
        .expect_success("drawbridge audit of what is as it should be");

    // Everything that people change, and the window opened again, by somebody who lacks one action.
    admin.allow("operator", &emulated("ec2:CreateNatGateway"));
    stack.write("nat.auto.tfvars.json", r#"{"nat_gateway": true}"#);
    let other_key = ADMIN_KEY.replace("alice", "bob");
    let changed = json!({
        "certificate_arn": "arn:aws:acm:ap-south-1:123456789012:certificate/8a1f", "domain": "api.example.org",
        "flow_log_retention_days": 60, "tags": {"Team": "alumni"}, "health_check_path": "/health",
        "admin_cidrs": ["203.0.113.0/24", "198.51.100.0/28"], "admin_ssh_keys": {"alice": ADMIN_KEY, "bob": other_key},
        "tunnel_ssh_keys": {"reporting": ADMIN_KEY.replace("alice", "reporting")},
        "database_volume_gib": 12, "root_volume_gib": 10,
        "instance_types": {"bastion": "t3.small", "backend": "t3.micro", "database": "t3.micro"},
    });
    // Files are read in the order of their names; this one is the last.
    stack.write("zz.auto.tfvars.json", &changed.to_string());
    let denied = stack.terraform(&["apply", "-auto-approve"]);
    assert_ne!(denied.code, Some(0));
    let said = denied.one_line();
    assert!(
        said.contains("not authorized to perform: ec2:CreateNatGateway"),
        "{said}"
    );
    assert_eq!(said.matches("Error: ").count(), 1, "{said}");
    admin.allow("operator", &emulated(""));
    stack.apply();
    assert_eq!(status(&stack)["window"], "open");

    // And back: what was optional goes.
    for file in ["optional.auto.tfvars.json", "zz.auto.tfvars.json"] {
        fs::remove_file(stack.path(file)).expect("a variables file");
    }
    stack.write(
        "zz.auto.tfvars.json",
        r#"{"database_volume_gib": 12, "root_volume_gib": 10}"#,
    );
    stack.apply();
    stack.destroy();
    assert_eq!(leftovers(&admin), Vec::<String>::new());
    admin.aws(
        "iam",
        "create_role",
        json!({
            "RoleName": "drawbridge-left", "AssumeRolePolicyDocument": "{}",
            "Tags": [{"Key": "Deployment", "Value": "drawbridge"}],
        }),
    );
    let found = stack.drawbridge(&["audit", "--name", "drawbridge", "--region", REGION]);
    assert_eq!(found.code, Some(6), "{}", found.text);
    assert!(found.text.contains("drawbridge-left"), "{}", found.text);

    let called: BTreeSet<_> = proxy.calls().into_keys().collect();
    let is_called = |action: &String| match action.strip_suffix('*') {
        Some(beginning) => called.iter().any(|call| call.starts_with(beginning)),
        None => called.contains(action),
    };
    let not_called: Vec<_> = actions()
        .into_iter()
        .filter(|action| !is_called(action))
        .collect();
    assert_eq!(
        not_called,
        NOT_CALLED.map(|(action, _)| action),
        "of the policy never called"
    );
}

/// Its hosts do not exist, so what is proven through ssh is not; the rest is.
fn assert_closed_but_for_ssh(closed: &Outcome) {
    assert_eq!(closed.code, Some(5), "{}", closed.text);
    let report: Value = serde_json::from_str(&closed.stdout).expect("a report");
    let holds = |proof: &&Value| proof["holds"] == true;
    let held: Vec<_> = rows(&report, "proofs")
        .iter()
        .filter(holds)
        .map(|proof| text(&proof["claim"]))
        .collect();
    assert_eq!(
        held,
        [
            "nat-gateway-gone",
            "address-released",
            "plan-empty",
            "api-ready"
        ],
        "{report}"
    );
}

fn status(stack: &Stack) -> Value {
    let said = stack.drawbridge(&["nat", "status", "--json"]);
    serde_json::from_str(&said.expect_success("drawbridge nat status")).expect("a status")
}
