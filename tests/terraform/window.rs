//! The NAT window: what closing and opening touch, and the deadline.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::rows;
use crate::support::{Emulator, Stack, run, text};

pub fn gateway_has_a_deadline(emulator: &Emulator, deployment: &Value) {
    let at = deadline(emulator, &deployment["nat_gateway"]["id"]);
    let utc = |minutes: &str| {
        let mut date = Command::new("date");
        date.args(["-u", "-d", minutes, "+at(%Y-%m-%dT%H:%M:%S)"]);
        run(&mut date, Duration::from_secs(10))
            .expect_success("date")
            .trim()
            .to_owned()
    };
    // Both have the same shape, so they compare as text. The gateway is some minutes old by now.
    assert!(
        (utc("+220 minutes")..=utc("+240 minutes")).contains(&at),
        "not four hours after the apply: {at}"
    );
}

pub fn window_closes_and_opens(emulator: &Emulator, stack: &Stack) {
    let window = |action: &str, gateway: &str| {
        [
            "aws_eip.nat[0]",
            "aws_nat_gateway.main[0]",
            "aws_route.private_internet[0]",
            gateway,
        ]
        .map(|address| (action.to_owned(), address.to_owned()))
    };
    stack.write("nat.auto.tfvars.json", r#"{"nat_gateway": false}"#);
    assert_eq!(
        stack.plan(),
        window("delete", "aws_scheduler_schedule.nat_deadline[0]"),
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
        window("create", "aws_scheduler_schedule.nat_deadline[0]"),
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

/// What the dead man's switch leaves; a gateway made after it must not keep the deadline that has passed.
pub fn deleted_behind_our_back_the_gateway_gets_a_new_deadline(emulator: &Emulator, stack: &Stack) {
    let gateway = stack.output("deployment")["nat_gateway"]["id"].clone();
    let passed = deadline(emulator, &gateway);
    emulator.aws(
        "ec2",
        "delete_nat_gateway",
        json!({"NatGatewayId": gateway}),
    );
    stack.apply();
    let again = stack.output("deployment")["nat_gateway"]["id"].clone();
    assert_ne!(again, gateway);
    assert!(
        deadline(emulator, &again) > passed,
        "the new gateway has the old deadline"
    );
    assert_eq!(stack.plan(), []);
}

pub fn deadline(emulator: &Emulator, gateway: &Value) -> String {
    let schedule = emulator.aws(
        "scheduler",
        "get_schedule",
        json!({"Name": format!("drawbridge-{}", text(gateway))}),
    );
    assert_eq!(
        schedule["Target"]["Arn"],
        "arn:aws:scheduler:::aws-sdk:ec2:deleteNatGateway"
    );
    assert_eq!(
        schedule["Target"]["Input"],
        json!({"NatGatewayId": gateway}).to_string()
    );
    text(&schedule["ScheduleExpression"])
}
