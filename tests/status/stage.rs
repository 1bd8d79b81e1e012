//! A deployment where all is well, until a test changes it: two real sshds, a `drawbridge-host` that prints a file, AWS
//! and the API played.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::bastion::sshd::Hosts;
use crate::support::{ACCOUNT, Operator, always_ready, stub};

const AWS: &str = r#"#!/bin/sh
cat "${0%/bin/aws}/aws-$2.json"
"#;

const TERRAFORM: &str = r#"#!/bin/sh
stage=${0%/bin/terraform}
case $1 in
  version) cat "$stage/version.json" ;;
  state) cat "$stage/state.json" ;;
  *) cat "$stage/deployment.json" ;;
esac
"#;

/// What the program is surrounded with.
pub struct Stage {
    pub hosts: Hosts,
    pub operator: Operator,
    sts: String,
    api: String,
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Stage {
    pub fn fine() -> Self {
        let hosts = Hosts::start_with(|folder| {
            let bin = folder.join("bin");
            fs::create_dir(&bin).unwrap();
            let path = std::env::var("PATH").unwrap();
            format!("SetEnv PATH={}:{path}\n", bin.display())
        });
        let operator = Operator::new(&hosts.access_to_all());
        let api = always_ready();
        let stage = Self {
            hosts,
            operator,
            sts: stub::serve(|_, _| Some(stub::identity(ACCOUNT))),
            api,
        };
        stage.operator.program("aws", AWS);
        stage.operator.program("terraform", TERRAFORM);
        stage.put("version.json", &json!({"terraform_version": "1.11.4"}));
        stage.put("state.json", &json!({"version": 4, "resources": []}));
        stage.put(
            "terraform/nat.auto.tfvars.json",
            &json!({"nat_gateway": false}),
        );
        let port: u16 = stage.api.rsplit(':').next().unwrap().parse().unwrap();
        stage.api_port(port);
        stage.aws("describe-nat-gateways", &json!({"NatGateways": []}));
        stage.aws("describe-addresses", &json!({"Addresses": []}));
        stage.aws(
            "describe-route-tables",
            &json!({"RouteTables": [{"Routes": []}]}),
        );
        stage.aws("describe-images", &images(&["ami-1"]));
        let instances: Vec<_> = ["i-bastion", "i-backend", "i-database"]
            .iter()
            .map(|id| json!([id, "running", "2026-11-20T10:00:00.000Z"]))
            .collect();
        stage.aws("describe-instances", &json!(instances));
        stage.says(&host());
        stage
    }

    pub fn put(&self, name: &str, value: &Value) {
        fs::write(self.operator.path().join(name), value.to_string()).unwrap();
    }

    /// What the `aws` command answers to this operation.
    pub fn aws(&self, operation: &str, answer: &Value) {
        self.put(&format!("aws-{operation}.json"), answer);
    }

    /// Where the backend's API listens.
    pub fn api_port(&self, port: u16) {
        let flow =
            json!([{"from": "load_balancer", "to": "backend", "port": port, "why": "requests"}]);
        self.put("terraform/flows.json", &flow);
    }

    fn host_program(&self) -> PathBuf {
        self.hosts.folder.path().join("bin/drawbridge-host")
    }

    /// What `drawbridge-host status` prints on every host.
    pub fn says(&self, status: &Value) {
        let file = self.hosts.folder.path().join("host.json");
        fs::write(&file, status.to_string()).unwrap();
        self.runs(&format!("#!/bin/sh\nexec cat '{}'\n", file.display()));
    }

    /// What `drawbridge-host` is on every host.
    pub fn runs(&self, script: &str) {
        let program = self.host_program();
        let _ = fs::remove_file(&program);
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The real one.
    pub fn runs_ours(&self) {
        let program = self.host_program();
        let _ = fs::remove_file(&program);
        symlink(env!("CARGO_BIN_EXE_drawbridge-host"), program).unwrap();
    }

    pub fn drawbridge(&self, arguments: &[&str]) -> Command {
        self.signing_in_with(&self.hosts.user_key(), arguments)
    }

    pub fn signing_in_with(&self, key: &Path, arguments: &[&str]) -> Command {
        let mut command = self.operator.drawbridge(key, arguments);
        command
            .env("AWS_ENDPOINT_URL_STS", &self.sts)
            .env("DRAWBRIDGE_URL", &self.api);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ended {
        ended(&mut self.drawbridge(arguments))
    }
}

pub fn ended(command: &mut Command) -> Ended {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended {
        status: output.status.code().unwrap_or(-1),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}

pub fn images(ids: &[&str]) -> Value {
    let today = time::OffsetDateTime::now_utc().date();
    let image = |id: &&str| json!({"ImageId": id, "Name": format!("name of {id}"), "State": "available", "CreationDate": format!("{today}T00:00:00.000Z")});
    json!({"Images": ids.iter().map(image).collect::<Vec<_>>()})
}

/// A host that has everything, and where all of it is well.
pub fn host() -> Value {
    let disk = json!({"total_bytes": 10_000_000_000_u64, "available_bytes": 6_000_000_000_u64});
    json!({
        "time": null, "version": "0.1.0",
        "bootstrap": {"instance_id": "i", "image_id": "ami-1", "role": "backend", "step": "complete",
            "started_at": "2026-11-20T10:00:00Z", "updated_at": "2026-11-20T10:01:00Z", "finished_at": null, "error": null},
        "system": {"booted": "/nix/store/aaa-nixos", "current": "/nix/store/aaa-nixos"},
        "uptime_seconds": 3600, "processors": 2, "load": [0.1, 0.2, 0.3],
        "memory": {"total_bytes": 1_000_000_000, "available_bytes": 600_000_000}, "root_disk": disk,
        "failed_units": [], "volume": disk,
        "api": {"state": "active", "since": "2026-11-20T10:00:00Z", "restarts": 0, "program": "/nix/store/bbb-api/bin/api"},
        "database": {"version": "17.6", "started_at": "2026-11-20T10:00:00Z", "size_bytes": 9_000_000, "connections": 9,
            "max_connections": 100, "is_in_recovery": false},
    })
}
