//! Publishing: what arrives, what is sent, and what a second run does.

use serde_json::{Value, json};

use super::stage::{BLOCK, Stage};
use crate::support::text;

/// Not a whole number of blocks.
const BYTES: u64 = (512 << 20) + 1024;

fn image(stage: &Stage, id: &Value) -> Value {
    let found = stage
        .emulator
        .aws("ec2", "describe_images", json!({"ImageIds": [id]}));
    found["Images"][0].clone()
}

fn tags(of: &Value) -> Value {
    let tags = of["Tags"].as_array().unwrap().iter();
    tags.map(|tag| (text(&tag["Key"]), tag["Value"].clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[test]
fn a_sparse_disk_arrives_byte_by_byte_and_no_zeros_are_sent() {
    let stage = Stage::new();
    let blocks = [1, 2, 3, 99, 100, 511, 700, 1022, 1024];
    let folder = stage.image("backend", BYTES, &blocks, 1);
    // Zeros that are written and no hole.
    let disk = std::fs::File::options()
        .write(true)
        .open(folder.join("disk.img"))
        .unwrap();
    std::os::unix::fs::FileExt::write_all_at(&disk, &vec![0; 3 * BLOCK as usize], 300 * BLOCK)
        .unwrap();
    stage.write(
        "terraform/images.auto.tfvars.json",
        r#"{"images": {"database": "ami-00000001"}}"#,
    );

    let one = stage.published("backend", &folder, &[]);
    let sent = blocks.len() + 1;
    assert_eq!(
        (&one["outcome"], &one["sent"]),
        (&json!("uploaded"), &json!(sent)),
        "{one}"
    );
    let wanted = [
        ("ebs:CompleteSnapshot", 1),
        ("ebs:PutSnapshotBlock", sent),
        ("ebs:StartSnapshot", 1),
        ("ec2:RegisterImage", 1),
    ];
    assert_eq!(
        stage.changes(),
        wanted.map(|(call, times)| (call.to_owned(), times)).into()
    );
    let snapshot = text(&one["snapshot"]);
    assert_eq!(stage.compare(&snapshot, &folder), sent);

    let made = image(&stage, &one["image"]);
    for (field, value) in [
        ("Architecture", json!("x86_64")),
        ("BootMode", json!("legacy-bios")),
        ("EnaSupport", json!(true)),
        ("ImdsSupport", json!("v2.0")),
        ("RootDeviceName", json!("/dev/xvda")),
        ("RootDeviceType", json!("ebs")),
        ("VirtualizationType", json!("hvm")),
    ] {
        assert_eq!(made[field], value, "{made:#}");
    }
    let disk = &made["BlockDeviceMappings"][0];
    assert_eq!(disk["DeviceName"], "/dev/xvda");
    let wanted = json!({"SnapshotId": snapshot, "VolumeType": "gp3", "DeleteOnTermination": true});
    for (field, value) in wanted.as_object().unwrap() {
        assert_eq!(&disk["Ebs"][field], value, "{disk:#}");
    }
    let lock: Value = serde_json::from_str(include_str!("../../flake.lock")).unwrap();
    let wanted = json!({
        "Name": made["Name"], "Project": "drawbridge", "drawbridge:role": "backend",
        "drawbridge:system": "x86_64-linux", "drawbridge:content": one["content"],
        // The folder is no repository.
        "drawbridge:commit": "unknown", "drawbridge:nixpkgs": lock["nodes"]["nixpkgs"]["locked"]["rev"],
        "drawbridge:label": "26.05.test",
    });
    assert_eq!(tags(&made), wanted);
    let found = stage.emulator.aws(
        "ec2",
        "describe_snapshots",
        json!({"SnapshotIds": [snapshot]}),
    );
    assert_eq!(tags(&found["Snapshots"][0]), wanted);
    assert_eq!(found["Snapshots"][0]["VolumeSize"], 1);
    let wanted = json!({"images": {"backend": one["image"], "database": "ami-00000001"}});
    assert_eq!(stage.variables(), wanted);

    what_stands_already_is_used(&stage, &one);
}

fn what_stands_already_is_used(stage: &Stage, one: &Value) {
    // The same bytes in a file of its own, without holes.
    let before = stage.path("result-backend/disk.img");
    let copy = stage.path("copy.img");
    let mut dd = std::process::Command::new("cp");
    assert!(
        dd.arg("--sparse=never")
            .args([&before, &copy])
            .status()
            .unwrap()
            .success()
    );
    std::fs::rename(copy, &before).unwrap();
    let folder = stage.path("result-backend");
    stage.proxy.forget();
    let again = stage.published("backend", &folder, &[]);
    assert_eq!(
        (&again["outcome"], &again["image"]),
        (&json!("existed"), &one["image"])
    );
    assert_eq!(stage.changes(), [].into());

    stage
        .emulator
        .aws("ec2", "deregister_image", json!({"ImageId": one["image"]}));
    let anew = stage.published("backend", &folder, &[]);
    assert_eq!(
        (&anew["outcome"], &anew["snapshot"]),
        (&json!("registered"), &one["snapshot"])
    );
    assert_ne!(anew["image"], one["image"]);
    assert_eq!(
        stage.changes(),
        [("ec2:RegisterImage".to_owned(), 1)].into()
    );
    assert_eq!(stage.variables()["images"]["backend"], anew["image"]);
    assert_eq!(stage.snapshots().len(), 1);
}
