//! Plain OpenSSH through the bastion, as people use it: `drawbridge ssh-config`, pinned host keys, `ssh -F`.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::deploy::Operator;
use super::machine::Machine;
use super::report::Current;
use crate::appliance::{LOGIN_USER, Role};
use crate::command::access::BASTION_VARIABLE;
use crate::flows::{End, Flow};

/// Two handshakes on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

/// Plain OpenSSH through the bastion with pinned host keys, and with a wrong one.
///
/// # Errors
/// If the files for OpenSSH cannot be written.
pub fn prove(
    step: &mut Current<'_>,
    operator: &Operator,
    machine: &Machine,
    folder: &Path,
    flows: &[Flow],
) -> Result<()> {
    write_config(operator, machine, folder, None)?;
    for role in [Role::Bastion, Role::Backend, Role::Database] {
        let signed_in = sign_in(operator, machine, folder, role);
        step.prove_result(
            claim(role),
            signed_in.map_err(|error| with_missing_flow(error, flows, role)),
        );
    }
    // The backend's key in the place of the database's: what a replaced or impersonated host looks like.
    let file = folder.join("known_hosts");
    let pinned = fs::read_to_string(&file).context("cannot read known_hosts")?;
    let key = |role: Role| {
        pinned
            .lines()
            .find(|line| line.contains(role.as_str()))
            .and_then(|line| line.split_once(' '))
    };
    let (Some((database, right)), Some((_, wrong))) = (key(Role::Database), key(Role::Backend))
    else {
        bail!(
            "{} does not hold the keys of both private hosts",
            file.display()
        );
    };
    let swapped = pinned.replace(
        &format!("{database} {right}"),
        &format!("{database} {wrong}"),
    );
    fs::write(&file, swapped).context("cannot write known_hosts")?;
    let refused = sign_in(operator, machine, folder, Role::Database)
        .err()
        .map(|error| format!("{error:#}"));
    fs::write(&file, pinned).context("cannot write known_hosts")?;
    step.prove(
        "a database with another host key is refused",
        refused
            .as_ref()
            .is_some_and(|error| error.contains("Host key verification failed")),
        refused.unwrap_or_else(|| "ssh accepted it".to_owned()),
    );
    Ok(())
}

/// The likely reason, where the flow table itself leaves the way out.
fn with_missing_flow(error: anyhow::Error, flows: &[Flow], role: Role) -> anyhow::Error {
    let (from, to) = match role {
        Role::Bastion => (End::Admins, End::Bastion),
        Role::Backend => (End::Bastion, End::Backend),
        Role::Database => (End::Bastion, End::Database),
    };
    if flows.iter().any(|flow| flow.from == from && flow.to == to) {
        error
    } else {
        error.context(format!("flows.json lists no flow {from} → {to}:22"))
    }
}

/// The claim that somebody signs in to a host.
pub fn claim(role: Role) -> String {
    if role == Role::Bastion {
        "ssh to the bastion".to_owned()
    } else {
        format!("ssh to {role} through the bastion")
    }
}

/// Signs in once and asks the host for its name.
///
/// # Errors
/// What ssh says.
pub fn sign_in(
    operator: &Operator,
    machine: &Machine,
    folder: &Path,
    role: Role,
) -> Result<String> {
    let config = folder.join("ssh_config").display().to_string();
    let host = role.to_string();
    let output = machine
        .command(
            &[
                "ssh",
                "-F",
                &config,
                "-o",
                "BatchMode=yes",
                &host,
                "uname -n; id -un",
            ],
            LIMIT,
        )
        .environment(operator.environment.clone())
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout)
        .trim()
        .replace('\n', " as ");
    let expected = format!("{role} as {LOGIN_USER}");
    if output.status.success() && said == expected {
        return Ok(said);
    }
    let problem = String::from_utf8_lossy(&output.stderr);
    // Its last words say why; above them stand banners.
    let last: Vec<&str> = problem
        .lines()
        .rev()
        .filter(|line| !line.trim().is_empty())
        .take(2)
        .collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    bail!("{said}{} ({})", last.join(" / "), output.status);
}

/// `drawbridge ssh-config`, optionally for a bastion that is published elsewhere.
///
/// # Errors
/// What the command says.
pub fn write_config(
    operator: &Operator,
    machine: &Machine,
    folder: &Path,
    bastion: Option<SocketAddr>,
) -> Result<()> {
    let output = machine
        .command(
            &[
                "drawbridge",
                "ssh-config",
                "--output",
                &folder.display().to_string(),
            ],
            LIMIT,
        )
        .environment(operator.environment.clone())
        .environment(bastion.map(|address| (BASTION_VARIABLE, address.to_string())))
        .output()?;
    ensure!(
        output.status.success(),
        "drawbridge ssh-config: {} ({})",
        String::from_utf8_lossy(&output.stderr).trim(),
        output.status
    );
    Ok(())
}
