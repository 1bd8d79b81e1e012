//! A copy of `terraform/`, and a terraform that applies it to the emulator.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use drawbridge::terraform::{CliConfig, DIRECTORY_VARIABLE, cli_config};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::provider::{self, Provider};
use super::{Emulator, Outcome, copy_terraform, python, repository, run, text};

/// Many times what an apply takes: nothing hangs, and no slow machine fails for being slow.
const LIMIT: Duration = Duration::from_secs(1800);

/// A copy of `terraform/` with a state of its own.
pub struct Stack<'a> {
    emulator: &'a Emulator,
    directory: PathBuf,
    /// None for the real package against the committed lock.
    provider: Option<&'static Provider>,
    _folder: TempDir,
}

impl<'a> Stack<'a> {
    /// Copies `terraform/`, publishes images, chooses an administrator, and runs `terraform init`.
    pub fn new(emulator: &'a Emulator, admin_key: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        copy_terraform(folder.path());
        let stack = Self::within(emulator, folder, "");
        let images: Value = ["bastion", "backend", "database"]
            .map(|role| (role.to_owned(), Value::from(emulator.image(role))))
            .into_iter()
            .collect::<serde_json::Map<_, _>>()
            .into();
        stack.write(
            "images.auto.tfvars.json",
            &json!({ "images": images }).to_string(),
        );
        stack.write(
            "test.auto.tfvars.json",
            &json!({"admin_cidrs": ["203.0.113.0/24"], "admin_ssh_keys": {"alice": admin_key}})
                .to_string(),
        );
        stack.init();
        stack
    }

    /// Another configuration than `terraform/`: copies of these files, with these variables and the committed lock.
    pub fn of(emulator: &'a Emulator, files: &[&Path], variables: &Value) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let lock = Path::new("terraform/.terraform.lock.hcl");
        for file in files.iter().chain([&lock]) {
            let name = file.file_name().expect("a file's name");
            fs::copy(repository().join(file), folder.path().join(name)).expect("a copy");
        }
        let stack = Self::within(emulator, folder, "");
        stack.write("test.auto.tfvars.json", &variables.to_string());
        stack.init();
        stack
    }

    /// `terraform/github/` in a copy of `terraform/`, with these variables.
    pub fn github(emulator: &'a Emulator, variables: &Value) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let source = repository().join("terraform");
        fs::create_dir(folder.path().join("github")).expect("a folder");
        for (from, to) in [("", ""), ("github", "github")] {
            for entry in fs::read_dir(source.join(from)).expect("a folder of terraform/") {
                let path = entry.expect("an entry of terraform/").path();
                let name = path.file_name().expect("a file's name").to_string_lossy();
                let is_read = [".tf", "-policy.json", ".lock.hcl"];
                if is_read.iter().any(|end| name.ends_with(end)) {
                    fs::copy(&path, folder.path().join(to).join(&*name)).expect("a copy");
                }
            }
        }
        let stack = Self::within(emulator, folder, "github");
        stack.write("test.auto.tfvars.json", &variables.to_string());
        stack.init();
        stack
    }

    fn within(emulator: &'a Emulator, folder: TempDir, directory: &str) -> Self {
        let provider = provider::light();
        let directory = folder.path().join(directory);
        provider.lock(&directory);
        Self {
            emulator,
            directory,
            provider: Some(provider),
            _folder: folder,
        }
    }

    /// The same with the real package of the provider, checked against the committed lock.
    pub fn with_the_real_provider(mut self) -> Self {
        self.provider = None;
        copy_terraform(&self.directory);
        fs::remove_dir_all(self.path(".terraform")).expect("what init has made");
        self.init();
        self
    }

    fn init(&self) {
        self.terraform(&["init", "-lockfile=readonly"])
            .expect_success("terraform init");
    }

    /// The file `name` of this copy.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Writes one file of this copy.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap_or_else(|e| panic!("{name}: {e}"));
    }

    /// A program of this repository, at home in this copy: `drawbridge` or a script.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.emulator.command(program);
        command
            .env("PATH", python::path_with_aws())
            .env(DIRECTORY_VARIABLE, &self.directory)
            .env("DRAWBRIDGE_BIN", env!("CARGO_BIN_EXE_drawbridge"));
        self.terraform_environment(&mut command);
        command
    }

    /// Runs `drawbridge` with these arguments: at most ten minutes, as terraform.
    pub fn drawbridge(&self, arguments: &[&str]) -> Outcome {
        let mut command = self.command(env!("CARGO_BIN_EXE_drawbridge"));
        run(command.args(arguments), LIMIT)
    }

    /// Has both private hosts report a complete bootstrap, `as_hosts`: with rights that an operator may not have.
    pub fn complete(&self, as_hosts: &Emulator) {
        let deployment = self.output("deployment");
        let name = text(&deployment["name"]);
        for host in ["backend", "database"] {
            let report = json!({
                "instance_id": deployment[host]["instance_id"], "image_id": deployment[host]["image_id"],
                "role": host, "step": "complete", "error": null, "started_at": "2026-11-20T10:00:00Z",
                "updated_at": "2026-11-20T10:01:00Z", "finished_at": "2026-11-20T10:01:00Z",
            });
            let name = format!("/{name}/hosts/{host}/bootstrap");
            as_hosts.aws(
                "ssm",
                "put_parameter",
                json!({"Name": name, "Value": report.to_string(), "Overwrite": true}),
            );
        }
    }

    /// Runs terraform here.
    pub fn terraform(&self, arguments: &[&str]) -> Outcome {
        let mut command = self.emulator.command("terraform");
        command
            .arg(format!("-chdir={}", self.directory.display()))
            .args(arguments)
            .arg("-no-color");
        self.terraform_environment(&mut command);
        run(&mut command, LIMIT)
    }

    fn terraform_environment(&self, command: &mut Command) {
        command
            .env("TF_IN_AUTOMATION", "1")
            .env("TF_INPUT", "0")
            .env("CHECKPOINT_DISABLE", "1");
        match &self.provider {
            Some(light) => light.lead_to(command),
            None => usual_provider(command, &self.directory),
        }
    }

    /// Applies this copy as it stands.
    pub fn apply(&self) {
        self.terraform(&["apply", "-auto-approve"])
            .expect_success("terraform apply");
    }

    /// Runs a script of `scripts/`: at most ten minutes, as terraform.
    pub fn script(&self, name: &str, arguments: &[&str]) -> Outcome {
        let mut command = self.command(repository().join("scripts").join(name));
        run(command.args(arguments), LIMIT)
    }

    /// Destroys everything, the database's volume included.
    pub fn destroy(&self) {
        self.script("destroy.sh", &["--release-volume", "-auto-approve"])
            .expect_success("scripts/destroy.sh");
    }

    /// What terraform would change: `("delete", "aws_eip.nat[0]")`, in the order of addresses.
    pub fn plan(&self) -> Vec<(String, String)> {
        let planned = self.terraform(&["plan", "-detailed-exitcode", "-out=plan"]);
        assert!(
            matches!(planned.code, Some(0 | 2)),
            "terraform plan failed:\n{}",
            planned.text
        );
        if planned.code == Some(0) {
            return Vec::new();
        }
        let shown = self
            .terraform(&["show", "-json", "plan"])
            .expect_success("terraform show");
        let shown: Value = serde_json::from_str(&shown).expect("a plan");
        let mut changes: Vec<_> = shown["resource_changes"]
            .as_array()
            .expect("resource_changes")
            .iter()
            .filter_map(|change| {
                let actions: Vec<_> = change["change"]["actions"]
                    .as_array()?
                    .iter()
                    .filter_map(Value::as_str)
                    .collect();
                (actions != ["no-op"] && actions != ["read"])
                    .then(|| (actions.join("+"), text(&change["address"])))
            })
            .collect();
        changes.sort_by(|one, other| one.1.cmp(&other.1));
        assert!(
            !changes.is_empty(),
            "only outputs would change:\n{}",
            planned.text
        );
        changes
    }

    /// The addresses of what the state holds, data sources left out.
    pub fn resources(&self) -> BTreeSet<String> {
        let listed = self
            .terraform(&["state", "list"])
            .expect_success("terraform state list");
        let addresses = listed.lines().filter(|line| !line.starts_with("data."));
        addresses.map(ToOwned::to_owned).collect()
    }

    /// One output of the applied stack.
    pub fn output(&self, name: &str) -> Value {
        let shown = self
            .terraform(&["output", "-json", name])
            .expect_success("terraform output");
        serde_json::from_str(&shown).expect("an output")
    }

    /// The state, and its backup if there is one, as written to the disk.
    pub fn state(&self) -> Vec<String> {
        ["terraform.tfstate", "terraform.tfstate.backup"]
            .iter()
            .filter_map(|name| fs::read_to_string(self.path(name)).ok())
            .collect()
    }
}

/// Where providers come from is this machine's affair, as it is for the program itself. What has to be generated for it
/// goes into `folder`.
pub fn usual_provider(command: &mut Command, folder: &Path) {
    match cli_config() {
        CliConfig::Generate(text) => {
            let file = folder.join("mirror.tfrc");
            fs::write(&file, text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            command.env("TF_CLI_CONFIG_FILE", file);
        }
        CliConfig::Keep => {
            command.envs(
                std::env::var_os("TF_CLI_CONFIG_FILE").map(|file| ("TF_CLI_CONFIG_FILE", file)),
            );
        }
        CliConfig::Remove => {}
    }
}
