//! A folder in which `drawbridge` finds a terraform directory, a `terraform` and an `aws` of ours, and SSM on a port.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

/// Plays terraform: answers from files, writes down what it was asked, and closes the window when it applies.
const TERRAFORM: &str = r#"#!/usr/bin/env bash
set -u
stage=${0%/bin/terraform}
printf '%s\n' "$*" >>"$stage/calls"
case $1 in
  output)
    cat "$stage/deployment.json"
    ;;
  plan)
    for argument; do
      case $argument in -out=*) printf plan >"${argument#-out=}" ;; esac
    done
    cat "$stage/plan.jsonl"
    [[ ! -s $stage/plan.jsonl ]] || exit 2
    ;;
  apply)
    if [[ -e $stage/apply-fails ]]; then
      printf '%s\n' '{"type":"diagnostic","diagnostic":{"severity":"error","summary":"no such luck","detail":""}}'
      exit 1
    fi
    if [[ -e $stage/apply-hangs ]]; then
      trap 'printf interrupted >"$stage/interrupted"; exit 1' INT
      printf started >"$stage/started"
      for _ in $(seq 200); do sleep 0.1; done
    fi
    cp "$stage/closed.json" "$stage/deployment.json"
    printf '{"NatGateways":[{"NatGatewayId":"nat-1","State":"deleted","CreateTime":"2026-11-20T10:00:00Z",' >"$stage/gateways.json"
    printf '"DeleteTime":"2026-11-20T11:30:00Z","Tags":[{"Key":"NatWindow","Value":"drawbridge"}]}]}' >>"$stage/gateways.json"
    printf '{"Addresses":[]}' >"$stage/addresses.json"
    : >"$stage/plan.jsonl"
    ;;
  *) exit 9 ;;
esac
"#;

/// Plays the `aws` command.
const AWS: &str = r#"#!/usr/bin/env bash
stage=${0%/bin/aws}
case $2 in
  describe-nat-gateways) cat "$stage/gateways.json" ;;
  describe-addresses) cat "$stage/addresses.json" ;;
  *) exit 9 ;;
esac
"#;

/// What the program is surrounded with.
pub struct Stage {
    folder: tempfile::TempDir,
    endpoint: String,
    parameters: Arc<Mutex<Value>>,
}

impl Stage {
    /// An open window whose hosts are complete.
    pub fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::create_dir_all(path.join("bin")).unwrap();
        fs::create_dir_all(path.join("terraform")).unwrap();
        for (name, text) in [("terraform", TERRAFORM), ("aws", AWS)] {
            let file = path.join("bin").join(name);
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(path.join("terraform/main.tf"), "").unwrap();
        let parameters = Arc::new(Mutex::new(json!({})));
        let endpoint = serve(Arc::clone(&parameters));
        let stage = Self {
            folder,
            endpoint,
            parameters,
        };
        stage.position("{\"nat_gateway\": true}\n");
        let gateway =
            json!({"id": "nat-1", "public_ip": "203.0.113.10", "allocation_id": "eipalloc-1"});
        stage.put("deployment.json", &deployment(&gateway).to_string());
        stage.put("closed.json", &deployment(&Value::Null).to_string());
        stage.put(
            "gateways.json",
            &gateways(&[("nat-1", "available", true)]).to_string(),
        );
        stage.put(
            "addresses.json",
            r#"{"Addresses":[{"PublicIp":"203.0.113.10","AllocationId":"eipalloc-1"}]}"#,
        );
        stage.plan(&[
            ("aws_scheduler_schedule.nat_deadline[0]", "delete"),
            ("aws_route.private_internet[0]", "delete"),
            ("aws_nat_gateway.main[0]", "delete"),
            ("aws_eip.nat[0]", "delete"),
        ]);
        stage.report("backend", "i-backend", "complete");
        stage.report("database", "i-database", "complete");
        for host in ["bastion", "backend", "database"] {
            stage.parameter(&format!("hosts/{host}/ssh-host-key"), "pending");
        }
        stage
    }

    /// A window that is closed in all three places.
    pub fn closed() -> Self {
        let stage = Self::open();
        stage.position("{\"nat_gateway\": false}\n");
        fs::copy(
            stage.path().join("closed.json"),
            stage.path().join("deployment.json"),
        )
        .unwrap();
        stage.put("gateways.json", r#"{"NatGateways":[]}"#);
        stage.put("addresses.json", r#"{"Addresses":[]}"#);
        stage
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn put(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }

    pub fn position(&self, text: &str) {
        self.put("terraform/nat.auto.tfvars.json", text);
    }

    pub fn position_now(&self) -> String {
        fs::read_to_string(self.path().join("terraform/nat.auto.tfvars.json")).unwrap()
    }

    /// Gateways of the VPC: id, state, whether the window's tag is on it.
    pub fn gateways(&self, list: &[(&str, &str, bool)]) {
        self.put("gateways.json", &gateways(list).to_string());
    }

    /// What the next plan wants.
    pub fn plan(&self, changes: &[(&str, &str)]) {
        let line = |(address, action): &(&str, &str)| {
            let kind = address.split('.').next().unwrap();
            let resource = json!({"addr": address, "resource_type": kind});
            json!({"type": "planned_change", "change": {"resource": resource, "action": action}})
                .to_string()
                + "\n"
        };
        self.put("plan.jsonl", &changes.iter().map(line).collect::<String>());
    }

    pub fn parameter(&self, name: &str, value: &str) {
        self.parameters.lock().unwrap()[format!("/drawbridge/{name}")] = json!(value);
    }

    pub fn report(&self, host: &str, instance: &str, step: &str) {
        let report = json!({
            "instance_id": instance, "image_id": "ami-1", "role": host, "step": step, "started_at": "2026-11-20T10:00:00Z",
            "updated_at": "2026-11-20T10:01:00Z", "finished_at": null, "error": null,
        });
        self.parameter(&format!("hosts/{host}/bootstrap"), &report.to_string());
    }

    /// The subcommands terraform was asked for, in order.
    pub fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path().join("calls")).unwrap_or_default();
        text.lines()
            .map(|line| line.split(' ').next().unwrap().to_owned())
            .collect()
    }

    pub fn drawbridge(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_drawbridge"));
        let path = format!(
            "{}:{}",
            self.path().join("bin").display(),
            std::env::var("PATH").unwrap()
        );
        command
            .args(arguments)
            .current_dir(self.path())
            .env("PATH", path)
            .env("HOME", self.path())
            .env("AWS_ENDPOINT_URL", &self.endpoint)
            .env("AWS_ACCESS_KEY_ID", "testing")
            .env("AWS_SECRET_ACCESS_KEY", "testing")
            .env("DRAWBRIDGE_URL", &self.endpoint)
            .env_remove("DRAWBRIDGE_TERRAFORM_DIR")
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs `drawbridge nat …` to its end.
    pub fn nat(&self, arguments: &[&str]) -> Ended {
        let arguments: Vec<_> = ["nat"].iter().chain(arguments).copied().collect();
        Ended::from(self.drawbridge(&arguments).output().unwrap())
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self {
            status: output.status.code().unwrap(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

fn deployment(gateway: &Value) -> Value {
    let host = |id: &str, ip: &str| json!({"instance_id": id, "private_ip": ip, "public_ip": "203.0.113.9", "image_id": "ami-1"});
    json!({
        "name": "drawbridge", "region": "ap-south-1", "vpc_id": "vpc-1", "bastion": host("i-bastion", "10.20.1.5"),
        "backend": host("i-backend", "10.20.2.5"), "database": host("i-database", "10.20.3.10"),
        "load_balancer": {"dns_name": "lb", "url": "http://lb"}, "nat_gateway": gateway,
    })
}

fn gateways(list: &[(&str, &str, bool)]) -> Value {
    let one = |(id, state, is_tagged): &(&str, &str, bool)| {
        let tags = if *is_tagged {
            json!([{"Key": "NatWindow", "Value": "drawbridge"}])
        } else {
            json!([])
        };
        json!({"NatGatewayId": id, "State": state, "CreateTime": "2026-11-20T10:00:00Z", "Tags": tags})
    };
    json!({"NatGateways": list.iter().map(one).collect::<Vec<_>>()})
}

/// SSM's GetParameters on POST, and 200 to any GET, until the test ends.
fn serve(parameters: Arc<Mutex<Value>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let parameters = Arc::clone(&parameters);
            thread::spawn(move || answer(stream, &parameters));
        }
    });
    endpoint
}

fn answer(mut stream: TcpStream, parameters: &Mutex<Value>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        head.push(line.to_lowercase());
    }
    let length = head
        .iter()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    let mut answer = json!({});
    if head.first()?.starts_with("post") {
        let asked: Value = serde_json::from_slice(&body).ok()?;
        let known = parameters.lock().ok()?;
        let (found, missing): (Vec<_>, Vec<_>) = asked["Names"]
            .as_array()?
            .iter()
            .partition(|name| known.get(name.as_str().unwrap()).is_some());
        let parameter = |name: &&Value| json!({"Name": name, "Value": known[name.as_str().unwrap()], "Type": "String"});
        answer = json!({"Parameters": found.iter().map(parameter).collect::<Vec<_>>(), "InvalidParameters": missing});
    }
    let body = answer.to_string();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
    .ok()
}
