//! `drawbridge status` as an operator runs it, while everything stands and the window is closed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::closing::Script;
use super::report::Current;
use super::world::log_tail;
use crate::appliance::Role;

/// A slow machine starts five `aws` commands at once for it; people get ten seconds.
const SECONDS: &str = "120";
const LIMIT: Duration = Duration::from_secs(150);

/// A look under way.
pub struct Look {
    child: Child,
    output: PathBuf,
    errors: PathBuf,
}

impl Look {
    /// Begins it, with files in `folder`.
    ///
    /// # Errors
    /// If it cannot be run.
    pub fn start(script: &Script<'_>, folder: &Path) -> Result<Look> {
        let (output, errors) = (folder.join("status.json"), folder.join("status.log"));
        let file = |path: &Path| {
            File::create(path).with_context(|| format!("cannot create {}", path.display()))
        };
        let words = ["drawbridge", "status", "--json", "--limit", SECONDS];
        let child = script
            .command(&words, LIMIT)
            .stdout(file(&output)?)
            .stderr(file(&errors)?)
            .spawn()
            .context("cannot run drawbridge status")?;
        Ok(Look {
            child,
            output,
            errors,
        })
    }

    /// Waits for its end. Proves what holds with and without a systemd: without one nobody is root on the hosts, so what
    /// only root may see has to be unknown with its reason. How full this machine is, is its own affair.
    ///
    /// # Errors
    /// If it prints no status.
    pub fn prove(mut self, step: &mut Current<'_>) -> Result<()> {
        let ended = self.child.wait();
        let ended = ended.context("cannot wait for drawbridge status")?;
        let status = fs::read(&self.output).context("cannot read the status")?;
        let status: Value = serde_json::from_slice(&status).with_context(|| {
            let said = log_tail(&self.errors);
            format!("drawbridge status ({ended}) prints no status: {said}")
        })?;
        for role in Role::ALL {
            let host = &status["hosts"][role.as_str()];
            let inside = &host["host"];
            let is_seen = host["instance"]["state"] == "running"
                && host["image"]["created_at"].is_string()
                && host["bootstrap"]["is_complete"] == true
                && inside["memory"]["total_bytes"].is_u64()
                && inside["root_disk"]["total_bytes"].is_u64()
                && inside["uptime_seconds"].is_u64()
                && (role != Role::Database || is_told(&inside["database"]));
            step.prove(
                format!("drawbridge status sees {role} from outside and from inside"),
                is_seen,
                if is_seen {
                    format!("{}, up {} s", host["instance_id"], inside["uptime_seconds"])
                } else {
                    host.to_string()
                },
            );
        }
        let (api, window) = (&status["api"], &status["window"]["window"]);
        let is_fine = api["load_balancer"]["is_ready"] == true
            && api["direct"]["is_ready"] == true
            && window == "closed";
        step.prove(
            "drawbridge status: the API is ready by both ways, the window closed",
            is_fine,
            format!("{}, {}, {window}", api["load_balancer"], api["direct"]),
        );
        Ok(())
    }
}

/// Known, or unknown with a reason.
fn is_told(part: &Value) -> bool {
    part["size_bytes"].is_u64() || part["unknown"].is_string()
}
