//! `terraform/publisher-policy.json`: whoever has it can publish and prune, and nothing in it is superfluous.
//!
//! The emulator enforces IAM policies by action only. That the resources and conditions fit is not shown here.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use super::stage::Stage;
use crate::support::{repository, text};

fn policy() -> Value {
    let file = repository().join("terraform/publisher-policy.json");
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

/// One text or a list of them.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(values) => values.iter().map(text).collect(),
        one => vec![text(one)],
    }
}

fn actions() -> BTreeSet<String> {
    let policy = policy();
    let statements = policy["Statement"].as_array().unwrap().iter();
    statements
        .flat_map(|statement| texts(&statement["Action"]))
        .collect()
}

fn emulated(without: &str) -> Value {
    let actions: Vec<_> = actions()
        .into_iter()
        .filter(|action| action != without)
        .collect();
    json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]})
}

#[test]
fn what_changes_something_is_bound_to_our_tag_and_what_looks_to_the_region() {
    for statement in policy()["Statement"].as_array().unwrap() {
        let condition = &statement["Condition"]["StringEquals"];
        let is_look = texts(&statement["Action"])
            .iter()
            .all(|action| action.contains(":Describe"));
        let is_bound = if is_look {
            condition["aws:RequestedRegion"] == "REGION"
        } else {
            let tags = ["aws:RequestTag/Project", "aws:ResourceTag/Project"];
            tags.iter().any(|tag| condition[tag] == "drawbridge")
                || condition["ec2:CreateAction"] == "RegisterImage"
        };
        assert!(is_bound, "{statement}");
        assert_eq!(is_look, statement["Resource"] == "*", "{statement}");
    }
}

#[test]
fn with_the_policy_one_can_publish_and_prune_and_nothing_in_it_is_superfluous() {
    let mut stage = Stage::new();
    let everything = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]});
    let admin = stage.emulator.user("admin", &everything);
    let lacking = emulated("ebs:PutSnapshotBlock");
    stage.watched = stage
        .emulator
        .user("publisher", &lacking)
        .through(&stage.proxy);
    stage.emulator.enforce_policies();
    stage.proxy.forget();
    let folder = stage.image("backend", 8 << 20, &[1], 1);
    let denied = stage.publish("backend", &folder, &[]);
    assert_eq!(denied.code, Some(1), "{}", denied.text);
    // One for each block that was on its way: a denial is final.
    assert_eq!(stage.proxy.count("ebs:PutSnapshotBlock"), 2);
    assert!(
        denied
            .text
            .contains("write a block of the snapshot in ap-south-1: not allowed"),
        "{}",
        denied.text
    );
    admin.allow("publisher", &emulated(""));
    assert_eq!(
        stage.published("backend", &folder, &[])["outcome"],
        "resumed"
    );
    let folder = stage.image("backend", 8 << 20, &[1], 2);
    assert_eq!(
        stage.published("backend", &folder, &[])["outcome"],
        "uploaded"
    );
    stage
        .run(&["prune", "--keep", "1", "--yes"])
        .expect_success("drawbridge image prune");

    let mut called: BTreeSet<_> = stage.proxy.calls().into_keys().collect();
    // Everybody may ask that.
    called.remove("sts:GetCallerIdentity");
    assert_eq!(called, actions());
}
