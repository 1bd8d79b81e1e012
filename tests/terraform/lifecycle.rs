//! What outlives what: the database's volume its instance and its deployment, one deployment its neighbour.

use std::thread;

use serde_json::{Value, json};

use super::{ADMIN_KEY, leftovers, rows};
use crate::support::{Emulator, Stack, text};

/// The names are nasty: `drawbridge` calls its gateway's address drawbridge-nat, and every name of the second begins
/// with the first's.
#[test]
fn the_volume_outlives_instance_and_deployment_and_a_neighbour_notices_nothing() {
    let emulator = Emulator::start();
    let [stack, neighbour] = ["drawbridge", "drawbridge-nat"].map(|name| {
        let stack = Stack::new(&emulator, ADMIN_KEY);
        stack.write("name.auto.tfvars.json", &json!({"name": name}).to_string());
        stack
    });
    at_once(|| stack.apply(), || neighbour.apply());

    let volume = text(&stack.output("deployment")["database_volume_id"]);
    let first = text(&stack.output("deployment")["database"]["instance_id"]);
    assert_eq!(attached_to(&emulator, &volume), first);
    stack
        .terraform(&["apply", "-auto-approve", "-replace=aws_instance.database"])
        .expect_success("replacing the database");
    let second = text(&stack.output("deployment")["database"]["instance_id"]);
    assert_ne!(second, first);
    assert_eq!(
        attached_to(&emulator, &volume),
        second,
        "the new instance has the same volume"
    );

    let standing = stack.resources();
    let refused = stack.terraform(&["destroy", "-auto-approve"]);
    assert_eq!(refused.code, Some(1), "{}", refused.text);
    let said = refused.one_line();
    assert!(
        said.contains("aws_ebs_volume.database") && said.contains("prevent_destroy"),
        "{said}"
    );
    assert_eq!(
        stack.resources(),
        standing,
        "the refused destroy took something"
    );

    let said = stack
        .script("destroy.sh", &["-auto-approve"])
        .expect_success("scripts/destroy.sh");
    assert!(
        said.contains(&format!("import aws_ebs_volume.database {volume}")),
        "{said}"
    );
    assert!(stack.resources().is_empty());
    assert_eq!(
        attached_to(&emulator, &volume),
        "",
        "the volume stands by itself"
    );
    assert_eq!(neighbour.plan(), [], "the neighbour lost something");

    let take_up_again = || {
        stack
            .terraform(&["import", "aws_ebs_volume.database", &volume])
            .expect_success("terraform import");
        stack.apply();
    };
    at_once(take_up_again, || neighbour.destroy());
    assert_eq!(stack.plan(), [], "after the neighbour is gone");
    let third = text(&stack.output("deployment")["database"]["instance_id"]);
    assert_eq!(
        attached_to(&emulator, &volume),
        third,
        "the new deployment has the old volume"
    );

    stack.destroy();
    assert_eq!(leftovers(&emulator), Vec::<String>::new());
}

/// Both spend most of their time in the provider's own waits.
fn at_once(one: impl FnOnce() + Send, other: impl FnOnce()) {
    thread::scope(|scope| {
        let one = scope.spawn(one);
        other();
        one.join().expect("the other one, on a thread");
    });
}

/// The instance that has the volume; empty if none has. Fails if there is no such volume.
fn attached_to(emulator: &Emulator, volume: &str) -> String {
    let found = emulator.aws("ec2", "describe_volumes", json!({"VolumeIds": [volume]}));
    let attachments = rows(&rows(&found, "Volumes")[0], "Attachments");
    attachments
        .first()
        .map_or(String::new(), |attachment: &Value| {
            text(&attachment["InstanceId"])
        })
}
