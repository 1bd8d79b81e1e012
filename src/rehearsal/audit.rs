//! `drawbridge audit` on what the rehearsal leaves: a fresh deployment with its window closed has nothing to find.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::closing::Script;
use super::emulator::Emulator;
use super::report::Current;

/// Some twenty calls of the aws command, which takes a second or two to start.
const LIMIT: Duration = Duration::from_secs(180);

/// Nothing is left over and nothing was added by hand.
///
/// # Errors
/// If the command cannot be run or prints no report.
pub fn prove(step: &mut Current<'_>, script: &Script<'_>, emulator: &mut Emulator) -> Result<()> {
    let output = script.run(&["drawbridge", "audit", "--json"], LIMIT, emulator)?;
    let said = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).with_context(|| {
        let last = said.lines().last().unwrap_or_default();
        format!(
            "drawbridge audit ({}) prints no report: {last}",
            output.status
        )
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
        output.status.success() && found.is_empty() && looks > 0,
        if found.is_empty() {
            format!("{} after {looks} looks", output.status)
        } else {
            format!("{}: {}", output.status, found.join(", "))
        },
    );
    Ok(())
}
