//! Pruning: what goes, what never goes, and an end in the middle.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::stage::{LIMIT, Stage};
use crate::support::{run, text};

/// Makes images as publishing does, a second apart, because EC2 shows when by the second. Prints image and snapshot.
const PLANT: &str = r#"
import base64, boto3, hashlib, json, sys, time
ebs, ec2 = boto3.client("ebs"), boto3.client("ec2")
block = b"x" * 524288
check = base64.b64encode(hashlib.sha256(block).digest()).decode()
made = []
for number, (role, system, project) in enumerate(json.loads(sys.argv[1])):
    tags = {"Project": project, "drawbridge:role": role, "drawbridge:system": system, "drawbridge:content": str(number)}
    tags = [{"Key": key, "Value": value} for key, value in tags.items() if value]
    snapshot = ebs.start_snapshot(VolumeSize=1, Tags=tags, ClientToken=f"plant-{number}")["SnapshotId"]
    ebs.put_snapshot_block(SnapshotId=snapshot, BlockIndex=0, BlockData=block, DataLength=524288, Checksum=check, ChecksumAlgorithm="SHA256")
    ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=1)
    for _ in range(2):
        ec2.describe_snapshots(SnapshotIds=[snapshot])
    image = ec2.register_image(
        Name=f"planted-{number}", Architecture="x86_64", RootDeviceName="/dev/xvda",
        BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot}}],
        TagSpecifications=[{"ResourceType": "image", "Tags": tags}])["ImageId"]
    made.append([image, snapshot])
    time.sleep(1)
print(json.dumps(made))
"#;

type Planted = Vec<(String, String)>;

fn plant(stage: &Stage, images: &[(&str, &str, &str)]) -> Planted {
    let mut python = stage.emulator.python(PLANT);
    python.arg(json!(images).to_string());
    let said = run(&mut python, LIMIT).expect_success("planting");
    serde_json::from_str(&said).unwrap()
}

fn prune(stage: &Stage, more: &[&str]) -> Value {
    let arguments = [&["prune", "--json"], more].concat();
    let said = stage
        .run(&arguments)
        .expect_success("drawbridge image prune");
    serde_json::from_str(&said).unwrap()
}

fn images(stage: &Stage) -> BTreeSet<String> {
    let found = stage
        .emulator
        .aws("ec2", "describe_images", json!({"Owners": ["self"]}));
    let found = found["Images"].as_array().unwrap().iter();
    found.map(|image| text(&image["ImageId"])).collect()
}

fn snapshots(stage: &Stage) -> BTreeSet<String> {
    let found = stage
        .emulator
        .aws("ec2", "describe_snapshots", json!({"OwnerIds": ["self"]}));
    let found = found["Snapshots"].as_array().unwrap().iter();
    found.map(|one| text(&one["SnapshotId"])).collect()
}

#[test]
fn old_images_go_with_their_snapshots_and_none_that_is_used_or_not_ours() {
    let stage = Stage::new();
    let ours = ("backend", "x86_64-linux", "drawbridge");
    // The last is the newest.
    let planted = plant(
        &stage,
        &[
            ("backend", "x86_64-linux", ""),
            ("backend", "x86_64-linux", "somebody"),
            ours,
            ours,
            ours,
            ours,
            ours,
            ours,
            ("backend", "aarch64-linux", "drawbridge"),
            ours,
        ],
    );
    let id = |number: usize| planted[number].0.clone();
    let launch = |image: &str| {
        let asked = json!({"ImageId": image, "MinCount": 1, "MaxCount": 1});
        let made = stage.emulator.aws("ec2", "run_instances", asked);
        text(&made["Instances"][0]["InstanceId"])
    };
    let stopped = launch(&id(2));
    stage
        .emulator
        .aws("ec2", "stop_instances", json!({"InstanceIds": [stopped]}));
    let terminated = launch(&id(3));
    stage.emulator.aws(
        "ec2",
        "terminate_instances",
        json!({"InstanceIds": [terminated]}),
    );
    let template =
        json!({"LaunchTemplateName": "planted", "LaunchTemplateData": {"ImageId": id(4)}});
    let template = stage
        .emulator
        .aws("ec2", "create_launch_template", template);
    let template = text(&template["LaunchTemplate"]["LaunchTemplateId"]);
    let listed = json!({"images": {"backend": id(5)}}).to_string();
    stage.write("terraform/images.auto.tfvars.json", &listed);
    let (before, disks) = (images(&stage), snapshots(&stage));

    stage.proxy.forget();
    let shown = prune(&stage, &["--keep", "1"]);
    assert_eq!(shown["is_done"], false);
    let plan = &shown["plan"];
    let going: BTreeSet<_> = plan["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (text(&one["image"]), one["snapshots"].clone()))
        .map(|(image, snapshots)| (image, text(&snapshots[0])))
        .collect();
    let wanted = [3, 6, 7].map(|number: usize| planted[number].clone());
    assert_eq!(going, BTreeSet::from(wanted.clone()), "{plan:#}");
    let why = |image: &str| {
        let mut kept = plan["kept"].as_array().unwrap().iter();
        let found = kept.find(|kept| kept["image"] == image);
        found.map(|kept| text(&kept["why"])).unwrap_or_default()
    };
    for (number, said) in [
        (2, format!("used by {stopped}")),
        (4, format!("used by {template}, {template}")),
        (5, "used by images.auto.tfvars.json".to_owned()),
        (8, "one of the 1 newest".to_owned()),
        (9, "one of the 1 newest".to_owned()),
        (0, String::new()),
        (1, String::new()),
    ] {
        assert_eq!(why(&id(number)), said, "{number}: {plan:#}");
    }
    assert_eq!(
        (images(&stage), snapshots(&stage)),
        (before.clone(), disks.clone())
    );
    assert_eq!(stage.changes(), [].into());

    // Ended between an image and its snapshot: the next run finds it.
    stage
        .proxy
        .fail("ec2:DeleteSnapshot", "UnauthorizedOperation");
    let ended = stage.run(&["prune", "--keep", "1", "--yes"]);
    assert_eq!(ended.code, Some(1), "{}", ended.text);
    stage.proxy.heal();
    assert_eq!(
        (images(&stage).len(), snapshots(&stage)),
        (before.len() - 1, disks.clone())
    );
    let done = prune(&stage, &["--keep", "1", "--yes"]);
    assert_eq!(done["is_done"], true);
    let left = &done["plan"]["snapshots"];
    assert_eq!(left.as_array().unwrap().len(), 1, "{left}");
    assert_eq!(left[0]["why"], "its image was removed by an earlier prune");
    let without = |all: &BTreeSet<String>, gone: Vec<&String>| -> BTreeSet<String> {
        all.iter()
            .filter(|one| !gone.contains(one))
            .cloned()
            .collect()
    };
    assert_eq!(
        images(&stage),
        without(&before, wanted.iter().map(|one| &one.0).collect())
    );
    assert_eq!(
        snapshots(&stage),
        without(&disks, wanted.iter().map(|one| &one.1).collect())
    );
    let text = stage
        .run(&["prune", "--keep", "1", "--yes"])
        .expect_success("prune again");
    assert!(text.contains("nothing to remove"), "{text}");
}

#[test]
fn an_upload_that_never_ended_is_offered_once_it_is_old() {
    let stage = Stage::new();
    let folder = stage.image("backend", 8 << 20, &[1], 1);
    stage.publish_but_complete("backend", &folder);
    stage.proxy.heal();
    let plan = |more: &[&str]| prune(&stage, more)["plan"]["snapshots"].clone();
    assert_eq!(plan(&[]), json!([]));
    let old = plan(&["--unfinished-after", "0s", "--yes"]);
    assert_eq!(old[0]["why"], "an upload that never ended");
    assert_eq!(stage.snapshots(), []);
}

#[test]
fn a_kind_of_use_that_cannot_be_looked_at_ends_it() {
    let stage = Stage::new();
    for look in [
        "ec2:DescribeInstances",
        "ec2:DescribeLaunchTemplateVersions",
    ] {
        stage.proxy.fail(look, "UnauthorizedOperation");
        let outcome = stage.run(&["prune", "--yes"]);
        assert_eq!(outcome.code, Some(1), "{}", outcome.text);
        assert!(outcome.text.contains("not allowed"), "{}", outcome.text);
        stage.proxy.heal();
    }
    assert_eq!(stage.changes(), [].into());
}
