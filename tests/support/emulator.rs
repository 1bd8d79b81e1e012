//! The AWS emulator of the rehearsal, one per test.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    Outcome, Proxy, REGION, Running, eventually, free_port, python, run, text,
    without_cloud_settings,
};

/// Calls one operation of an AWS service and prints the answer as JSON. moto brings boto3 along, so
/// this works wherever the emulator does; the `aws` command need not be there.
const CALL: &str = "
import boto3, json, sys
service, operation, parameters = sys.argv[1:]
answer = getattr(boto3.client(service), operation)(**json.loads(parameters))
answer.pop('ResponseMetadata', None)
print(json.dumps(answer, default=str))
";

/// Our AWS emulator on a port of its own, ended when the last way to it is dropped.
#[derive(Clone)]
pub struct Emulator {
    _process: Arc<Running>,
    port: u16,
    folder: Arc<TempDir>,
    /// Key id and secret. Any will do until policies are enforced.
    credentials: [String; 2],
}

impl Emulator {
    /// Starts one on 127.0.0.1 and waits until it answers.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = folder.path().join("emulator.log");
        let port = free_port();
        let file = File::create(&log).expect("the emulator's log");
        let mut command = python::program("emulator");
        without_cloud_settings(&mut command)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("the log, once more"))
            .stderr(file);
        let mut process = Running(
            command
                .spawn()
                .unwrap_or_else(|e| panic!("{command:?}: {e}")),
        );
        eventually(Duration::from_secs(300), "the emulator", || {
            if let Some(status) = process.0.try_wait().expect("the emulator's status") {
                panic!(
                    "the emulator ended with {status}:\n{}",
                    fs::read_to_string(&log).unwrap_or_default()
                );
            }
            TcpStream::connect(("127.0.0.1", port)).map_err(|e| e.to_string())
        });
        Self {
            _process: Arc::new(process),
            port,
            folder: Arc::new(folder),
            credentials: ["testing".to_owned(), "testing".to_owned()],
        }
    }

    /// The same emulator, by way of `proxy`.
    pub fn through(&self, proxy: &Proxy) -> Self {
        Self {
            port: proxy.port(),
            ..self.clone()
        }
    }

    /// The same emulator for a new IAM user, who may do what this policy document says.
    pub fn user(&self, name: &str, policy: &Value) -> Self {
        self.aws("iam", "create_user", json!({"UserName": name}));
        self.allow(name, policy);
        let made = self.aws("iam", "create_access_key", json!({"UserName": name}));
        let key = &made["AccessKey"];
        Self {
            credentials: [text(&key["AccessKeyId"]), text(&key["SecretAccessKey"])],
            ..self.clone()
        }
    }

    /// Gives the IAM user another policy.
    pub fn allow(&self, name: &str, policy: &Value) {
        self.aws(
            "iam",
            "put_user_policy",
            json!({"UserName": name, "PolicyName": "all", "PolicyDocument": policy.to_string()}),
        );
    }

    /// From now on a call needs the credentials of an IAM user whose policy allows its action. The emulator looks at
    /// neither resources nor conditions.
    pub fn enforce_policies(&self) {
        let mut server = TcpStream::connect(("127.0.0.1", self.port)).expect("the emulator");
        let type_and_length = "Content-Type: application/octet-stream\r\nContent-Length: 1";
        let end = "Host: test\r\nConnection: close\r\n\r\n0";
        write!(
            server,
            "POST /moto-api/reset-auth HTTP/1.1\r\n{type_and_length}\r\n{end}"
        )
        .expect("a request");
        let mut answer = String::new();
        server.read_to_string(&mut answer).expect("an answer");
        assert!(answer.contains(" 200 "), "{answer}");
    }

    /// A Python program that has boto3; arguments are its own.
    pub fn python(&self, program: &str) -> Command {
        let mut command = python::program(program);
        self.lead_here(&mut command);
        command
    }

    /// Where it listens on 127.0.0.1, or the proxy before it.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A command whose AWS is this emulator, and which finds nothing of the user's own AWS settings.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        self.lead_here(&mut command);
        command
    }

    fn lead_here(&self, command: &mut Command) {
        without_cloud_settings(command)
            // By number: with a name the SDKs would ask for bucket.localhost.
            .env(
                "AWS_ENDPOINT_URL",
                format!("http://127.0.0.1:{}", self.port),
            )
            .env("AWS_ACCESS_KEY_ID", &self.credentials[0])
            .env("AWS_SECRET_ACCESS_KEY", &self.credentials[1])
            .env("AWS_REGION", REGION)
            .env("AWS_DEFAULT_REGION", REGION)
            .env("NO_PROXY", "127.0.0.1")
            // Less collecting of garbage by terraform and its providers: a fifth of their processor time.
            .env("GOGC", "400");
    }

    /// Calls one operation: `call("ec2", "describe_vpcs", &json!({}))`. Fails as boto3 does.
    pub fn call(&self, service: &str, operation: &str, parameters: &Value) -> Outcome {
        let mut call = self.python(CALL);
        call.args([service, operation, &parameters.to_string()]);
        run(&mut call, Duration::from_secs(300))
    }

    /// What the pretended AWS answers to one operation.
    pub fn aws(&self, service: &str, operation: &str, parameters: Value) -> Value {
        let said = self
            .call(service, operation, &parameters)
            .expect_success(&format!("{service} {operation} {parameters}"));
        serde_json::from_str(&said)
            .unwrap_or_else(|e| panic!("{service} {operation} answered {said}: {e}"))
    }

    /// Registers another image of this role, as publishing one would, and gives its id.
    pub fn image(&self, role: &str) -> String {
        // An account has each name once.
        static REGISTERED: AtomicU32 = AtomicU32::new(0);
        let number = REGISTERED.fetch_add(1, Ordering::Relaxed);
        let name = format!("{role}-{number}");
        let image = self.aws(
            "ec2",
            "register_image",
            json!({"Name": name, "RootDeviceName": "/dev/xvda", "Architecture": "x86_64"}),
        );
        image["ImageId"].as_str().expect("an image id").to_owned()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("emulator.log")).expect("the emulator's log")
    }
}
