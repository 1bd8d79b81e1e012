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

#[test]
fn a_registered_image_keeps_its_architecture_and_tags() {
    let emulator = Emulator::start();
    let tags = json!([{"Key": "Role", "Value": "backend"}]);
    let image = emulator.aws(
        "ec2",
        "register_image",
        json!({"Name": "arm", "Architecture": "arm64", "RootDeviceName": "/dev/xvda",
            "TagSpecifications": [{"ResourceType": "image", "Tags": tags}]}),
    );
    let of = |architecture: &str| {
        let filters = json!({"Owners": ["self"], "Filters": [
            {"Name": "image-id", "Values": [image["ImageId"]]},
            {"Name": "architecture", "Values": [architecture]},
        ]});
        emulator.aws("ec2", "describe_images", filters)["Images"].clone()
    };
    assert_eq!(of("arm64")[0]["Tags"], tags);
    assert_eq!(of("x86_64"), json!([]));
}
