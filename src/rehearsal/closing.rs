//! Closing the window with the script people use, before it is time and when it is.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, ExitStatus, Output};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::deploy::Operator;
use super::emulator::Emulator;
use super::follower::read_state;
use super::machine::Machine;
use super::report::Current;
use crate::exit::Exit;
use crate::nat::position::Position;

/// Two plans, an apply with provider waits of 20 s, and proofs.
const CLOSE_LIMIT: Duration = Duration::from_secs(1800);

/// `scripts/destroy-nat.sh` and other commands of an operator: who runs them where.
pub struct Script<'a> {
    /// Whose environment and Terraform folder it uses.
    pub operator: &'a Operator,
    /// Where it runs.
    pub machine: &'a Machine,
    /// The repository it is part of.
    pub root: &'a Path,
}

/// Before any instance has booted, the script must refuse and leave everything as it is.
///
/// # Errors
/// If the script cannot be run.
pub fn too_early(
    step: &mut Current<'_>,
    script: &Script<'_>,
    emulator: &mut Emulator,
) -> Result<()> {
    let output = script.close(emulator)?;
    let report = report(&output)?;
    add_terraform(step, &report);
    let waiting: Vec<&str> = report["waiting"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|host| host["host"].as_str())
        .collect();
    let code = output.status.code();
    step.prove(
        "destroy-nat.sh refuses before the bootstrap is complete",
        code == Some(Exit::NotReady as i32)
            && waiting.contains(&"backend")
            && waiting.contains(&"database"),
        format!(
            "exit status {}, waiting for {}",
            code.unwrap_or(-1),
            waiting.join(", ")
        ),
    );
    let position = Position::read(&script.operator.terraform_dir)?;
    let stands = script.operator.topology()?.nat_gateway().is_some();
    step.prove(
        "nothing was changed",
        position == Position::Open && stands,
        format!(
            "position file {position}, NAT gateway {}",
            if stands { "stands" } else { "is gone" }
        ),
    );
    Ok(())
}

/// Closes the window and takes over what the script itself has proven.
///
/// # Errors
/// If the script cannot be run or says nothing readable.
pub fn close(step: &mut Current<'_>, script: &Script<'_>, emulator: &mut Emulator) -> Result<()> {
    let output = script.close(emulator)?;
    let report = report(&output)?;
    add_terraform(step, &report);
    prove_close(step, "destroy-nat.sh", output.status, &report);
    Ok(())
}

/// Takes over what a close has reported. `who` closed.
pub fn prove_close(step: &mut Current<'_>, who: &str, status: ExitStatus, report: &Value) {
    let outcome = report["outcome"].as_str().unwrap_or("nothing");
    let proofs = report["proofs"].as_array().map_or(&[][..], Vec::as_slice);
    step.prove(
        format!("{who} closes the window"),
        status.success() && outcome == "closed" && !proofs.is_empty(),
        format!(
            "exit status {}, outcome {outcome}{}{}",
            status.code().unwrap_or(-1),
            refusal(report),
            if proofs.is_empty() {
                ", and no proof of it"
            } else {
                ""
            }
        ),
    );
    for proof in proofs {
        let claim = proof["claim"].as_str().unwrap_or("a claim without a name");
        let seen = proof["seen"].as_str().unwrap_or_default();
        step.prove(format!("{who}: {claim}"), proof["holds"] == true, seen);
    }
}

/// The state afterwards holds nothing of the window whose gateway had `address`, and the position says so.
///
/// # Errors
/// If either cannot be read.
pub fn nothing_left(step: &mut Current<'_>, operator: &Operator, address: Ipv4Addr) -> Result<()> {
    let address = address.to_string();
    let state = read_state(&operator.state_file())?;
    let left: Vec<&str> = ["aws_nat_gateway", "aws_scheduler_schedule"]
        .into_iter()
        .flat_map(|kind| state.of_type(kind))
        .chain(
            state
                .of_type("aws_route")
                .filter(|route| route.optional_text("nat_gateway_id").is_some()),
        )
        .chain(
            state
                .of_type("aws_eip")
                .filter(|eip| eip.optional_text("public_ip") == Some(&address)),
        )
        .map(|resource| resource.address.as_str())
        .collect();
    step.prove(
        "gateway, address, route and schedule are gone from the state",
        left.is_empty(),
        if left.is_empty() {
            "none left".to_owned()
        } else {
            left.join(", ")
        },
    );
    let position = Position::read(&operator.terraform_dir)?;
    step.prove(
        "the position file says closed",
        position == Position::Closed,
        position.to_string(),
    );
    Ok(())
}

impl Script<'_> {
    /// A command as the operator gives it, in the repository.
    pub fn command(&self, words: &[&str], limit: Duration) -> Command {
        self.machine
            .command(words, limit)
            .environment(self.operator.environment.clone())
            .folder(self.root)
            .build()
    }

    fn close(&self, emulator: &mut Emulator) -> Result<Output> {
        self.run(&["scripts/destroy-nat.sh", "--json"], CLOSE_LIMIT, emulator)
    }

    /// Runs a [`Script::command`] to its end.
    ///
    /// # Errors
    /// If it cannot be run, or the emulator ends meanwhile.
    pub fn run(&self, words: &[&str], limit: Duration, emulator: &mut Emulator) -> Result<Output> {
        let mut command = self.command(words, limit);
        let shown = words.join(" ");
        emulator.while_it_runs(move || {
            command
                .output()
                .with_context(|| format!("cannot run {shown}"))
        })
    }
}

fn report(output: &Output) -> Result<Value> {
    let said = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = said.lines().rev().take(5).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    if output.status.code() == Some(124) {
        bail!(
            "destroy-nat.sh was not done after {} s; it said last: {}",
            CLOSE_LIMIT.as_secs(),
            last.join(" / ")
        );
    }
    let report: Value = serde_json::from_slice(&output.stdout).with_context(|| {
        format!(
            "destroy-nat.sh ({}) prints no report; it said last: {}",
            output.status,
            last.join(" / ")
        )
    })?;
    ensure!(report.is_object(), "destroy-nat.sh prints no report");
    Ok(report)
}

fn refusal(report: &Value) -> String {
    report["refusal"]
        .as_str()
        .map(|refusal| format!(": {refusal}"))
        .unwrap_or_default()
}

/// Counts the time that a report says was spent waiting for terraform.
pub fn add_terraform(step: &mut Current<'_>, report: &Value) {
    step.add_terraform(Duration::from_secs_f64(
        report["terraform_seconds"].as_f64().unwrap_or(0.0).max(0.0),
    ));
}
