//! The NAT window: what closing and opening touch, and the deadline.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::rows;
use crate::support::{Emulator, Stack, run, text};

const SCHEDULE: &str = "aws_scheduler_schedule.nat_deadline[0]";

pub fn gateway_has_a_deadline(emulator: &Emulator, deployment: &Value) {
    let at = deadline(emulator, &deployment["nat_gateway"]);
    let utc = |minutes| format!("at({})", in_minutes(minutes).trim_end_matches('Z'));
    // Both have the same shape, so they compare as text. The gateway is some minutes old by now.
    assert!(
        (utc(220)..=utc(240)).contains(&at),
        "not four hours after the apply: {at}"
    );
}

/// The time that many minutes from now, as `2026-11-20T12:40:00Z`.
fn in_minutes(minutes: i32) -> String {
    let mut date = Command::new("date");
    date.args([
        "-u",
        "-d",
        &format!("{minutes} minutes"),
        "+%Y-%m-%dT%H:%M:%SZ",
    ]);
    let said = run(&mut date, Duration::from_secs(60)).expect_success("date");
    said.trim().to_owned()
}

pub fn window_closes_and_opens(emulator: &Emulator, stack: &Stack) {
    let window = |action: &str| {
        [
            "aws_eip.nat[0]",
            "aws_nat_gateway.main[0]",
            "aws_route.private_internet[0]",
            SCHEDULE,
        ]
        .map(|address| (action.to_owned(), address.to_owned()))
    };
    stack.write("nat.auto.tfvars.json", r#"{"nat_gateway": false}"#);
    assert_eq!(
        stack.plan(),
        window("delete"),
        "closing touches these and nothing else"
    );
    stack
        .terraform(&["apply", "plan"])
        .expect_success("closing");
    assert_eq!(
        stack.plan(),
        [],
        "the plan is empty while the window is closed"
    );
    let deployment = stack.output("deployment");
    assert_eq!(deployment["nat_gateway"], Value::Null);
    let addresses = emulator.aws("ec2", "describe_addresses", json!({}));
    assert_eq!(
        rows(&addresses, "Addresses").len(),
        1,
        "the bastion's only: {addresses}"
    );
    assert!(
        rows(
            &emulator.aws("scheduler", "list_schedules", json!({})),
            "Schedules"
        )
        .is_empty()
    );

    stack.write("nat.auto.tfvars.json", r#"{"nat_gateway": true}"#);
    assert_eq!(
        stack.plan(),
        window("create"),
        "opening touches these and nothing else"
    );
    stack
        .terraform(&["apply", "plan"])
        .expect_success("opening");
    assert_eq!(
        stack.plan(),
        [],
        "the plan is empty once the window is open again"
    );
}

pub fn a_lease_sets_the_deadline_and_nothing_else(emulator: &Emulator, stack: &Stack) {
    let replaced = [("delete+create".to_owned(), SCHEDULE.to_owned())];
    let gateway = stack.output("deployment")["nat_gateway"]["id"].clone();
    for until in [in_minutes(30), in_minutes(120)] {
        let lease = json!({"nat_gateway": true, "nat_gateway_until": until});
        stack.write("nat.auto.tfvars.json", &lease.to_string());
        assert_eq!(
            stack.plan(),
            replaced,
            "another deadline is another schedule, and nothing else"
        );
        stack
            .terraform(&["apply", "plan"])
            .expect_success("setting a deadline");
        let leased = stack.output("deployment")["nat_gateway"].clone();
        assert_eq!(leased["id"], gateway);
        assert_eq!(
            deadline(emulator, &leased),
            format!("at({})", until.trim_end_matches('Z'))
        );
        let schedules = emulator.aws("scheduler", "list_schedules", json!({}));
        assert_eq!(
            rows(&schedules, "Schedules").len(),
            1,
            "the old deadline stands: {schedules}"
        );
    }

    let ended = json!({"nat_gateway": true, "nat_gateway_until": in_minutes(-1)});
    stack.write("nat.auto.tfvars.json", &ended.to_string());
    let refused = stack.terraform(&["plan"]);
    assert_eq!(refused.code, Some(1), "{}", refused.text);
    let said = refused.one_line();
    assert!(
        said.contains("lease ended") && said.contains("scripts/destroy-nat.sh"),
        "{said}"
    );
    stack
        .terraform(&["plan", "-var=nat_gateway=false"])
        .expect_success("planning to close a window whose lease has ended");

    stack.write("nat.auto.tfvars.json", r#"{"nat_gateway": true}"#);
    assert_eq!(
        stack.plan(),
        replaced,
        "without a lease the hours count again"
    );
    stack
        .terraform(&["apply", "plan"])
        .expect_success("ending a lease");
}

/// What the dead man's switch leaves; a gateway made after it must not keep the deadline that has passed.
pub fn deleted_behind_our_back_the_gateway_gets_a_new_deadline(emulator: &Emulator, stack: &Stack) {
    let gateway = stack.output("deployment")["nat_gateway"].clone();
    let passed = deadline(emulator, &gateway);
    emulator.aws(
        "ec2",
        "delete_nat_gateway",
        json!({"NatGatewayId": gateway["id"]}),
    );
    stack.apply();
    let again = stack.output("deployment")["nat_gateway"].clone();
    assert_ne!(again["id"], gateway["id"]);
    assert!(
        deadline(emulator, &again) > passed,
        "the new gateway has the old deadline"
    );
    assert_eq!(stack.plan(), []);
}

/// When the gateway of the output `deployment` is deleted: `at(2026-11-20T12:40:00)`.
fn deadline(emulator: &Emulator, gateway: &Value) -> String {
    let schedule = emulator.aws(
        "scheduler",
        "get_schedule",
        json!({"Name": gateway["schedule"]}),
    );
    assert_eq!(
        schedule["Target"]["Arn"],
        "arn:aws:scheduler:::aws-sdk:ec2:deleteNatGateway"
    );
    assert_eq!(
        schedule["Target"]["Input"],
        json!({"NatGatewayId": gateway["id"]}).to_string()
    );
    text(&schedule["ScheduleExpression"])
}
