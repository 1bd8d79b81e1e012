//! The real `drawbridge` for a deployment whose hosts are the tests' own sshds: a `terraform` that prints the deployment,
//! and an SSM that holds what the hosts would have published. No Terraform, no emulator, no root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use drawbridge::appliance::{Role, parameter};
use drawbridge::bastion::Access;
use serde_json::{Value, json};

use super::stub;

/// Plays terraform: all it is asked for here is the output.
const TERRAFORM: &str = "#!/bin/sh\nexec cat \"${0%/bin/terraform}/deployment.json\"\n";

/// What the program is surrounded with.
pub struct Operator {
    folder: tempfile::TempDir,
    endpoint: String,
    parameters: Arc<Mutex<Value>>,
    environment: Vec<(&'static str, String)>,
}

impl Operator {
    /// Someone who may sign in as `access` does (`Hosts::access`, `Hosts::access_to_all`): deployment, published host
    /// keys and complete reports of it, the way in by the environment.
    pub fn new(access: &Access) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        for folder in ["bin", "terraform", "home"] {
            fs::create_dir_all(path.join(folder)).unwrap();
        }
        fs::write(path.join("terraform/main.tf"), "").unwrap();
        let parameters = Arc::new(Mutex::new(json!({})));
        let known = Arc::clone(&parameters);
        let endpoint = stub::serve(move |_, body| {
            Some((200, stub::parameters(&known.lock().unwrap(), body)?))
        });
        let login = &access.login;
        let mut environment = vec![(
            "DRAWBRIDGE_LOGIN",
            format!("{}:{}:{}", login.user, login.jump, login.port),
        )];
        if let Some(bastion) = &access.bastion {
            environment.push(("DRAWBRIDGE_BASTION", bastion.to_string()));
        }
        let operator = Self {
            folder,
            endpoint,
            parameters,
            environment,
        };
        operator.program("terraform", TERRAFORM);
        operator.deployment(&serde_json::to_value(&access.deployment).unwrap());
        let instances = [
            &access.deployment.bastion.instance_id,
            &access.deployment.backend.instance_id,
            &access.deployment.database.instance_id,
        ];
        for (role, instance) in Role::ALL.into_iter().zip(instances) {
            let key = access
                .pins
                .get(role)
                .map(|key| key.to_openssh().unwrap().to_string());
            operator.host_key(role, key.as_deref().unwrap_or(parameter::PENDING));
            operator.report(role, instance, "complete");
        }
        operator
    }

    /// Where everything is: `bin/`, `home/`, `terraform/`, and what the program writes beside it.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// What Terraform's output `deployment` is from now on.
    pub fn deployment(&self, deployment: &Value) {
        let text = deployment.to_string();
        fs::write(self.path().join("deployment.json"), text).unwrap();
    }

    /// Puts a program in front of the `PATH`.
    pub fn program(&self, name: &str, text: &str) {
        let file = self.path().join("bin").join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// What SSM holds under this name.
    pub fn parameter(&self, name: &str, value: &str) {
        self.parameters.lock().unwrap()[name] = json!(value);
    }

    /// What `role` has published as its host key.
    pub fn host_key(&self, role: Role, line: &str) {
        self.parameter(&parameter::ssh_host_key("drawbridge", role), line);
    }

    /// How far `role` says its first boot is.
    pub fn report(&self, role: Role, instance: &str, step: &str) {
        let report = json!({
            "instance_id": instance, "image_id": "ami-1", "role": role, "step": step, "started_at": "2026-11-20T10:00:00Z",
            "updated_at": "2026-11-20T10:01:00Z", "finished_at": null, "error": null,
        });
        self.parameter(
            &parameter::bootstrap_report("drawbridge", role),
            &report.to_string(),
        );
    }

    /// `drawbridge` with these arguments, the rest of the world shut out, signing in with `key`.
    pub fn drawbridge(&self, key: &Path, arguments: &[&str]) -> Command {
        let mut command = self.stranger(arguments);
        command.env("DRAWBRIDGE_IDENTITY", key);
        command
    }

    /// The same without any key.
    pub fn stranger(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_drawbridge"));
        let programs = self.path().join("bin");
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        super::without_cloud_settings(&mut command)
            .args(arguments)
            .current_dir(self.path())
            .env("PATH", path)
            .env("HOME", self.path().join("home"))
            .env("AWS_ENDPOINT_URL", &self.endpoint)
            .env("AWS_ACCESS_KEY_ID", "testing")
            .env("AWS_SECRET_ACCESS_KEY", "testing")
            .envs(self.environment.iter().cloned())
            .env_remove("DRAWBRIDGE_TERRAFORM_DIR")
            .env_remove("DRAWBRIDGE_IDENTITY")
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::null());
        command
    }
}
