//! What several tests need: a Postgres, a server, the AWS emulator, and a terraform that talks to it.

pub mod client;
mod emulator;
pub mod load;
mod operator;
mod ports;
pub mod postgres;
pub mod process;
pub mod provider;
mod proxy;
pub mod python;
mod ready;
pub mod redis;
pub mod server;
mod stack;
pub mod stub;
mod tty;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub use emulator::Emulator;
pub use operator::Operator;
pub use ports::free_port;
pub use proxy::Proxy;
pub use ready::always_ready;
pub use stack::Stack;
pub use tty::Tty;

/// The region everything is pretended in: the default of `terraform/`.
pub const REGION: &str = "ap-south-1";

/// What a command said and how it ended.
pub struct Outcome {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it printed to stdout.
    pub stdout: String,
    /// What it printed, stdout first and then stderr.
    pub text: String,
}

impl Outcome {
    /// The text on one line. Terraform wraps messages at 78 columns and draws a frame around them.
    pub fn one_line(&self) -> String {
        self.text
            .replace(['│', '╷', '╵'], " ")
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// What went to stdout, if the command ended with 0; fails the test with the text otherwise.
    pub fn expect_success(self, what: &str) -> String {
        assert_eq!(self.code, Some(0), "{what} failed:\n{}", self.text);
        self.stdout
    }
}

/// Asks `look` every 50 ms until it answers, for at most `limit`; then fails with the last thing seen.
pub fn eventually<T>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T, String>,
) -> T {
    let end = Instant::now() + limit;
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) => assert!(
                Instant::now() < end,
                "{what}: not within {limit:?}; last seen: {seen}"
            ),
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Runs `command` for at most `limit`; one that takes longer is killed and fails the test.
pub fn run(command: &mut Command, limit: Duration) -> Outcome {
    let [mut out, mut err] = [(); 2].map(|()| tempfile::tempfile().expect("a temporary file"));
    let stream = |file: &File| Stdio::from(file.try_clone().expect("the file, once more"));
    let mut child = Running(
        command
            .stdin(Stdio::null())
            .stdout(stream(&out))
            .stderr(stream(&err))
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}")),
    );
    let status = eventually(limit, &format!("the end of {command:?}"), || {
        child
            .0
            .try_wait()
            .expect("the child's status")
            .ok_or_else(|| "still running".to_owned())
    });
    let stdout = read_again(&mut out);
    Outcome {
        code: status.code(),
        text: format!("{stdout}{}", read_again(&mut err)),
        stdout,
    }
}

/// All that has been written to a file, wherever it stands.
pub fn read_again(file: &mut File) -> String {
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(0)).expect("a file's beginning");
    file.read_to_end(&mut text).expect("a readable file");
    String::from_utf8_lossy(&text).into_owned()
}

/// Copies `terraform/` as it is committed: not what somebody's own apply left there, such as state, images and variables,
/// and not where somebody keeps the state (`backend_override.tf`).
pub fn copy_terraform(target: &Path) {
    for entry in fs::read_dir(repository().join("terraform")).expect("terraform/") {
        let path = entry.expect("an entry of terraform/").path();
        let name = path
            .file_name()
            .and_then(OsStr::to_str)
            .expect("a readable file name");
        let is_committed = name.ends_with(".tf") && !name.ends_with("_override.tf")
            || ["flows.json", "nat.auto.tfvars.json", ".terraform.lock.hcl"].contains(&name);
        if is_committed {
            fs::copy(&path, target.join(name)).expect("a copy");
        }
    }
}

/// A child that does not outlive the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Fails only if it has ended already, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The text of a JSON string; empty for anything else.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The account of [`deployment`], and of every emulator.
pub const ACCOUNT: &str = "123456789012";

/// Terraform's output `deployment` while the window is closed.
pub fn deployment() -> Value {
    let host = |id: &str, ip: &str| json!({"instance_id": id, "private_ip": ip, "public_ip": "203.0.113.9", "image_id": "ami-1"});
    json!({
        "name": "drawbridge", "region": REGION, "account_id": ACCOUNT, "vpc_id": "vpc-1", "private_route_table_id": "rtb-1",
        "bastion": host("i-bastion", "10.20.1.5"), "backend": host("i-backend", "10.20.2.5"),
        "database": host("i-database", "10.20.3.10"), "database_volume_id": "vol-1",
        "load_balancer": {"dns_name": "lb", "url": "http://lb", "ready_url": "http://lb/ready"}, "nat_gateway": null,
    })
}

/// Where this repository is checked out.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Clears what could lead a command to somebody's real AWS account, or to their terraform settings.
fn without_cloud_settings(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        let shown = name.to_string_lossy();
        if shown.starts_with("AWS_") || shown.starts_with("TF_") || shown.starts_with("MOTO_") {
            command.env_remove(&name);
        }
    }
    command
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        .env("AWS_EC2_METADATA_DISABLED", "true")
}
