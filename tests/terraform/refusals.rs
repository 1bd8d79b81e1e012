//! What `terraform plan` refuses, and that it says why.

use std::fs;

use serde_json::json;

use super::ADMIN_KEY;
use super::secrets::from_base64;
use crate::support::{Emulator, Outcome, Stack};

/// Every refusal says what is wrong; each of these would otherwise be applied or fail unreadably.
#[test]
fn flows_that_would_do_harm_are_refused_and_named() {
    let emulator = Emulator::start();
    let stack = Stack::new(&emulator, ADMIN_KEY);
    let flows = fs::read_to_string(stack.path("flows.json")).expect("flows.json");
    let with_flow = |flow: &str| flows.replacen('[', &format!("[{flow},"), 1);

    let flow_files = [
        (
            with_flow(r#"{"from": "backend", "to": "cache", "port": 6379, "why": "x"}"#),
            "flows.json: unknown host cache (to).",
        ),
        (
            with_flow(r#"{"from": "laptop", "to": "backend", "port": 22, "why": "x"}"#),
            "flows.json: unknown host laptop (from).",
        ),
        (
            with_flow(r#"{"from": "backend", "to": "internet", "port": 25, "why": "x"}"#),
            "flows.json: unknown host internet (to).",
        ),
        (
            with_flow(r#"{"from": "bastion", "to": "backend", "port": 22, "why": "x"}"#),
            "flows.json: listed more than once: bastion-to-backend-22",
        ),
        (
            with_flow(r#"{"from": "bastion", "to": "backend", "port": 65536, "why": "x"}"#),
            "not 65536",
        ),
        (
            with_flow(r#"{"from": "bastion", "to": "backend", "port": "ssh", "why": "x"}"#),
            r#"not "ssh""#,
        ),
        (
            with_flow(r#"{"from": "bastion", "to": "backend", "port": 80}"#),
            "exactly from, port, to and why",
        ),
        (
            with_flow(r#"{"from": "bastion", "to": "backend", "port": 80, "why": "<b>"}"#),
            r#"change "<b>""#,
        ),
        (
            with_flow(
                r#"{"from": "internet", "to": "bastion", "port": 443, "why": "x", "needs": "tls"}"#,
            ),
            r#"needs is "certificate" (the flow exists only with certificate_arn), not "tls""#,
        ),
        (
            with_flow(
                r#"{"from": "internet", "to": "load_balancer", "port": 443, "why": "twice"}"#,
            ),
            "listed more than once: internet-to-load_balancer-443",
        ),
        (
            with_flow(r#"{"from": "load_balancer", "to": "backend", "port": 9000, "why": "x"}"#),
            "there must be exactly one such flow",
        ),
        (
            flows.replace(
                r#""to": "backend", "port": 8000"#,
                r#""to": "database", "port": 8000"#,
            ),
            "there must be exactly one such flow",
        ),
        (flows.replace(']', ""), "flows.json"),
    ];
    for (file, named) in flow_files {
        stack.write("flows.json", &file);
        let said = refused(stack.terraform(&["plan"]), named);
        assert_eq!(
            said.matches("Error:").count(),
            1,
            "one clear text, not several: {said}"
        );
    }
}

/// What each text says; that every rule refuses is tried in `terraform/tests/`.
#[test]
fn variables_that_would_do_harm_are_refused_and_named() {
    let emulator = Emulator::start();
    let stack = Stack::new(&emulator, ADMIN_KEY);
    let private_key = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAA\n-----END OPENSSH PRIVATE KEY-----\n";
    let variables = [
        (
            json!({"admin_cidrs": ["0.0.0.0/0"]}),
            "admin_cidrs needs at least one IPv4 block",
        ),
        (
            json!({"admin_cidrs": ["203.0.113.7/24"]}),
            "written from its first address",
        ),
        (
            json!({"admin_ssh_keys": {}}),
            "at least one person's public key",
        ),
        (
            json!({"admin_ssh_keys": {"mallory": private_key}}),
            "admin_ssh_keys: not one line of an OpenSSH public key: mallory.",
        ),
        (
            json!({"tunnel_ssh_keys": {"mallory": private_key}}),
            "tunnel_ssh_keys: not one line of an OpenSSH public key: mallory.",
        ),
        (
            json!({"vpc_cidr": "10.99.0.0/16"}),
            "must lie inside vpc_cidr (10.99.0.0/16)",
        ),
        (
            json!({"name": "Draw_Bridge"}),
            "name must be 2 to 21 lower-case letters",
        ),
        (
            json!({"nat_gateway_max_hours": 1.5}),
            "nat_gateway_max_hours must be a whole number",
        ),
        (
            json!({"subnet_cidrs": {"management": "10.20.1.0/24", "backend": "10.20.2.0/24",
                "database": "10.20.2.128/25", "edge": "10.20.4.0/24"}}),
            "must not overlap: backend 10.20.2.0/24, database 10.20.2.128/25,",
        ),
        (
            json!({"certificate_arn":
                "arn:aws:acm:us-east-1:123456789012:certificate/12345678-90ab-cdef-1234-567890abcdef",
                "domain": "api.example.org"}),
            "request one in ap-south-1",
        ),
        (
            json!({"domain": "api.example.org"}),
            "give both for HTTPS, or neither",
        ),
        (
            json!({"instance_types": {"bastion": "t3.micro", "backend": "t4g.small", "database": "t3.micro"}}),
            "is x86_64: choose a type such as t3.micro, or publish an image for that processor",
        ),
        (
            json!({"images": {"bastion": "ami-1", "backend": "", "database": ""}}),
            "images.auto.tfvars.json",
        ),
    ];
    for (wrong, named) in variables {
        stack.write("wrong.auto.tfvars.json", &wrong.to_string());
        refused(stack.terraform(&["plan"]), named);
    }
    fs::remove_file(stack.path("wrong.auto.tfvars.json")).expect("the file just written");

    let positions = [
        (r#"{"nat_gateway": tru"#, "nat.auto.tfvars.json"),
        (r#"{"nat_gateway": "perhaps"}"#, "a bool is required"),
        (
            r#"{"nat_gateway": true, "nat_gateway_until": "2001-01-01T00:00:00Z"}"#,
            "Close the window with scripts/destroy-nat.sh, or open it anew",
        ),
        (
            r#"{"nat_gateway": false, "nat_gateway_until": "in half an hour"}"#,
            "nat_gateway_until must be a time in UTC to the second",
        ),
        (
            r#"{"nat_gatway": true}"#,
            r#"variable "nat_gateway" is not set"#,
        ),
    ];
    for (file, named) in positions {
        stack.write("nat.auto.tfvars.json", file);
        refused(stack.terraform(&["plan"]), named);
    }
}

/// What it says from its first error on; before that stands the plan as far as it came.
fn refused(outcome: Outcome, named: &str) -> String {
    // The plan as far as it came shows user data, where it would stand as base64.
    let user_data = outcome
        .text
        .split("user_data_base64")
        .filter_map(|rest| rest.trim_start().strip_prefix("= \"")?.split('"').next());
    for shown in user_data.map(from_base64).chain([outcome.text.clone()]) {
        assert!(!shown.contains("b3BlbnNzaC1"), "a private key was printed");
    }
    let said = outcome.one_line();
    let said = said
        .find("Error:")
        .map_or(said.as_str(), |start| &said[start..]);
    assert_eq!(
        outcome.code,
        Some(1),
        "not refused, though it should say {named:?}: {said}"
    );
    assert!(said.contains(named), "does not say {named:?}: {said}");
    said.to_owned()
}
