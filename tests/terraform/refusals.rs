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
    let with_flows = |more: &[&str]| flows.replacen('[', &format!("[{},", more.join(",")), 1);

    // Each plan names several mistakes: every one in the text of its kind, and with no text of another.
    let mistakes: [(String, &[&str]); 4] = [
        (
            with_flows(&[
                r#"{"from": "backend", "to": "cache", "port": 6379, "why": "x"}"#,
                r#"{"from": "bastion", "to": "backend", "port": 22, "why": "x"}"#,
                r#"{"from": "bastion", "to": "backend", "port": 65536, "why": "x"}"#,
                r#"{"from": "bastion", "to": "backend", "port": 81}"#,
                r#"{"from": "bastion", "to": "backend", "port": 80, "why": "<b>"}"#,
                r#"{"from": "internet", "to": "bastion", "port": 443, "why": "x", "needs": "tls"}"#,
                r#"{"from": "load_balancer", "to": "backend", "port": 9000, "why": "x"}"#,
            ]),
            &[
                "flows.json: unknown host cache (to).",
                "flows.json: listed more than once: bastion-to-backend-22.",
                "not 65536",
                "exactly from, port, to and why",
                r#"change "<b>""#,
                r#"needs is "certificate" (the flow exists only with certificate_arn), not "tls""#,
                "there must be exactly one such flow",
            ],
        ),
        (
            with_flows(&[
                r#"{"from": "laptop", "to": "backend", "port": 22, "why": "x"}"#,
                r#"{"from": "internet", "to": "load_balancer", "port": 443, "why": "twice"}"#,
                r#"{"from": "bastion", "to": "backend", "port": "ssh", "why": "x"}"#,
            ])
            .replace(
                r#""to": "backend", "port": 8000"#,
                r#""to": "database", "port": 8000"#,
            ),
            &[
                "flows.json: unknown host laptop (from).",
                "listed more than once: internet-to-load_balancer-443.",
                r#"not "ssh""#,
                "there must be exactly one such flow",
            ],
        ),
        (
            with_flows(&[r#"{"from": "backend", "to": "internet", "port": 25, "why": "x"}"#]),
            &["flows.json: unknown host internet (to)."],
        ),
        (flows.replace(']', ""), &["flows.json"]),
    ];
    for (file, named) in mistakes {
        stack.write("flows.json", &file);
        assert_all_named(stack.terraform(&["plan"]), named);
    }
}

/// One clear text for each mistake, and no more.
fn assert_all_named(outcome: Outcome, named: &[&str]) {
    let said = refused(outcome, named[0]);
    for text in named {
        assert!(said.contains(text), "does not say {text:?}: {said}");
    }
    assert_eq!(
        said.matches("Error:").count(),
        named.len(),
        "not one text for each mistake: {said}"
    );
}

/// What each text says; that every rule refuses is tried in `terraform/tests/`.
#[test]
fn variables_that_would_do_harm_are_refused_and_named() {
    let emulator = Emulator::start();
    let stack = Stack::new(&emulator, ADMIN_KEY);
    let private_key = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAA\n-----END OPENSSH PRIVATE KEY-----\n";
    let variables: [(_, &[&str]); 4] = [
        (
            json!({
                "admin_cidrs": ["0.0.0.0/0"], "admin_ssh_keys": {}, "vpc_cidr": "10.99.0.0/16", "name": "Draw_Bridge",
                "nat_gateway_max_hours": 1.5, "domain": "api.example.org", "certificate_arn":
                    "arn:aws:acm:us-east-1:123456789012:certificate/12345678-90ab-cdef-1234-567890abcdef",
                "images": {"bastion": "ami-1", "backend": "", "database": ""},
            }),
            &[
                "admin_cidrs needs at least one IPv4 block",
                "at least one person's public key",
                "must lie inside vpc_cidr (10.99.0.0/16)",
                "name must be 2 to 21 lower-case letters",
                "nat_gateway_max_hours must be a whole number",
                "request one in ap-south-1",
                "images.auto.tfvars.json",
            ],
        ),
        (
            json!({
                "admin_cidrs": ["203.0.113.7/24"], "domain": "api.example.org",
                "subnet_cidrs": {"management": "10.20.1.0/24", "backend": "10.20.2.0/24",
                    "database": "10.20.2.128/25", "edge": "10.20.4.0/24"},
            }),
            &[
                "written from its first address",
                "must not overlap: backend 10.20.2.0/24, database 10.20.2.128/25,",
                "give both for HTTPS, or neither",
            ],
        ),
        (
            json!({"admin_ssh_keys": {"mallory": private_key}, "tunnel_ssh_keys": {"malory": private_key}}),
            &[
                "admin_ssh_keys: not one line of an OpenSSH public key: mallory.",
                "tunnel_ssh_keys: not one line of an OpenSSH public key: malory.",
            ],
        ),
        (
            json!({"instance_types": {"bastion": "t3.micro", "backend": "t4g.small", "database": "t3.micro"}}),
            &["is x86_64: choose a type such as t3.micro, or publish an image for that processor"],
        ),
    ];
    for (wrong, named) in variables {
        stack.write("wrong.auto.tfvars.json", &wrong.to_string());
        assert_all_named(stack.terraform(&["plan"]), named);
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
