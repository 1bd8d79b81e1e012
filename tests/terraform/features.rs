//! What is off by default, against the emulator: TLS, the flow log, and what a plan says right after each.

use serde_json::{Value, json};

use super::{ADMIN_KEY, made, rows};
use crate::support::{Emulator, Stack, text};

const CERTIFICATE: &str =
    "arn:aws:acm:ap-south-1:123456789012:certificate/12345678-90ab-cdef-1234-567890abcdef";

/// One applied stack for everything, as in `a_stack_lives_from_apply_to_destroy`.
#[test]
fn features_come_and_go_and_every_plan_after_them_is_empty() {
    let emulator = Emulator::start();
    let stack = Stack::new(&emulator, ADMIN_KEY);
    let everything = json!({"certificate_arn": CERTIFICATE, "domain": "api.example.org", "flow_log_retention_days": 30});
    stack.write("features.auto.tfvars.json", &everything.to_string());
    stack.apply();
    assert_eq!(stack.plan(), [], "with everything on");

    let deployment = stack.output("deployment");
    assert_eq!(
        made::listeners(&emulator),
        ["443 HTTPS: forward", "80 HTTP: HTTP_301 to 443"]
            .map(str::to_owned)
            .into()
    );
    made::groups_are_the_flows_and_nothing_else(&emulator, &deployment);
    made::no_destroy_can_hang(&stack.state()[0]);
    outputs_lead_to_the_domain(&stack, &deployment);
    flow_log_is_written_by_a_role_of_its_own(&emulator, &deployment);

    // Without the certificate again, and with the window closed.
    stack.write("features.auto.tfvars.json", "{}");
    stack.write("nat.auto.tfvars.json", r#"{"nat_gateway": false}"#);
    stack.apply();
    assert_eq!(stack.plan(), [], "with everything off again");
    assert_eq!(
        made::listeners(&emulator),
        ["80 HTTP: forward".to_owned()].into()
    );
    let deployment = stack.output("deployment");
    made::groups_are_the_flows_and_nothing_else(&emulator, &deployment);
    assert_eq!(
        deployment["load_balancer"]["ready_url"],
        format!(
            "http://{}/ready",
            text(&deployment["load_balancer"]["dns_name"])
        )
    );
    let log = emulator.log();
    assert!(!log.contains("emulator: cannot do"), "{log}");
}

fn outputs_lead_to_the_domain(stack: &Stack, deployment: &Value) {
    let balancer = &deployment["load_balancer"];
    assert_eq!(
        (&balancer["url"], &balancer["ready_url"]),
        (
            &json!("https://api.example.org"),
            &json!("https://api.example.org/ready")
        )
    );
    assert_eq!(
        stack.output("docs_url"),
        json!("https://api.example.org/docs")
    );
    assert_eq!(
        stack.output("dns_record"),
        json!(format!(
            "CNAME api.example.org -> {}",
            text(&balancer["dns_name"])
        ))
    );
}

fn flow_log_is_written_by_a_role_of_its_own(emulator: &Emulator, deployment: &Value) {
    let logs = emulator.aws("ec2", "describe_flow_logs", json!({}));
    let log = &rows(&logs, "FlowLogs")[0];
    assert_eq!(
        (&log["ResourceId"], &log["TrafficType"]),
        (&deployment["vpc_id"], &json!("ALL"))
    );
    assert!(
        text(&log["LogDestination"]).ends_with("log-group:/drawbridge/vpc-flow-log"),
        "{log}"
    );
    let groups = emulator.aws("logs", "describe_log_groups", json!({}));
    assert_eq!(rows(&groups, "logGroups")[0]["retentionInDays"], 30);
    let policy = emulator.aws(
        "iam",
        "get_role_policy",
        json!({"RoleName": "drawbridge-flow-log", "PolicyName": "write-flow-log"}),
    );
    let policy = policy["PolicyDocument"].to_string();
    assert!(
        !policy.contains("CreateLogGroup") && policy.contains("log-group:/drawbridge/vpc-flow-log"),
        "{policy}"
    );
}
