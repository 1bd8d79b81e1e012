//! The one place that runs terraform.
//!
//! Every call has a time limit, passes Ctrl-C on, shows terraform's lines as they come and counts the seconds, so that
//! a command can say how long it waited for terraform apart from its own work.

mod child;
mod deployment;
mod error;
mod place;
mod plan;
pub mod state;
mod ui;
pub(crate) mod variables_file;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use self::child::{Line, Run};
#[cfg(test)]
pub(crate) use self::deployment::tests;
pub use self::deployment::{Bastion, Deployment, Instance, LoadBalancer, NatGateway};
pub use self::error::TerraformError;
pub use self::place::{
    CliConfig, DIRECTORY_VARIABLE, MIRROR_VARIABLE, cli_config, directory, executable,
    mirror_config,
};
pub use self::plan::{Plan, PlannedChange};
use crate::interrupt::Interrupt;
use crate::progress::Progress;

/// `output` and `state pull` read the state and nothing else; a remote state over a slow line takes seconds.
const READ_LIMIT: Duration = Duration::from_secs(60);
/// `init` may download the AWS provider, about 150 MB packed.
const INIT_LIMIT: Duration = Duration::from_secs(10 * 60);
/// An apply takes 86-98 s; a replaced database volume or load balancer takes several minutes on AWS.
const APPLY_LIMIT: Duration = Duration::from_secs(30 * 60);

/// How long to wait for somebody else's lock on the state: longer than a plan holds it, shorter than people wait in front
/// of a silent terminal.
const LOCK_WAIT: Duration = Duration::from_secs(30);

/// Where terraform looks for arguments of the commands that are run here.
const ARGUMENT_VARIABLES: [&str; 9] = [
    "TF_CLI_ARGS",
    "TF_CLI_ARGS_apply",
    "TF_CLI_ARGS_destroy",
    "TF_CLI_ARGS_import",
    "TF_CLI_ARGS_init",
    "TF_CLI_ARGS_output",
    "TF_CLI_ARGS_plan",
    "TF_CLI_ARGS_show",
    "TF_CLI_ARGS_state_pull",
];

/// How an environment variable differs from our own for terraform.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Set(OsString),
    Remove,
}

/// Terraform in one directory. Cheap to clone; clones share the count of seconds.
#[derive(Clone, Debug)]
pub struct Terraform {
    binary: PathBuf,
    directory: PathBuf,
    environment: Vec<(OsString, Change)>,
    progress: Progress,
    interrupt: Interrupt,
    spent: Arc<Mutex<Duration>>,
    lock_wait: Duration,
    apply_limit: Duration,
    // Warnings shown so far: each command says them again.
    warned: Arc<Mutex<BTreeSet<String>>>,
    // Holds the generated CLI configuration for as long as terraform may be run.
    _scratch: Option<Arc<TempDir>>,
}

impl Terraform {
    /// Terraform from the `PATH` in `given`, or in `terraform/` of the current folder or the nearest one above it.
    /// Callers pass `--terraform-dir` / [`DIRECTORY_VARIABLE`] as `given` (clap reads both).
    ///
    /// # Errors
    /// When either cannot be found.
    pub fn find(given: Option<&Path>) -> Result<Self, TerraformError> {
        let binary = executable("terraform", env::var_os("PATH").as_deref())
            .ok_or(TerraformError::NotInstalled)?;
        let here = env::current_dir().map_err(TerraformError::Scratch)?;
        Self::new(binary, directory(given, &here)?)
    }

    /// This executable in this directory (absolute, with `*.tf` files).
    ///
    /// # Errors
    /// When the generated CLI configuration cannot be written.
    pub fn new(binary: PathBuf, directory: PathBuf) -> Result<Self, TerraformError> {
        let set = |name: &str, value: &OsStr| (OsString::from(name), Change::Set(value.to_owned()));
        let mut environment = vec![
            set("TF_IN_AUTOMATION", OsStr::new("1")),
            set("TF_INPUT", OsStr::new("0")),
            set("CHECKPOINT_DISABLE", OsStr::new("1")),
        ];
        // Arguments of the user's shell would change what a plan or an answer means here.
        environment
            .extend(ARGUMENT_VARIABLES.map(|variable| (OsString::from(variable), Change::Remove)));
        let mut scratch = None;
        match cli_config() {
            CliConfig::Keep => {}
            CliConfig::Remove => environment.push(("TF_CLI_CONFIG_FILE".into(), Change::Remove)),
            CliConfig::Generate(text) => {
                let folder =
                    scratch_folder("drawbridge-terraform-").map_err(TerraformError::Scratch)?;
                let file = folder.path().join("cli.tfrc");
                fs::write(&file, text).map_err(TerraformError::Scratch)?;
                environment.push(set("TF_CLI_CONFIG_FILE", file.as_os_str()));
                scratch = Some(Arc::new(folder));
            }
        }
        Ok(Self {
            binary,
            directory,
            environment,
            progress: Progress::quiet(),
            interrupt: Interrupt::never(),
            spent: Arc::default(),
            lock_wait: LOCK_WAIT,
            apply_limit: APPLY_LIMIT,
            warned: Arc::default(),
            _scratch: scratch,
        })
    }

    /// Shows terraform's lines there.
    #[must_use]
    pub fn with_progress(mut self, progress: Progress) -> Self {
        self.progress = progress;
        self
    }

    /// Passes these signals on. Terraform runs in a process group of its own, so without this a Ctrl-C on the terminal
    /// does not reach it.
    #[must_use]
    pub fn with_interrupt(mut self, interrupt: Interrupt) -> Self {
        self.interrupt = interrupt;
        self
    }

    /// Sets an environment variable for terraform alone, e.g. `AWS_ENDPOINT_URL` or `TF_VAR_name`.
    #[must_use]
    pub fn with_variable(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment
            .push((name.into(), Change::Set(value.into())));
        self
    }

    /// Waits this long for somebody else's lock on the state, in whole seconds, instead of 30 s.
    #[must_use]
    pub fn with_lock_wait(mut self, wait: Duration) -> Self {
        self.lock_wait = wait;
        self
    }

    /// Gives an apply this long instead of 30 min; then it is asked to stop, as by Ctrl-C.
    #[must_use]
    pub fn with_apply_limit(mut self, limit: Duration) -> Self {
        self.apply_limit = limit;
        self
    }

    /// The terraform directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Time spent waiting for terraform so far, by this value and its clones.
    #[must_use]
    pub fn spent(&self) -> Duration {
        *self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `terraform init` without upgrading providers.
    ///
    /// # Errors
    /// Any [`TerraformError`] of a run.
    pub async fn init(&self) -> Result<(), TerraformError> {
        self.run(&["init", "-no-color", "-input=false"], INIT_LIMIT, &[0])
            .await
            .map(drop)
    }

    /// The output `deployment`.
    ///
    /// # Errors
    /// [`TerraformError::NotApplied`] without one, [`TerraformError::BadOutput`] for one of another shape.
    pub async fn deployment(&self) -> Result<Deployment, TerraformError> {
        let directory = || self.directory.clone();
        match self
            .read(&["output", "-no-color", "-json", "deployment"])
            .await
        {
            Ok(json) => Deployment::parse(&json).map_err(|problem| TerraformError::BadOutput {
                problem,
                directory: directory(),
            }),
            // Terraform's only sign is its text; it has been the same since 0.12.
            Err(TerraformError::Failed { message, .. })
                if message.contains("\"deployment\" not found") =>
            {
                Err(TerraformError::NotApplied {
                    directory: directory(),
                })
            }
            Err(error) => Err(error),
        }
    }

    /// An output that is a text, e.g. `docs_url`; `None` when the configuration has none of that name.
    ///
    /// # Errors
    /// Any [`TerraformError`] of a run.
    pub async fn text_output(&self, name: &str) -> Result<Option<String>, TerraformError> {
        let outputs = self.read(&["output", "-no-color", "-json"]).await?;
        let outputs: BTreeMap<String, serde_json::Value> =
            serde_json::from_str(&outputs).unwrap_or_default();
        let text = outputs
            .get(name)
            .and_then(|output| output["value"].as_str());
        Ok(text.map(str::to_owned))
    }

    /// Whether `init` has been run in this folder, whatever has become of it since.
    #[must_use]
    pub fn is_initialised(&self) -> bool {
        self.data().is_dir()
    }

    /// Where the state is kept: `s3`, say; `local` is a file of this machine.
    #[must_use]
    pub fn backend(&self) -> String {
        // Terraform's own note of the backend that `init` has settled on.
        let noted = fs::read_to_string(self.data().join("terraform.tfstate")).unwrap_or_default();
        let noted: serde_json::Value = serde_json::from_str(&noted).unwrap_or_default();
        let kind = noted["backend"]["type"].as_str();
        kind.unwrap_or("local").to_owned()
    }

    /// `.terraform`, or where `TF_DATA_DIR` has it.
    fn data(&self) -> PathBuf {
        let named = env::var_os("TF_DATA_DIR").filter(|folder| !folder.is_empty());
        let named = named.unwrap_or_else(|| ".terraform".into());
        self.directory.join(named)
    }

    /// What `terraform version -json` prints: `terraform_version` among others.
    ///
    /// # Errors
    /// Any [`TerraformError`] of a run.
    pub async fn version_json(&self) -> Result<String, TerraformError> {
        self.read(&["version", "-json"]).await
    }

    /// The state as terraform keeps it: JSON, format version 4.
    ///
    /// # Errors
    /// [`TerraformError::NotApplied`] when there is none.
    pub async fn state_pull(&self) -> Result<String, TerraformError> {
        let state = self.read(&["state", "pull", "-no-color"]).await?;
        if state.trim().is_empty() {
            return Err(TerraformError::NotApplied {
                directory: self.directory.clone(),
            });
        }
        Ok(state)
    }

    /// Runs a command whose stdout is the answer.
    async fn read(&self, arguments: &[impl AsRef<OsStr>]) -> Result<String, TerraformError> {
        let mut answer = String::new();
        let mut errors = Vec::new();
        let code = self
            .follow(arguments, READ_LIMIT, |line| match line {
                Line::Out(text) => {
                    answer.push_str(&text);
                    answer.push('\n');
                    None
                }
                Line::Err(text) => {
                    errors.push(text.clone());
                    Some(text)
                }
            })
            .await?;
        if code == 0 {
            Ok(answer)
        } else {
            Err(self.failed(arguments, errors))
        }
    }

    /// Runs a command that talks, plainly or in `-json` lines.
    async fn run(
        &self,
        arguments: &[impl AsRef<OsStr>],
        limit: Duration,
        good: &[i32],
    ) -> Result<(i32, Said), TerraformError> {
        let mut said = Said::default();
        let code = self
            .follow(arguments, limit, |line| {
                let (text, stays) = said.hear(line)?;
                if !stays {
                    self.progress.line(&text);
                } else if self.is_news(&text) {
                    self.progress.say(&text);
                }
                Some(text)
            })
            .await?;
        if good.contains(&code) {
            Ok((code, said))
        } else {
            Err(self.failed(arguments, said.errors))
        }
    }

    /// Whether this warning has not been shown yet.
    fn is_news(&self, warning: &str) -> bool {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        warned.insert(warning.to_owned())
    }

    /// What a command's error lines mean.
    fn failed(&self, arguments: &[impl AsRef<OsStr>], errors: Vec<String>) -> TerraformError {
        let command = arguments.first().map(AsRef::as_ref);
        let command = command.unwrap_or_default().to_string_lossy();
        error::of_lines(&command, &errors, &self.directory)
    }

    async fn follow(
        &self,
        arguments: &[impl AsRef<OsStr>],
        limit: Duration,
        each: impl FnMut(Line) -> Option<String>,
    ) -> Result<i32, TerraformError> {
        let run = Run {
            binary: &self.binary,
            directory: &self.directory,
            environment: &self.environment,
            arguments: arguments
                .iter()
                .map(|argument| argument.as_ref().to_owned())
                .collect(),
            limit,
        };
        let start = Instant::now();
        let ended = run.follow(&self.interrupt, each).await;
        *self.spent.lock().unwrap_or_else(PoisonError::into_inner) += start.elapsed();
        // No code means a signal: a failure like any other, but never 0.
        Ok(ended?.code().unwrap_or(-1))
    }
}

/// A folder that only this user can read: a plan holds what the state holds.
fn scratch_folder(prefix: &str) -> std::io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder
        .prefix(prefix)
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir()
}

/// What a talking run said.
#[derive(Default)]
struct Said {
    planned: Vec<PlannedChange>,
    errors: Vec<String>,
}

impl Said {
    /// Takes a line in; returns what is worth showing, and whether it stays: a warning.
    fn hear(&mut self, line: Line) -> Option<(String, bool)> {
        let mut stays = false;
        let text = match line {
            Line::Err(text) => {
                self.errors.push(text.clone());
                text
            }
            Line::Out(text) => match ui::read(&text) {
                ui::Message::Planned(change) => {
                    let text = format!("{}: plan to {}", change.address, change.action);
                    self.planned.push(change);
                    text
                }
                ui::Message::Error(text) => {
                    self.errors.push(text.clone());
                    text
                }
                ui::Message::Warning(text) => {
                    stays = true;
                    format!("terraform warns: {text}")
                }
                ui::Message::Noise => return None,
                ui::Message::Said(text) => text,
            },
        };
        let text = text.trim().to_owned();
        (!text.is_empty()).then_some((text, stays))
    }
}

#[cfg(test)]
mod environment_tests {
    use super::*;

    #[test]
    fn arguments_of_the_users_shell_reach_no_command() {
        let terraform = Terraform::new("/usr/bin/env".into(), "/".into()).unwrap();
        for name in ARGUMENT_VARIABLES {
            let mut all = terraform.environment.iter();
            let removed =
                all.any(|(variable, change)| variable == name && matches!(change, Change::Remove));
            assert!(removed, "{name}");
        }
    }
}
