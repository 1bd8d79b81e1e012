//! `drawbridge audit` on what the rehearsal leaves: a fresh deployment with its window closed has nothing to find.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::closing::Script;
use super::report::Current;
use super::world::log_tail;

/// Some twenty calls of the aws command, which takes a second or two to start.
const LIMIT: Duration = Duration::from_secs(1200);

/// An audit under way. It costs this machine more time than the steps beside it, which mostly wait.
pub struct Audit {
    child: Child,
    output: PathBuf,
    errors: PathBuf,
}

impl Audit {
    /// Begins it, with files in `folder`.
    ///
    /// # Errors
    /// If it cannot be run.
    pub fn start(script: &Script<'_>, folder: &Path) -> Result<Audit> {
        let (output, errors) = (folder.join("audit.json"), folder.join("audit.log"));
        let file = |path: &Path| {
            File::create(path).with_context(|| format!("cannot create {}", path.display()))
        };
        let child = script
            .command(&["drawbridge", "audit", "--json"], LIMIT)
            .stdout(file(&output)?)
            .stderr(file(&errors)?)
            .spawn()
            .context("cannot run drawbridge audit")?;
        Ok(Audit {
            child,
            output,
            errors,
        })
    }

    /// Waits for its end: nothing is left over and nothing was added by hand.
    ///
    /// # Errors
    /// If it prints no report.
    pub fn prove(mut self, step: &mut Current<'_>) -> Result<()> {
        let status = self
            .child
            .wait()
            .context("cannot wait for drawbridge audit")?;
        let report = fs::read(&self.output).context("cannot read the audit's report")?;
        let report: Value = serde_json::from_slice(&report).with_context(|| {
            let said = log_tail(&self.errors);
            format!("drawbridge audit ({status}) prints no report: {said}")
        })?;
        let list = |field: &str| report[field].as_array().map_or(&[][..], Vec::as_slice);
        let looks = list("looks").len();
        let found: Vec<String> = list("findings")
            .iter()
            .chain(list("unknown"))
            .map(Value::to_string)
            .collect();
        step.prove(
            "drawbridge audit finds nothing",
            status.success() && found.is_empty() && looks > 0,
            if found.is_empty() {
                format!("{status} after {looks} looks")
            } else {
                format!("{status}: {}", found.join(", "))
            },
        );
        Ok(())
    }
}
