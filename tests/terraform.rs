//! `terraform/` against the emulator: what it makes, that it stays as it is, that it leaves nothing.

mod blog_post;
mod deployer;
mod emulator;
mod features;
mod github;
mod lifecycle;
mod made;
mod plans;
mod refusals;
mod secrets;
mod window;

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Emulator, Stack, repository, run};
use secrets::secrets_in;

const ADMIN_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJx0hGm7dZ1s8dVYhVb1uWq0yq3P2m9c1r5mJ0m7vX3d alice@laptop";

pub fn rows<'a>(answer: &'a Value, field: &str) -> &'a Vec<Value> {
    answer[field]
        .as_array()
        .unwrap_or_else(|| panic!("no {field} in {answer}"))
}

/// One applied stack for everything, because an apply takes a minute of the provider's own waits.
#[test]
fn a_stack_lives_from_apply_to_destroy() {
    let emulator = Emulator::start();
    let stack = Stack::new(&emulator, ADMIN_KEY);

    stack.apply();
    assert_eq!(
        stack.plan(),
        [],
        "the plan after an apply is empty while the window is open"
    );
    let deployment = stack.output("deployment");
    made::topology_is_the_minimal_one(&emulator, &deployment);
    made::addresses_can_be_routed(&emulator, &deployment);
    made::groups_are_the_flows_and_nothing_else(&emulator, &deployment);
    made::hosts_are_hardened(&emulator, &deployment);
    made::roles_may_do_exactly_what_they_need(&emulator, &deployment);
    made::load_balancer_asks_for_readiness(&emulator);
    secrets::user_data_is_the_documented_one(&emulator, &deployment);
    window::gateway_has_a_deadline(&emulator, &deployment);

    secrets::hosts_publish(&emulator);
    assert_eq!(
        stack.plan(),
        [],
        "what the hosts write is theirs: terraform does not want it back"
    );
    window::window_closes_and_opens(&emulator, &stack);
    window::a_lease_sets_the_deadline_and_nothing_else(&emulator, &stack);
    for document in stack.state() {
        assert_eq!(secrets_in(&document), Vec::<String>::new());
    }
    secrets::hosts_still_have_what_they_published(&emulator);

    secrets::plant_one(&stack);
    window::deleted_behind_our_back_the_gateway_gets_a_new_deadline(&emulator, &stack);
    assert_eq!(
        secrets_in(&stack.state()[0]),
        ["a filled field value"],
        "the planted one is found"
    );

    stack.destroy();
    assert_eq!(leftovers(&emulator), Vec::<String>::new());
    assert!(
        !emulator.log().contains("emulator: cannot do"),
        "the emulator lacks an action:\n{}",
        emulator.log()
    );
}

#[test]
fn terraform_files_are_formatted_and_valid() {
    let mut fmt = Command::new("terraform");
    fmt.args(["fmt", "-check", "-recursive", "-diff"])
        .args(["terraform", "tests/terraform"].map(|folder| repository().join(folder)));
    run(&mut fmt, Duration::from_secs(300)).expect_success("terraform fmt -check");
    let emulator = Emulator::start();
    Stack::new(&emulator, ADMIN_KEY)
        .with_the_real_provider()
        .terraform(&["validate"])
        .expect_success("terraform validate");
}

/// What stands in the emulator though terraform destroyed everything. moto keeps listing instances that were
/// terminated and gateways that were deleted, as AWS does for an hour.
fn leftovers(emulator: &Emulator) -> Vec<String> {
    let alive = json!({"Filters": [{"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}]});
    let standing =
        json!({"Filters": [{"Name": "state", "Values": ["pending", "available", "failed"]}]});
    // A region comes with a default VPC and its parts.
    let own_vpc = json!({"Filters": [{"Name": "is-default", "Values": ["false"]}]});
    let questions = [
        ("ec2", "describe_instances", alive, "Reservations"),
        ("ec2", "describe_nat_gateways", standing, "NatGateways"),
        ("ec2", "describe_vpcs", own_vpc, "Vpcs"),
        (
            "ec2",
            "describe_network_interfaces",
            json!({}),
            "NetworkInterfaces",
        ),
        ("ec2", "describe_addresses", json!({}), "Addresses"),
        ("ec2", "describe_volumes", json!({}), "Volumes"),
        (
            "ec2",
            "describe_internet_gateways",
            json!({"Filters": [{"Name": "tag-key", "Values": ["Deployment"]}]}),
            "InternetGateways",
        ),
        ("ec2", "describe_flow_logs", json!({}), "FlowLogs"),
        (
            "elbv2",
            "describe_load_balancers",
            json!({}),
            "LoadBalancers",
        ),
        ("elbv2", "describe_target_groups", json!({}), "TargetGroups"),
        ("iam", "list_roles", json!({}), "Roles"),
        (
            "iam",
            "list_instance_profiles",
            json!({}),
            "InstanceProfiles",
        ),
        ("scheduler", "list_schedules", json!({}), "Schedules"),
        (
            "ssm",
            "describe_parameters",
            json!({"ParameterFilters": [{"Key": "Name", "Option": "BeginsWith", "Values": ["/drawbridge"]}]}),
            "Parameters",
        ),
        ("logs", "describe_log_groups", json!({}), "logGroups"),
    ];
    questions
        .into_iter()
        .flat_map(|(service, operation, parameters, field)| {
            let answer = emulator.aws(service, operation, parameters);
            rows(&answer, field)
                .iter()
                .map(|left| format!("{operation}: {left}"))
                .collect::<Vec<_>>()
        })
        .collect()
}
