//! What is refused, with nothing begun.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};

use super::stage::Stage;
use crate::support::{ACCOUNT, Outcome, REGION, deployment};

const BYTES: u64 = 64 << 20;

fn refused(stage: &Stage, outcome: &Outcome, said: &[&str]) {
    assert_eq!(outcome.code, Some(4), "{}", outcome.text);
    for said in said {
        assert!(outcome.text.contains(said), "{said}: {}", outcome.text);
    }
    assert_eq!(stage.changes(), [].into());
    assert!(!stage.path(".drawbridge").exists());
}

#[test]
fn what_is_no_whole_raw_disk_is_refused_before_anything_is_begun() {
    let stage = Stage::new();
    type Spoil = fn(&File);
    let spoilt: [(Spoil, &[&str]); 7] = [
        (
            |disk| disk.set_len(BYTES / 2).unwrap(),
            &["truncated", "image-info.json says 67108864"],
        ),
        (|disk| disk.set_len(0).unwrap(), &["is empty", "nix build"]),
        (
            |disk| disk.write_all_at(b"QFI\xfb", 0).unwrap(),
            &["a qcow2 image", "qemu-img convert -O raw"],
        ),
        (
            |mut disk| {
                std::io::Seek::seek(&mut disk, std::io::SeekFrom::End(-512)).unwrap();
                disk.write_all(b"conectix").unwrap();
            },
            &["a VHD image of fixed size", "qemu-img"],
        ),
        (
            |disk| disk.write_all_at(b"\x1f\x8b", 0).unwrap(),
            &["compressed with gzip", "unpack it"],
        ),
        (
            |disk| disk.write_all_at(&[0, 0], 510).unwrap(),
            &["no boot signature"],
        ),
        (
            |disk| disk.write_all_at(&[0; 64], 446).unwrap(),
            &["no partition table"],
        ),
    ];
    for (spoil, said) in spoilt {
        let good = stage.image("bastion", BYTES, &[], 1);
        let folder = stage.image("backend", BYTES, &[1, 2], 1);
        spoil(
            &File::options()
                .write(true)
                .open(folder.join("disk.img"))
                .unwrap(),
        );
        // The good one comes first, and is not begun either.
        let good = format!("bastion={}", good.display());
        refused(
            &stage,
            &stage.publish("backend", &folder, &["--image", &good]),
            said,
        );
    }
    let folder = stage.image("backend", BYTES, &[1], 1);
    refused(
        &stage,
        &stage.publish("database", &folder, &[]),
        &["holds the role backend"],
    );
    let arm = stage.publish("backend", &folder, &["--system", "aarch64-linux"]);
    refused(&stage, &arm, &["holds the system x86_64-linux"]);
    let twice = stage.publish("backend", &folder, &["--image", "backend=elsewhere"]);
    refused(&stage, &twice, &["two folders for one role"]);
    let disk = stage.publish("backend", &folder.join("disk.img"), &[]);
    refused(
        &stage,
        &disk,
        &["name the folder that `nix build .#ami-backend` makes"],
    );
    fs::write(folder.join("nix-support/image-info.json"), "{}").unwrap();
    refused(
        &stage,
        &stage.publish("backend", &folder, &[]),
        &["boot_mode is missing"],
    );
}

#[test]
fn a_disk_that_grows_while_it_is_read_is_refused() {
    let stage = Stage::new();
    let blocks: Vec<_> = (0..128).collect();
    let folder = stage.image("backend", BYTES, &blocks, 1);
    let file = folder.join("disk.img");
    let has_ended = AtomicBool::new(false);
    // A disk of the right size at first; the program is seen opening it, and then it grows.
    thread::scope(|threads| {
        threads.spawn(|| {
            let disk = File::options().write(true).open(&file).unwrap();
            let mut bytes = BYTES;
            while !has_ended.load(Ordering::Relaxed) {
                if stage.proxy.count("sts:GetCallerIdentity") > 0 {
                    bytes += 512;
                    disk.set_len(bytes).unwrap();
                }
                thread::yield_now();
            }
        });
        let outcome = stage.publish("backend", &folder, &[]);
        has_ended.store(true, Ordering::Relaxed);
        // Seen before, or while it was read.
        let said = if outcome.text.contains("changed while") {
            "nothing was begun"
        } else {
            "still growing"
        };
        refused(&stage, &outcome, &[said]);
    });
}

/// The type of a value as Terraform's state spells it.
fn kind(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kinds = fields
                .iter()
                .map(|(name, value)| (name.clone(), kind(value)));
            json!(["object", kinds.collect::<serde_json::Map<_, _>>()])
        }
        _ => json!("string"),
    }
}

#[test]
fn another_account_region_or_file_is_refused_before_anything_is_begun() {
    let stage = Stage::new();
    let folder = stage.image("backend", BYTES, &[1], 1);
    let deployed = |account: &str| {
        let mut value = deployment();
        value["account_id"] = json!(account);
        let state = json!({
            "version": 4, "terraform_version": "1.11.4", "serial": 1, "lineage": "l", "resources": [],
            "outputs": {"deployment": {"type": kind(&value), "value": value}},
        });
        stage.write("terraform/terraform.tfstate", &state.to_string());
    };
    stage.write("terraform/terraform.tfstate", "{");
    let unread = stage.run(&["prune", "--yes"]);
    assert_eq!(unread.code, Some(1), "{}", unread.text);
    assert!(unread.text.contains("state"), "{}", unread.text);
    deployed("999999999999");
    for command in [vec!["prune"], vec!["prune", "--yes"]] {
        let said = &[
            "belongs to AWS account 999999999999",
            "are for 123456789012",
        ];
        refused(&stage, &stage.run(&command), said);
    }
    let other = stage.publish("backend", &folder, &[]);
    refused(&stage, &other, &["belongs to AWS account 999999999999"]);
    deployed(ACCOUNT);
    let other = stage.publish("backend", &folder, &["--region", "us-east-1"]);
    refused(
        &stage,
        &other,
        &["drawbridge stands in ap-south-1, and --region says us-east-1"],
    );
    fs::remove_file(stage.path("terraform/terraform.tfstate")).unwrap();
    let wrong = stage.publish("backend", &folder, &["--region", "mumbai"]);
    refused(
        &stage,
        &wrong,
        &["`mumbai` (from --region) is not a code like ap-south-1"],
    );

    stage.write(
        "terraform/images.auto.tfvars.json",
        r#"{"images": {"backend": "ami"}}"#,
    );
    for outcome in [
        stage.publish("backend", &folder, &[]),
        stage.run(&["prune", "--yes"]),
    ] {
        refused(
            &stage,
            &outcome,
            &["images.backend is \"ami\"", "correct it"],
        );
    }
    fs::remove_file(stage.path("terraform/images.auto.tfvars.json")).unwrap();

    stage.proxy.fail("sts:*", "ExpiredToken");
    refused(
        &stage,
        &stage.publish("backend", &folder, &[]),
        &["have expired"],
    );
    stage.proxy.heal();
    // And nothing of all that keeps a right one.
    deployed(ACCOUNT);
    let mut command = stage.command(&["publish", "--json", "--image"]);
    command.arg(format!("backend={}", folder.display()));
    for name in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
        command.env_remove(name);
    }
    let said = crate::support::run(&mut command, super::stage::LIMIT).expect_success("publish");
    let report: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (&report["account"], &report["region"]),
        (&json!(ACCOUNT), &json!(REGION))
    );
}

#[test]
fn without_nix_an_image_that_is_not_given_is_refused_with_what_to_do() {
    let stage = Stage::new();
    let outcome = stage.run(&["publish", "--role", "database"]);
    assert_eq!(outcome.code, Some(1), "{}", outcome.text);
    assert!(
        outcome.text.contains("nix is not on the PATH"),
        "{}",
        outcome.text
    );
    assert!(
        outcome.text.contains("--image database=FOLDER"),
        "{}",
        outcome.text
    );
}
