//! A folder with a deployment's files, images made of nothing, the emulator, and a proxy that counts.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::python::path_with_aws;
use crate::support::{Emulator, Outcome, Proxy, REGION, repository, run};

/// EBS's.
pub const BLOCK: u64 = 512 * 1024;

/// A dozen commands of a second or three each, and hundreds of blocks, on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(900);

/// Writes a snapshot's blocks where they belong into a file, as a volume made of it would have them.
const DOWNLOAD: &str = "
import boto3, sys
snapshot, path, size = sys.argv[1:]
ebs = boto3.client('ebs')
answer = ebs.list_snapshot_blocks(SnapshotId=snapshot)
assert answer['BlockSize'] == 524288, answer['BlockSize']
with open(path, 'wb') as disk:
    disk.truncate(int(size))
    for block in answer['Blocks']:
        index, token = int(block['BlockIndex']), block['BlockToken']
        got = ebs.get_snapshot_block(SnapshotId=snapshot, BlockIndex=index, BlockToken=token)
        data = got['BlockData'].read()
        assert len(data) == 524288 and any(data), (index, len(data))
        disk.seek(index * 524288)
        disk.write(data)
print(len(answer['Blocks']))
";

pub struct Stage {
    pub emulator: Emulator,
    pub proxy: Proxy,
    /// The emulator by way of the proxy.
    pub watched: Emulator,
    folder: TempDir,
}

impl Stage {
    pub fn new() -> Self {
        let emulator = Emulator::start();
        let proxy = Proxy::start(&emulator);
        let watched = emulator.through(&proxy);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let stage = Self {
            emulator,
            proxy,
            watched,
            folder,
        };
        fs::create_dir(stage.path("terraform")).unwrap();
        stage.write("terraform/main.tf", "");
        stage.write("flake.nix", "{}");
        fs::copy(repository().join("flake.lock"), stage.path("flake.lock")).unwrap();
        stage
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    /// A folder as `nix build .#ami-ROLE` makes it, with a sparse disk of `bytes` that has something in `blocks`.
    pub fn image(&self, role: &str, bytes: u64, blocks: &[u64], seed: u8) -> PathBuf {
        let folder = self.path(&format!("result-{role}"));
        fs::create_dir_all(folder.join("nix-support")).unwrap();
        let file = File::create(folder.join("disk.img")).unwrap();
        file.set_len(bytes).unwrap();
        let mut sector = [0; 512];
        sector[446 + 4] = 0x83;
        sector[446 + 8] = 1;
        sector[446 + 12] = 1;
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        sector[0] = seed;
        file.write_all_at(&sector, 0).unwrap();
        for block in blocks {
            let start = block * BLOCK;
            let length = BLOCK.min(bytes - start);
            // No two blocks are alike, and none is like another seed's.
            let mut state = (block + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(seed);
            let data: Vec<u8> = (0..length)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state as u8
                })
                .collect();
            let skip = if *block == 0 { 512 } else { 0 };
            file.write_all_at(&data[skip..], start + skip as u64)
                .unwrap();
        }
        let info = json!({
            "label": "26.05.test", "boot_mode": "legacy-bios", "system": "x86_64-linux", "role": role,
            "file": "disk.img", "logical_bytes": bytes,
        });
        fs::write(folder.join("nix-support/image-info.json"), info.to_string()).unwrap();
        folder
    }

    /// The program, in the folder, with the `aws` command of the rehearsal.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.watched.command(env!("CARGO_BIN_EXE_drawbridge"));
        command
            .arg("image")
            .args(arguments)
            .env("PATH", path_with_aws())
            .env("DRAWBRIDGE_TERRAFORM_DIR", self.path("terraform"))
            .current_dir(self.folder.path());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Outcome {
        run(&mut self.command(arguments), LIMIT)
    }

    /// Publishes one image, with `more` options.
    pub fn publish(&self, role: &str, folder: &Path, more: &[&str]) -> Outcome {
        let image = format!("{role}={}", folder.display());
        self.run(&[&["publish", "--json", "--image", &image], more].concat())
    }

    /// Publishes one image up to the completion of its snapshot, which fails until the proxy is healed.
    pub fn publish_but_complete(&self, role: &str, folder: &Path) {
        self.proxy
            .fail("ebs:CompleteSnapshot", "UnauthorizedOperation");
        assert_eq!(self.publish(role, folder, &[]).code, Some(1));
    }

    /// As [`Stage::publish`], which is to succeed: its one image.
    pub fn published(&self, role: &str, folder: &Path, more: &[&str]) -> Value {
        let outcome = self.publish(role, folder, more);
        let shown = outcome.text.clone();
        let said = outcome.expect_success("drawbridge image publish");
        let report: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {shown}"));
        assert_eq!(report["region"], REGION);
        report["images"][0].clone()
    }

    /// What `images.auto.tfvars.json` says, if it is there.
    pub fn variables(&self) -> Value {
        let text = fs::read_to_string(self.path("terraform/images.auto.tfvars.json"));
        text.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap())
    }

    /// Reads all blocks of a snapshot and sees that they make the same disk. How many blocks it has.
    pub fn compare(&self, snapshot: &str, image: &Path) -> usize {
        let disk = image.join("disk.img");
        let bytes = fs::metadata(&disk).unwrap().len();
        let back = self.path("read-back.img");
        let mut python = self.emulator.python(DOWNLOAD);
        python.arg(snapshot).arg(&back).arg(bytes.to_string());
        let said = run(&mut python, LIMIT).expect_success("reading the blocks back");
        // The last block may end behind the disk; what is there is zeros.
        let got = File::open(&back).unwrap();
        let wanted = File::open(&disk).unwrap();
        let beyond = got.metadata().unwrap().len() - bytes;
        assert!(beyond < BLOCK);
        let mut at = 0;
        let (mut left, mut right) = (vec![0; BLOCK as usize], vec![0; BLOCK as usize]);
        while at < bytes {
            let length = BLOCK.min(bytes - at) as usize;
            got.read_exact_at(&mut left[..length], at).unwrap();
            wanted.read_exact_at(&mut right[..length], at).unwrap();
            assert!(
                left[..length] == right[..length],
                "block {} differs",
                at / BLOCK
            );
            at += BLOCK;
        }
        let mut rest = Vec::new();
        use std::io::Seek as _;
        let mut got = got;
        got.seek(std::io::SeekFrom::Start(bytes)).unwrap();
        got.read_to_end(&mut rest).unwrap();
        assert!(rest.iter().all(|byte| *byte == 0));
        fs::remove_file(back).unwrap();
        said.trim().parse().unwrap()
    }

    /// Calls that change something, by name.
    pub fn changes(&self) -> BTreeMap<String, usize> {
        let calls = self.proxy.calls().into_iter();
        calls
            .filter(|(call, _)| !call.contains(":Describe") && call != "sts:GetCallerIdentity")
            .collect()
    }

    /// The project's snapshots as EC2 shows them: id and state.
    pub fn snapshots(&self) -> Vec<(String, String)> {
        let filter = json!([{"Name": "tag:Project", "Values": ["drawbridge"]}]);
        let found = self
            .emulator
            .aws("ec2", "describe_snapshots", json!({"Filters": filter}));
        let found = found["Snapshots"].as_array().unwrap().iter();
        found
            .map(|one| {
                let text = |field: &str| one[field].as_str().unwrap().to_owned();
                (text("SnapshotId"), text("State"))
            })
            .collect()
    }
}
