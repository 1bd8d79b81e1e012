//! A folder in which `drawbridge` finds a terraform directory, a `terraform` and an `aws` of ours, and SSM on a port.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::{self, stub};

/// Plays terraform: answers from files, writes down what it was asked, and opens or closes the window when it applies.
const TERRAFORM: &str = r#"#!/usr/bin/env bash
set -u
stage=${0%/bin/terraform}
printf '%s\n' "$*" >>"$stage/calls"
case $1 in
  init)
    mkdir -p .terraform
    ;;
  output)
    if [[ ! -s $stage/deployment.json ]]; then
      echo 'Error: Output "deployment" not found' >&2
      exit 1
    fi
    cat "$stage/deployment.json"
    ;;
  state)
    cat "$stage/state.json"
    ;;
  import)
    ;;
  show)
    cat "$stage/variables.json"
    ;;
  plan)
    if [[ -e $stage/locked ]]; then
      cat "$stage/locked"
      exit 1
    fi
    targeted=no position=plain
    for argument; do
      case $argument in
        -out=*) out=${argument#-out=} ;;
        -target=*) targeted=yes ;;
        -var=nat_gateway=true) position=open ;;
      esac
    done
    plan=$stage/plan.jsonl
    [[ $targeted == no ]] || plan=$stage/targeted.jsonl
    [[ $position != open ]] || plan=$stage/opening.jsonl
    [[ $position$targeted != openyes || ! -e $stage/opening-targeted.jsonl ]] || plan=$stage/opening-targeted.jsonl
    printf %s "$position" >"$out"
    cat "$plan"
    [[ ! -s $plan ]] || exit 2
    ;;
  apply)
    [[ " $* " != *" -refresh-only "* ]] || exit 0
    if [[ -e $stage/apply-fails ]]; then
      printf '%s\n' '{"type":"diagnostic","diagnostic":{"severity":"error","summary":"no such luck","detail":""}}'
      # A luck that comes back: as often as there are lines.
      sed -i 1d "$stage/apply-fails"
      [[ -s $stage/apply-fails ]] || rm "$stage/apply-fails"
      exit 1
    fi
    if [[ -e $stage/apply-hangs ]]; then
      trap 'printf interrupted >"$stage/interrupted"; exit 1' INT
      printf started >"$stage/started"
      for _ in $(seq 200); do sleep 0.1; done
    fi
    for plan; do :; done
    to=closed
    [[ $(<"$plan") != open ]] || to=open
    [[ $(<"$plan") != plain || $(<"$stage/terraform/nat.auto.tfvars.json") != *true* ]] || to=open
    cp "$stage/$to/"* "$stage"
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
  describe-route-tables)
    if [[ ! -e $stage/routes.json ]]; then
      echo "An error occurred (InvalidRouteTableID.NotFound) when calling the DescribeRouteTables operation" >&2
      exit 254
    fi
    cat "$stage/routes.json"
    ;;
  *) exit 9 ;;
esac
"#;

/// What the pretended SSM, STS, Scheduler and API answer.
#[derive(Default)]
struct Answers {
    parameters: Value,
    /// Account of the credentials, or an AWS error code.
    identity: String,
    /// `at(…)` of the schedule, or an AWS error code; none: there is no schedule.
    schedule: Option<String>,
    /// Status of `GET /ready`.
    ready: u16,
}

/// What the program is surrounded with.
pub struct Stage {
    folder: tempfile::TempDir,
    endpoint: String,
    answers: Arc<Mutex<Answers>>,
}

const WINDOW: [&str; 4] = [
    "aws_scheduler_schedule.nat_deadline[0]",
    "aws_route.private_internet[0]",
    "aws_nat_gateway.main[0]",
    "aws_eip.nat[0]",
];

impl Stage {
    /// An open window whose hosts are complete.
    pub fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        for folder in ["bin", "terraform", "open", "closed"] {
            fs::create_dir_all(path.join(folder)).unwrap();
        }
        for (name, text) in [("terraform", TERRAFORM), ("aws", AWS)] {
            let file = path.join("bin").join(name);
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(path.join("terraform/main.tf"), "").unwrap();
        let answers = Arc::new(Mutex::new(Answers {
            parameters: json!({}),
            identity: support::ACCOUNT.to_owned(),
            schedule: Some(DEADLINE.to_owned()),
            ready: 200,
        }));
        let endpoint = serve(Arc::clone(&answers));
        let stage = Self {
            folder,
            endpoint,
            answers,
        };
        stage.position("{\"nat_gateway\": true}\n");
        let gateway = json!({
            "id": "nat-1", "public_ip": "203.0.113.10", "allocation_id": "eipalloc-1", "schedule": "drawbridge-nat-1-4h",
        });
        let tags = json!([{"Key": "NatWindow", "Value": "drawbridge"}]);
        let one =
            json!({"NatGatewayId": "nat-1", "CreateTime": "2026-11-20T10:00:00Z", "Tags": tags});
        let with = |more: Value| {
            let mut gateway = one.clone();
            gateway
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            json!({"NatGateways": [gateway]})
        };
        let address = json!({"PublicIp": "203.0.113.10", "AllocationId": "eipalloc-1"});
        let route = json!({"DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": "nat-1", "State": "active"});
        for (name, open, closed) in [
            (
                "deployment.json",
                deployment(&gateway),
                deployment(&Value::Null),
            ),
            ("state.json", state(true), state(false)),
            (
                "gateways.json",
                with(json!({"State": "available"})),
                with(json!({"State": "deleted", "DeleteTime": "2026-11-20T11:30:00Z"})),
            ),
            (
                "addresses.json",
                json!({"Addresses": [address]}),
                json!({"Addresses": []}),
            ),
            (
                "routes.json",
                json!({"RouteTables": [{"Routes": [route]}]}),
                json!({"RouteTables": [{"Routes": []}]}),
            ),
        ] {
            stage.put(&format!("open/{name}"), &open.to_string());
            stage.put(&format!("closed/{name}"), &closed.to_string());
        }
        let lines = |action: &str| plan_lines(&WINDOW.map(|address| (address, action)));
        stage.put("open/plan.jsonl", &lines("delete"));
        stage.put("closed/plan.jsonl", "");
        stage.put("targeted.jsonl", &lines("delete"));
        stage.put("opening.jsonl", &lines("create"));
        stage.set("open");
        stage.variables("drawbridge", "ap-south-1");
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
        stage.set("closed");
        stage.put("gateways.json", r#"{"NatGateways":[]}"#);
        stage
    }

    /// Everything as the apply to this position leaves it: `open` or `closed`.
    fn set(&self, position: &str) {
        for entry in fs::read_dir(self.path().join(position)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), self.path().join(entry.file_name())).unwrap();
        }
    }

    /// The file of one position, in place of the present one: `as_in("closed", "addresses.json")`.
    pub fn as_in(&self, position: &str, name: &str) {
        fs::copy(
            self.path().join(position).join(name),
            self.path().join(name),
        )
        .unwrap();
    }

    /// What the dead man's switch leaves.
    pub fn fired() -> Self {
        let stage = Self::open();
        stage.as_in("closed", "gateways.json");
        let routes = fs::read_to_string(stage.path().join("routes.json")).unwrap();
        stage.put("routes.json", &routes.replace("active", "blackhole"));
        stage
    }

    /// What the plan says `name` and `region` are.
    pub fn variables(&self, name: &str, region: &str) {
        let variables =
            json!({"variables": {"name": {"value": name}, "region": {"value": region}}});
        self.put("variables.json", &variables.to_string());
    }

    /// Whose the credentials are, or the AWS error that asking for it ends with.
    pub fn identity(&self, identity: &str) {
        self.answers.lock().unwrap().identity = identity.to_owned();
    }

    /// The deadline, `at(…)`; none: there is no schedule; or an AWS error code.
    pub fn schedule(&self, schedule: Option<&str>) {
        self.answers.lock().unwrap().schedule = schedule.map(str::to_owned);
    }

    /// What `GET /ready` is answered with.
    pub fn ready(&self, status: u16) {
        self.answers.lock().unwrap().ready = status;
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
        self.put("plan.jsonl", &plan_lines(changes));
    }

    /// What the plan of opening wants.
    pub fn opening(&self, changes: &[(&str, &str)]) {
        self.put("opening.jsonl", &plan_lines(changes));
    }

    /// What a plan of opening that is limited to the window wants.
    pub fn targeted_opening(&self, changes: &[(&str, &str)]) {
        self.put("opening-targeted.jsonl", &plan_lines(changes));
    }

    pub fn make_executable(&self, name: &str) {
        let file = self.path().join(name);
        fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub fn forget_parameter(&self, name: &str) {
        let mut answers = self.answers.lock().unwrap();
        let parameters = answers.parameters.as_object_mut().unwrap();
        parameters.remove(&format!("/drawbridge/{name}"));
    }

    pub fn parameter(&self, name: &str, value: &str) {
        self.answers.lock().unwrap().parameters[format!("/drawbridge/{name}")] = json!(value);
    }

    pub fn report(&self, host: &str, instance: &str, step: &str) {
        let report = json!({
            "instance_id": instance, "image_id": "ami-1", "role": host, "step": step, "started_at": "2026-11-20T10:00:00Z",
            "updated_at": "2026-11-20T10:01:00Z", "finished_at": null, "error": null,
        });
        self.parameter(&format!("hosts/{host}/bootstrap"), &report.to_string());
    }

    /// What terraform was asked for, in order, reading left out: that goes side by side.
    pub fn calls(&self) -> Vec<String> {
        let subcommand = |line: &String| line.split(' ').next().unwrap().to_owned();
        let calls = self.lines().iter().map(subcommand).collect::<Vec<_>>();
        let is_change = |call: &String| !["output", "state"].contains(&call.as_str());
        calls.into_iter().filter(is_change).collect()
    }

    /// The whole command lines terraform was given.
    pub fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path().join("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
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
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("DRAWBRIDGE_URL", &self.endpoint)
            .env_remove("DRAWBRIDGE_TERRAFORM_DIR")
            .env_remove("AWS_PROFILE")
            .env_remove("AWS_SESSION_TOKEN")
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs `drawbridge nat …` to its end.
    pub fn nat(&self, arguments: &[&str]) -> Ended {
        let arguments: Vec<_> = ["nat"].iter().chain(arguments).copied().collect();
        Ended::of(self.drawbridge(&arguments).output().unwrap())
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// The status is -1 when a signal ended it.
    pub fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self {
            status: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

fn deployment(gateway: &Value) -> Value {
    let mut output = support::deployment();
    output["nat_gateway"] = gateway.clone();
    output
}

const DEADLINE: &str = "at(2099-01-01T00:00:00)";

/// The state's resources: those of the window, or none.
fn state(is_open: bool) -> Value {
    let resource = |kind: &str, name: &str, attributes: Value| {
        let instance = json!({"index_key": 0, "attributes": attributes});
        json!({"mode": "managed", "type": kind, "name": name, "instances": [instance]})
    };
    let window = json!([
        resource("aws_nat_gateway", "main", json!({"id": "nat-1"})),
        resource("aws_eip", "nat", json!({"id": "eipalloc-1"})),
        resource("aws_route", "private_internet", json!({"id": "r-rtb-1"})),
        resource(
            "aws_scheduler_schedule",
            "nat_deadline",
            json!({"name": "drawbridge-nat-1-4h"})
        ),
    ]);
    json!({"version": 4, "resources": if is_open { window } else { json!([]) }})
}

fn plan_lines(changes: &[(&str, &str)]) -> String {
    let line = |(address, action): &(&str, &str)| {
        let kind = address.split('.').next().unwrap();
        let resource = json!({"addr": address, "resource_type": kind});
        json!({"type": "planned_change", "change": {"resource": resource, "action": action}})
            .to_string()
            + "\n"
    };
    changes.iter().map(line).collect()
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

/// SSM, STS, Scheduler and the API on one port, until the test ends.
fn serve(answers: Arc<Mutex<Answers>>) -> String {
    stub::serve(move |request, body| {
        let answers = answers.lock().ok()?;
        Some(if request.starts_with("get /schedules") {
            schedule(&answers, request.starts_with("get /schedules/"))
        } else if request.starts_with("get") {
            (answers.ready, String::new())
        } else if body.starts_with(b"Action=GetCallerIdentity") {
            stub::identity(&answers.identity)
        } else {
            (200, stub::parameters(&answers.parameters, body)?)
        })
    })
}

/// <https://docs.aws.amazon.com/scheduler/latest/APIReference/API_GetSchedule.html>
fn schedule(answers: &Answers, is_one: bool) -> (u16, String) {
    match (&answers.schedule, is_one) {
        (Some(at), true) if at.starts_with("at(") => {
            let schedule = json!({"Name": "drawbridge-nat-1-4h", "ScheduleExpression": at, "State": "ENABLED"});
            (200, schedule.to_string())
        }
        (Some(at), false) if at.starts_with("at(") => (
            200,
            json!({"Schedules": [{"Name": "drawbridge-nat-1-4h"}]}).to_string(),
        ),
        (Some(code), _) => (403, json!({"__type": code, "Message": "no"}).to_string()),
        (None, true) => (
            404,
            json!({"__type": "ResourceNotFoundException", "Message": "no"}).to_string(),
        ),
        (None, false) => (200, json!({"Schedules": []}).to_string()),
    }
}
