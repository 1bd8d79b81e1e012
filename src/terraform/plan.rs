//! What terraform would change, and the runs that change the state.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use tempfile::TempDir;

use super::{Terraform, TerraformError, scratch_folder};

/// A plan of this topology takes 6-9 s; throttled API calls stretch it.
const PLAN_LIMIT: Duration = Duration::from_secs(5 * 60);

/// One resource a plan wants to change. Resources it leaves alone and data it only reads are not listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedChange {
    /// Terraform address, e.g. `aws_nat_gateway.nat[0]`.
    pub address: String,
    /// Resource type, e.g. `aws_nat_gateway`.
    pub kind: String,
    /// Terraform's word: `create`, `update`, `delete`, `replace`, `move`, `import`, `remove`.
    pub action: String,
}

/// A plan with the file that holds it. The file may contain what the state contains, so it lives in a folder only the
/// user can read and goes with this value.
#[derive(Debug)]
pub struct Plan {
    /// What it wants to change.
    pub changes: Vec<PlannedChange>,
    /// Whether it wants nothing at all, outputs included (`-detailed-exitcode` 0).
    pub is_empty: bool,
    file: PathBuf,
    _folder: TempDir,
}

impl Terraform {
    /// Plans with these variables on top of the files (`("nat_gateway", "false")`), and keeps the plan for
    /// [`Terraform::apply`]. Changes nothing.
    ///
    /// # Errors
    /// Any [`TerraformError`] of a run.
    pub async fn plan(&self, variables: &[(&str, &str)]) -> Result<Plan, TerraformError> {
        self.plan_only(variables, &[]).await
    }

    /// The same for these addresses and what they depend on (`-target`); for everything when there are none.
    ///
    /// # Errors
    /// Any [`TerraformError`] of a run.
    pub async fn plan_only(
        &self,
        variables: &[(&str, &str)],
        addresses: &[&str],
    ) -> Result<Plan, TerraformError> {
        self.plan_with(variables, as_options("-target", addresses))
            .await
    }

    /// The same as [`Terraform::plan`], with these addresses made anew whether they need it or not (`-replace`).
    ///
    /// # Errors
    /// Any [`TerraformError`] of a run.
    pub async fn plan_replacing(
        &self,
        variables: &[(&str, &str)],
        addresses: &[&str],
    ) -> Result<Plan, TerraformError> {
        self.plan_with(variables, as_options("-replace", addresses))
            .await
    }

    async fn plan_with(
        &self,
        variables: &[(&str, &str)],
        options: impl Iterator<Item = OsString>,
    ) -> Result<Plan, TerraformError> {
        let folder = scratch_folder("drawbridge-plan-").map_err(TerraformError::Scratch)?;
        let file = folder.path().join("plan");
        let mut arguments = self.changing(["plan", "-json", "-detailed-exitcode"]);
        let mut out = OsString::from("-out=");
        out.push(&file);
        arguments.push(out);
        arguments.extend(as_variables(variables));
        arguments.extend(options);
        let (code, said) = self.run(&arguments, PLAN_LIMIT, &[0, 2]).await?;
        let changes = said
            .planned
            .into_iter()
            .filter(|change| change.action != "read" && change.action != "noop");
        Ok(Plan {
            changes: changes.collect(),
            is_empty: code == 0,
            file,
            _folder: folder,
        })
    }

    /// Applies exactly this plan. Terraform refuses it when the state has changed since.
    ///
    /// # Errors
    /// Any [`TerraformError`] of a run; the state then says how far it came.
    pub async fn apply(&self, plan: &Plan) -> Result<(), TerraformError> {
        let mut arguments = self.changing(["apply", "-json"]);
        arguments.push(plan.file.clone().into_os_string());
        self.run(&arguments, self.apply_limit, &[0]).await.map(drop)
    }

    /// Plans and applies everything without asking.
    ///
    /// # Errors
    /// Any [`TerraformError`] of a run; the state then says how far it came.
    pub async fn apply_everything(&self) -> Result<(), TerraformError> {
        let arguments = self.changing(["apply", "-json", "-auto-approve"]);
        self.run(&arguments, self.apply_limit, &[0]).await.map(drop)
    }

    /// The input variables that a plan was made with, defaults included. A value that came from the command line or the
    /// environment is a text whatever the variable's type: `"true"`.
    ///
    /// # Errors
    /// Any [`TerraformError`] of a run; [`TerraformError::BadPlan`].
    pub async fn planned_variables(
        &self,
        plan: &Plan,
    ) -> Result<BTreeMap<String, serde_json::Value>, TerraformError> {
        #[derive(Deserialize)]
        struct Shown {
            #[serde(default)]
            variables: BTreeMap<String, Variable>,
        }
        #[derive(Deserialize)]
        struct Variable {
            value: serde_json::Value,
        }
        let mut arguments = ["show", "-no-color", "-json"].map(OsString::from).to_vec();
        arguments.push(plan.file.clone().into_os_string());
        let shown = self.read(&arguments).await?;
        let shown: Shown = serde_json::from_str(&shown).map_err(TerraformError::BadPlan)?;
        let variables = shown.variables.into_iter();
        Ok(variables
            .map(|(name, variable)| (name, variable.value))
            .collect())
    }

    /// Takes what exists already into the state: `import("aws_ebs_volume.database", "vol-…", &[])`. Changes only the
    /// state. `variables` as in [`Terraform::plan`].
    ///
    /// # Errors
    /// Any [`TerraformError`] of a run, also when the address is in the state already.
    pub async fn import(
        &self,
        address: &str,
        id: &str,
        variables: &[(&str, &str)],
    ) -> Result<(), TerraformError> {
        let mut arguments = self.changing(["import", "-no-color"]);
        arguments.extend(as_variables(variables));
        arguments.extend([address, id].map(OsString::from));
        self.run(&arguments, PLAN_LIMIT, &[0]).await.map(drop)
    }

    /// Reads these addresses and what they depend on anew and writes what was read into the state; changes nothing else.
    /// Resources that were imported learn from it what they depend on, without which they would be destroyed in any order.
    ///
    /// # Errors
    /// Any [`TerraformError`] of a run.
    pub async fn refresh_only(
        &self,
        addresses: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<(), TerraformError> {
        let mut arguments = self.changing(["apply", "-json", "-refresh-only", "-auto-approve"]);
        arguments.extend(as_variables(variables));
        arguments.extend(as_options("-target", addresses));
        self.run(&arguments, PLAN_LIMIT, &[0]).await.map(drop)
    }

    /// The arguments of a command that locks the state.
    fn changing<const N: usize>(&self, words: [&str; N]) -> Vec<OsString> {
        let mut arguments = words.map(OsString::from).to_vec();
        arguments.push("-input=false".into());
        arguments.push(format!("-lock-timeout={}s", self.lock_wait.as_secs()).into());
        arguments
    }
}

/// `-var` options; terraform takes each apart at its first `=`.
fn as_variables(variables: &[(&str, &str)]) -> impl Iterator<Item = OsString> {
    variables
        .iter()
        .map(|(name, value)| format!("-var={name}={value}").into())
}

/// `-target=…` or `-replace=…` for each address.
fn as_options(option: &str, addresses: &[&str]) -> impl Iterator<Item = OsString> {
    addresses
        .iter()
        .map(move |address| format!("{option}={address}").into())
}
