//! Plain OpenSSH through the bastion, as people use it: `drawbridge ssh-config`, pinned host keys, `ssh -F`.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::deploy::Operator;
use super::machine::Machine;
use super::probe;
use super::report::Current;
use super::topology::Topology;
use crate::appliance::{LOGIN_USER, Role, TUNNEL_USER};
use crate::flows::{self, End, Flow};

/// Two handshakes take half a second; this is for a machine that is busy with other things.
pub const LIMIT: Duration = Duration::from_secs(120);

/// How OpenSSH says that sshd does not forward there, in the words of RFC 4254.
pub const PROHIBITED: &str = "administratively prohibited";

/// Plain OpenSSH through the bastion with pinned host keys, and with a wrong one; and what the bastion forwards to.
///
/// # Errors
/// If the files for OpenSSH cannot be written.
pub fn prove(
    step: &mut Current<'_>,
    operator: &Operator,
    machine: &Machine,
    folder: &Path,
    topology: &Topology,
    flows: &[Flow],
) -> Result<()> {
    write_config(operator, machine, folder, [])?;
    for role in [Role::Bastion, Role::Backend, Role::Database] {
        let signed_in = sign_in(operator, machine, folder, role);
        step.prove_result(
            claim(role),
            signed_in.map_err(|error| with_missing_flow(error, flows, role)),
        );
    }
    forwarding(step, operator, machine, folder, topology, flows)?;
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

/// The bastion forwards to the ends of its flows, and to no port that none of them names: what `ssh -L` gets.
fn forwarding(
    step: &mut Current<'_>,
    operator: &Operator,
    machine: &Machine,
    folder: &Path,
    topology: &Topology,
    flows: &[Flow],
) -> Result<()> {
    let listed = flows
        .iter()
        .filter(|flow| flow.from == End::Bastion && topology.has_what_it_needs(flow));
    let permitted = flows::ports_from(flows, End::Bastion);
    let others: BTreeSet<u16> = flows
        .iter()
        .map(|flow| flow.port)
        .filter(|port| !permitted.contains(port))
        .collect();
    let host = |end: End| topology.hosts.iter().find(|host| host.end == Some(end));
    let mut targets = Vec::new();
    for flow in listed {
        let to = host(flow.to).with_context(|| format!("the state holds no {}", flow.to))?;
        targets.push((format!("{}:{}", to.name, flow.port), to.address, flow.port));
    }
    let wanted = targets.len();
    let (database, _) = topology
        .instance_host(Role::Database)
        .context("the state holds no database")?;
    targets.extend(
        others
            .iter()
            .map(|port| (format!("database:{port}"), database.address, *port)),
    );
    let answers = std::thread::scope(|scope| {
        let threads = targets
            .iter()
            .map(|(_, address, port)| {
                let target = SocketAddr::from((*address, *port));
                scope.spawn(move || forward(operator, machine, folder, target))
            })
            .collect();
        probe::join(threads)
    });
    let mut refused = Vec::new();
    let mut leaks = Vec::new();
    for (number, ((name, ..), answer)) in targets.iter().zip(answers).enumerate() {
        let answer = answer?;
        if number < wanted {
            step.prove(
                format!("the bastion forwards to {name}"),
                answer.is_empty(),
                if answer.is_empty() {
                    "connected"
                } else {
                    &answer
                },
            );
        } else if answer.contains(PROHIBITED) {
            refused.push(name.as_str());
        } else {
            leaks.push(format!("{name} is not refused: {answer}"));
        }
    }
    step.prove(
        "the bastion forwards to no other port",
        leaks.is_empty() && !refused.is_empty(),
        if leaks.is_empty() {
            format!("refused: {}", refused.join(", "))
        } else {
            leaks.join("; ")
        },
    );
    Ok(())
}

/// The beginning of an ssh command that asks nobody and says why something is refused.
pub fn talkative(config: &str) -> [&str; 7] {
    [
        "ssh",
        "-F",
        config,
        "-o",
        "BatchMode=yes",
        "-o",
        "LogLevel=INFO",
    ]
}

/// Opens one forwarded connection and closes it. Returns what ssh complains of; nothing if it was made.
fn forward(
    operator: &Operator,
    machine: &Machine,
    folder: &Path,
    target: SocketAddr,
) -> Result<String> {
    let config = folder.join("ssh_config").display().to_string();
    let target = target.to_string();
    let bastion = Role::Bastion.to_string();
    let ssh = talkative(&config);
    let output = machine
        .command(
            &[&ssh[..], &["-l", TUNNEL_USER, "-W", &target, &bastion]].concat(),
            LIMIT,
        )
        .environment(operator.environment.clone())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr)
        .trim()
        .replace('\n', " / ");
    Ok(match output.status.code() {
        Some(0) => String::new(),
        Some(124) => format!("no answer within {} s", LIMIT.as_secs()),
        _ => format!("{said} ({})", output.status),
    })
}

/// The likely reason, where the flow table itself leaves the way out.
fn with_missing_flow(error: anyhow::Error, flows: &[Flow], role: Role) -> anyhow::Error {
    let (from, to) = match role {
        Role::Bastion => (End::Admins, End::Bastion),
        private => (End::Bastion, End::from(private)),
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

/// Runs a command on a host, as people do.
///
/// # Errors
/// If ssh cannot be run.
pub fn run(
    operator: &Operator,
    machine: &Machine,
    folder: &Path,
    role: Role,
    command: &str,
) -> Result<Output> {
    let config = folder.join("ssh_config").display().to_string();
    let host = role.to_string();
    machine
        .command(
            &["ssh", "-F", &config, "-o", "BatchMode=yes", &host, command],
            LIMIT,
        )
        .environment(operator.environment.clone())
        .output()
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
    let output = run(operator, machine, folder, role, "uname -n; id -un")?;
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

/// `drawbridge ssh-config`, with `more` in its environment.
///
/// # Errors
/// What the command says.
pub fn write_config(
    operator: &Operator,
    machine: &Machine,
    folder: &Path,
    more: impl IntoIterator<Item = (String, String)>,
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
        .environment(more)
        .output()?;
    ensure!(
        output.status.success(),
        "drawbridge ssh-config: {} ({})",
        String::from_utf8_lossy(&output.stderr).trim(),
        output.status
    );
    Ok(())
}
