//! The emulator's own promises, as far as an apply does not show them.

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::{Emulator, text};

#[test]
fn an_action_the_emulator_lacks_fails_at_once_and_is_logged_without_its_parameters() {
    let emulator = Emulator::start();
    let parameters = json!({"Description": "planted-parameter"});
    let refused = emulator.call("ec2", "import_snapshot", &parameters);
    assert_ne!(refused.code, Some(0));
    // boto3 tries a 5xx four times more; this answer names the action and is final.
    assert!(
        refused
            .text
            .contains("the AWS emulator cannot do ec2:ImportSnapshot"),
        "{}",
        refused.text
    );
    let log = emulator.log();
    assert_eq!(
        log.matches("emulator: cannot do ec2:ImportSnapshot")
            .count(),
        1,
        "{log}"
    );
    assert!(!log.contains("planted-parameter"), "{log}");
}

#[test]
fn elastic_ips_are_distinct_and_a_released_one_does_not_come_back_at_once() {
    let emulator = Emulator::start();
    let allocate = || emulator.aws("ec2", "allocate_address", json!({"Domain": "vpc"}));
    let (first, second) = (allocate(), allocate());
    emulator.aws(
        "ec2",
        "release_address",
        json!({"AllocationId": first["AllocationId"]}),
    );
    let addresses = [&first, &second, &allocate()].map(|made| text(&made["PublicIp"]));
    assert!(
        addresses.iter().all(|ip| ip.starts_with("198.51.100.")),
        "{addresses:?}"
    );
    assert_eq!(
        addresses.iter().collect::<BTreeSet<_>>().len(),
        3,
        "{addresses:?}"
    );
}
