//! Everything that can end an opening or a close in the middle, with the real terraform and the emulator: another run
//! finishes, and cloud, state and file then say the same.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::stage::Ended;
use crate::support::{Emulator, Proxy, Stack, always_ready, eventually, run, text};

const ADMIN_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJx0hGm7dZ1s8dVYhVb1uWq0yq3P2m9c1r5mJ0m7vX3d alice@laptop";

/// Longer than any one step of an apply or a close takes on a busy machine with two cores.
const LIMIT: Duration = Duration::from_secs(1800);

/// A deployment, and whoever runs `drawbridge` on it with a proxy between them and AWS.
struct Operator<'a> {
    emulator: &'a Emulator,
    proxy: &'a Proxy,
    stack: &'a Stack<'a>,
    api: String,
}

/// Another NAT gateway for every window, so the stack is made once and used for all; an apply takes a minute.
#[test]
fn whatever_ends_it_in_the_middle_another_run_finishes() {
    let emulator = Emulator::start();
    let proxy = Proxy::start(&emulator);
    let watched = emulator.through(&proxy);
    let stack = Stack::new(&watched, ADMIN_KEY);
    stack.apply();
    // There are no hosts, so nobody can be asked from inside; those proofs do not hold.
    stack.complete(&emulator);
    let operator = Operator {
        emulator: &emulator,
        proxy: &proxy,
        stack: &stack,
        api: always_ready(),
    };

    operator.status_asks_little();
    operator.killed_expired_and_orphaned();
    operator.killed_while_open_then_ctrl_c();
    operator.unknown_to_the_state_and_a_lost_network();
    operator.the_switch_fires_while_open();
    operator.opening_fails_half_way();
}

impl Operator<'_> {
    fn drawbridge(&self, arguments: &[&str]) -> Command {
        let mut command = self.stack.command(env!("CARGO_BIN_EXE_drawbridge"));
        command
            .arg("nat")
            .args(arguments)
            .env("DRAWBRIDGE_URL", &self.api)
            .env_remove("SSH_AUTH_SOCK")
            .current_dir(self.stack.path(""))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn nat(&self, arguments: &[&str]) -> Ended {
        Ended::of(self.drawbridge(arguments).output().unwrap())
    }

    /// A close that is running; returned when AWS has been asked for `action`.
    fn closing(&self, action: &str) -> Child {
        self.proxy.forget();
        let child = self.drawbridge(&["close"]).spawn().unwrap();
        self.asked(action);
        child
    }

    fn asked(&self, action: &str) {
        eventually(LIMIT, action, || match self.proxy.count(action) {
            0 => Err(format!("{:?}", self.proxy.calls())),
            _ => Ok(()),
        });
    }

    fn position(&self) -> String {
        let file = self.stack.path("nat.auto.tfvars.json");
        std::fs::read_to_string(file).unwrap()
    }

    fn status(&self) -> Value {
        let ended = self.nat(&["status", "--json"]);
        assert_eq!(ended.status, 0, "{ended:?}");
        serde_json::from_str(&ended.stdout).unwrap()
    }

    fn findings(&self) -> Vec<String> {
        let status = self.status();
        let findings = status["findings"].as_array().unwrap();
        findings
            .iter()
            .map(|found| text(&found["finding"]))
            .collect()
    }

    /// Not closed, and not called so.
    fn assert_not_closed(&self, ended: &Ended, status: i32) {
        assert_eq!(ended.status, status, "{ended:?}");
        for word in ["closed the NAT window", "closed already"] {
            assert!(!ended.stdout.contains(word), "{ended:?}");
        }
        assert_ne!(self.status()["window"], "closed");
    }

    /// A close finishes, and cloud, state and file say so, each asked directly.
    fn finishes(&self) -> Ended {
        let ended = self.nat(&["close", "--json"]);
        let report: Value = serde_json::from_str(&ended.stdout).unwrap_or_default();
        // The two proofs that need hosts cannot hold.
        assert_eq!(ended.status, 5, "{ended:?}");
        self.assert_proven(&report);
        self.assert_closed();
        ended
    }

    fn assert_proven(&self, report: &Value) {
        let proofs = report["proofs"].as_array().unwrap();
        for claim in [
            "nat-gateway-gone",
            "address-released",
            "plan-empty",
            "api-ready",
        ] {
            let proof = proofs.iter().find(|proof| proof["claim"] == claim).unwrap();
            assert_eq!(proof["holds"], true, "{proof}");
        }
    }

    fn assert_closed(&self) {
        assert_eq!(self.position(), "{\"nat_gateway\": false}\n");
        let standing = json!({"Filters": [{"Name": "state", "Values": ["pending", "available", "deleting", "failed"]}]});
        for (service, operation, parameters, field, wanted) in [
            ("ec2", "describe_nat_gateways", standing, "NatGateways", 0),
            // The bastion's.
            ("ec2", "describe_addresses", json!({}), "Addresses", 1),
            ("scheduler", "list_schedules", json!({}), "Schedules", 0),
        ] {
            let answer = self.emulator.aws(service, operation, parameters);
            assert_eq!(answer[field].as_array().unwrap().len(), wanted, "{answer}");
        }
        let table = text(&self.stack.output("deployment")["private_route_table_id"]);
        let tables = json!({"RouteTableIds": [table]});
        let tables = self.emulator.aws("ec2", "describe_route_tables", tables);
        assert!(!tables.to_string().contains("0.0.0.0/0"), "{tables}");
        let status = self.status();
        assert_eq!(
            (&status["window"], &status["findings"], &status["next"]),
            (&"closed".into(), &json!([]), &Value::Null)
        );
        let nothing = json!({"gateway": null, "address": null, "route": null, "schedule": null});
        assert_eq!(status["state"], nothing);
    }

    /// Opens the window and has its own process killed: what is left is a lease, and a gateway until its end.
    fn left_open(&self) -> Value {
        let ended = self
            .drawbridge(&["open", "--for", "1h", "--", "sh", "-c", "kill -9 $PPID"])
            .output()
            .unwrap();
        assert_eq!(ended.status.code(), None, "{ended:?}");
        assert!(self.position().contains("nat_gateway_until"));
        let status = self.status();
        assert_eq!(
            (&status["window"], &status["position"]),
            (&"open".into(), &"leased".into())
        );
        assert_eq!(status["findings"], json!([]));
        assert_eq!(status["deadline"]["at"], status["lease_until"]);
        status
    }

    fn status_asks_little(&self) {
        self.proxy.forget();
        let status = self.status();
        assert_eq!(status["window"], "open");
        let asked: Vec<_> = self.proxy.calls().into_iter().collect();
        let once = [
            "ec2:DescribeAddresses",
            "ec2:DescribeNatGateways",
            "ec2:DescribeRouteTables",
            "scheduler:GetSchedule",
            "ssm:GetParameters",
            "sts:GetCallerIdentity",
        ];
        assert_eq!(asked, once.map(|action| (action.to_owned(), 1)));
    }

    /// The window that the first apply opened: four sudden ends, one after the other.
    fn killed_expired_and_orphaned(&self) {
        // Between two attempts: terraform writes its state in place after every change, and a kill in the middle of that
        // would leave half a file.
        self.proxy
            .fail("scheduler:DeleteSchedule", "ThrottlingException");
        let closing = self.closing("scheduler:DeleteSchedule");
        thread::sleep(Duration::from_millis(500));
        kill(&terraform_of(&closing));
        self.proxy.heal();
        self.assert_not_closed(&end(closing), 1);

        self.proxy.fail("ec2:DeleteNatGateway", "ExpiredToken");
        let ended = self.nat(&["close"]);
        assert!(ended.stderr.contains("ExpiredToken"), "{ended:?}");
        assert!(
            ended.stderr.contains("run `drawbridge nat close` again"),
            "{ended:?}"
        );
        self.assert_not_closed(&ended, 1);
        assert_eq!(self.findings()[0], "file-closed");
        self.proxy.heal();

        // Terraform goes on alone, and its release of the address goes wrong.
        self.proxy
            .fail_times("ec2:ReleaseAddress", "OperationNotPermitted", 1);
        let closing = self.closing("ec2:DeleteNatGateway");
        let terraform = terraform_of(&closing);
        kill(&closing.id().to_string());
        assert_eq!(end(closing).status, -1);
        let process = PathBuf::from(format!("/proc/{terraform}"));
        eventually(LIMIT, "terraform's own end", || match process.exists() {
            true => Err("it runs".to_owned()),
            false => Ok(()),
        });
        assert_eq!(
            self.proxy.count("ec2:ReleaseAddress"),
            1,
            "terraform did not outlive us"
        );
        assert_eq!(self.findings(), ["address-without-gateway"]);
        self.finishes();

        let again = self.nat(&["close"]);
        assert_eq!(again.status, 0, "{again:?}");
        assert!(again.stdout.contains("closed already"), "{again:?}");
    }

    fn killed_while_open_then_ctrl_c(&self) {
        self.left_open();
        let refused = self.nat(&["open", "--for", "1m", "--", "true"]);
        assert_eq!(refused.status, 4, "{refused:?}");
        let closing = self.closing("ec2:DeleteNatGateway");
        signal("-INT", &closing.id().to_string());
        let ended = end(closing);
        self.assert_not_closed(&ended, 130);
        self.finishes();
    }

    fn unknown_to_the_state_and_a_lost_network(&self) {
        let status = self.left_open();
        let mut forget = self.stack.command("terraform");
        forget
            .current_dir(self.stack.path(""))
            .args(["state", "rm"])
            .args(drawbridge::nat::window::RESOURCES);
        run(&mut forget, LIMIT).expect_success("terraform state rm");
        assert_eq!(self.findings(), ["unknown-to-state"; 4]);
        assert_eq!(self.status()["deadline"]["at"], status["deadline"]["at"]);
        // Terraform tries a lost call again by itself, for longer than this.
        self.proxy.forget();
        let proxy = self.proxy;
        thread::scope(|scope| {
            scope.spawn(|| {
                self.asked("ec2:DeleteRoute");
                proxy.go_down();
                thread::sleep(Duration::from_secs(5));
                proxy.heal();
            });
            let ended = self.finishes();
            // AWS does not let go of an address while its gateway stands; moto would.
            let at = |said| ended.stderr.find(said).unwrap();
            let gone = at("aws_nat_gateway.main[0]: Destruction complete");
            assert!(gone < at("aws_eip.nat[0]: Destroying"), "{ended:?}");
        });
    }

    fn the_switch_fires_while_open(&self) {
        let drawbridge = env!("CARGO_BIN_EXE_drawbridge");
        let fire = format!(
            "gateway=$({drawbridge} nat status --json | sed -n 's/.*\"gateway\": \"\\(nat-[^\"]*\\)\".*/\\1/p' | head -n 1)
             aws ec2 delete-nat-gateway --nat-gateway-id $gateway >/dev/null
             {drawbridge} nat status
             exit 3"
        );
        let report = self.stack.path("report.json");
        let report_file = report.display().to_string();
        let ended = self.nat(&[
            "open",
            "--for",
            "1h",
            "--report",
            &report_file,
            "--",
            "sh",
            "-c",
            &fire,
        ]);
        assert_eq!(ended.status, 3, "{ended:?}");
        for part in [
            "expired",
            "still stands and costs",
            "leads nowhere",
            "`drawbridge nat close`",
        ] {
            assert!(ended.stdout.contains(part), "{part}: {ended:?}");
        }
        let report: Value =
            serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
        self.assert_proven(&report["close"]);
        self.assert_closed();
    }

    fn opening_fails_half_way(&self) {
        self.proxy.fail("ec2:CreateRoute", "OperationNotPermitted");
        let ended = self.nat(&["open", "--for", "1h", "--", "touch", "ran"]);
        assert_eq!(ended.status, 1, "{ended:?}");
        assert!(ended.stderr.contains("OperationNotPermitted"), "{ended:?}");
        assert!(!self.stack.path("ran").exists());
        self.proxy.heal();
        self.assert_closed();
    }
}

fn end(child: Child) -> Ended {
    Ended::of(child.wait_with_output().unwrap())
}

fn signal(signal: &str, process: &str) {
    let mut kill = Command::new("kill");
    assert!(kill.args([signal, process]).status().unwrap().success());
}

fn kill(process: &str) {
    signal("-KILL", process);
}

/// The terraform that this process runs.
fn terraform_of(parent: &Child) -> String {
    eventually(LIMIT, "a terraform", || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", parent.id())).unwrap();
        let children = tasks
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
        let children: String = children.collect();
        let is_terraform = |id: &&str| {
            let name = std::fs::read_to_string(format!("/proc/{id}/comm"));
            name.is_ok_and(|name| name.trim() == "terraform")
        };
        let found = children.split_whitespace().find(is_terraform);
        found.map(str::to_owned).ok_or(children)
    })
}
