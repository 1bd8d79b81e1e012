//! What is tried while the window is open, and again when it is closed.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::deploy::Operator;
use super::emulator::Emulator;
use super::machine::Machine;
use super::network::{INTERNET, OPERATOR};
use super::probe::{self, Answer};
use super::report::Current;
use super::topology::{Exit, Kind, Topology};
use crate::appliance::{LOGIN_USER, Role, parameter};
use crate::command::access::BASTION_VARIABLE;
use crate::flows::{End, Flow};

/// The instances that must not be reachable from, nor reach, the internet.
pub const PRIVATE: [Role; 2] = [Role::Backend, Role::Database];
/// An unhealthy target takes two checks, five seconds apart, to count as healthy.
const HEALTHY_LIMIT: Duration = Duration::from_secs(30);
/// Two handshakes on a busy machine.
const SSH_LIMIT: Duration = Duration::from_secs(20);

/// What can be said of a topology before anything runs in it.
pub fn of_the_state(step: &mut Current<'_>, topology: &Topology) {
    for role in PRIVATE {
        let Some((host, instance)) = topology.instance_host(role) else {
            step.prove(
                format!("{role} exists"),
                false,
                format!("the state holds no instance with the role {role}"),
            );
            continue;
        };
        step.prove(
            format!("{role} has no public address"),
            host.public.is_none(),
            host.public
                .map_or("only a private one".to_owned(), |public| {
                    format!("{} has {public}", instance.address)
                }),
        );
        let subnet = &topology.subnets[host.subnet];
        let table = &topology.tables[subnet.table];
        let way_out = table
            .routes
            .iter()
            .find(|route| route.exit == Exit::Internet);
        step.prove(
            format!("{role}'s subnet is private"),
            way_out.is_none(),
            match way_out {
                None => format!("{} has no route to the internet gateway", table.address),
                Some(route) => format!(
                    "{} is public: {} leads to the internet gateway",
                    subnet.address, route.address
                ),
            },
        );
        let nat = table
            .routes
            .iter()
            .find(|route| matches!(route.exit, Exit::Nat(_)));
        step.prove(
            format!("{role}'s way out is a route of its own"),
            nat.is_some_and(|route| route.address.starts_with("aws_route.")),
            match nat {
                None => format!("{} has no route to a NAT gateway", table.address),
                Some(route) if route.address.starts_with("aws_route.") => route.address.clone(),
                Some(route) => format!(
                    "the NAT route stands inline in {}, so closing the window would change the route table: make it a \
                     separate aws_route",
                    route.address
                ),
            },
        );
    }
    let open: Vec<&str> = topology
        .instances()
        .filter(|(_, i)| !i.tokens_required)
        .map(|(_, i)| i.address.as_str())
        .collect();
    step.prove(
        "instance metadata needs a session token (IMDSv2)",
        open.is_empty(),
        if open.is_empty() {
            "on every instance".to_owned()
        } else {
            format!("not on {}", open.join(", "))
        },
    );
}

/// The browser's path: documentation, a write and a read, through every node of the load balancer.
pub fn browser(step: &mut Current<'_>, topology: &Topology, web: SocketAddr) {
    for node in topology.load_balancer_nodes() {
        let Some(public) = node.public else {
            step.prove(
                format!("{} is public", node.name),
                false,
                "it has no public address",
            );
            continue;
        };
        let base = format!(
            "http://{public}:{}",
            topology.load_balancer.listeners[0].port
        );
        let name = &node.name;
        step.prove_result(
            format!("internet → {name}: GET /docs"),
            healthy(&base).and_then(|()| docs(&base, Some(INTERNET))),
        );
        step.prove_result(
            format!("internet → {name}: POST and GET /items"),
            items(&base),
        );
    }
    let local = format!("http://{web}");
    step.prove_result(
        format!("this machine's browser: GET {local}/docs"),
        docs(&local, None),
    );
}

/// Waits until the load balancer's health check has found the API.
///
/// # Errors
/// The last answer.
pub fn healthy(base: &str) -> Result<()> {
    let deadline = Instant::now() + HEALTHY_LIMIT;
    loop {
        match probe::request(Some(INTERNET), &format!("{base}/ready"), None, 200) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(
                    error.context(format!("not healthy after {} s", HEALTHY_LIMIT.as_secs()))
                );
            }
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

fn docs(base: &str, namespace: Option<&str>) -> Result<String> {
    let page = probe::request(namespace, &format!("{base}/docs"), None, 200)?;
    ensure!(
        page.to_lowercase().contains("swagger"),
        "{base}/docs is not the API's documentation"
    );
    Ok(format!("200, {} kB", page.len() / 1000))
}

/// Writes an item and finds it in the list and by its id.
///
/// # Errors
/// The request that did not do what it should.
pub fn items(base: &str) -> Result<String> {
    let url = format!("{base}/items");
    let body = r#"{"name":"rehearsal","description":"written through the load balancer"}"#;
    let made: Value = serde_json::from_str(&probe::request(Some(INTERNET), &url, Some(body), 201)?)
        .with_context(|| format!("POST {url} answers no JSON"))?;
    let id = made
        .get("id")
        .and_then(Value::as_str)
        .with_context(|| format!("POST {url} answers without an id"))?;
    let list = probe::request(Some(INTERNET), &url, None, 200)?;
    ensure!(list.contains(id), "GET {url} does not list {id}");
    let found: Value = serde_json::from_str(&probe::request(
        Some(INTERNET),
        &format!("{url}/{id}"),
        None,
        200,
    )?)
    .with_context(|| format!("GET {url}/{id} answers no JSON"))?;
    ensure!(
        found == made,
        "GET {url}/{id} answers something else than POST did"
    );
    Ok(format!("201 and listed, {id}"))
}

/// Plain OpenSSH through the bastion with pinned host keys, and with a wrong one.
///
/// # Errors
/// If the files for OpenSSH cannot be written.
pub fn ssh(
    step: &mut Current<'_>,
    operator: &Operator,
    machine: &Machine,
    folder: &Path,
    flows: &[Flow],
) -> Result<()> {
    write_ssh_config(operator, machine, folder, None)?;
    for role in [Role::Bastion, Role::Backend, Role::Database] {
        let signed_in = ssh_once(operator, machine, folder, role);
        step.prove_result(
            ssh_claim(role),
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
    let refused = ssh_once(operator, machine, folder, Role::Database)
        .err()
        .map(|error| format!("{error:#}"));
    fs::write(&file, pinned).context("cannot write known_hosts")?;
    step.prove(
        "a database with another host key is refused",
        refused
            .as_ref()
            .is_some_and(|error| error.contains("Host key verification failed")),
        refused.map_or("ssh accepted it".to_owned(), |_| {
            "Host key verification failed".to_owned()
        }),
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

fn ssh_claim(role: Role) -> String {
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
pub fn ssh_once(
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
            SSH_LIMIT,
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
    let problem: Vec<&str> = problem
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    bail!("{} {} ({})", said, problem.join(" / "), output.status);
}

/// `drawbridge ssh-config`, optionally for a bastion that is published elsewhere.
///
/// # Errors
/// What the command says.
pub fn write_ssh_config(
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
            SSH_LIMIT,
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

/// While the window is open: both private hosts reach the outside, and are seen there with the gateway's address.
///
/// # Errors
/// If a namespace cannot be entered or the emulator's log cannot be read.
pub fn nat_path(step: &mut Current<'_>, topology: &Topology, emulator: &Emulator) -> Result<()> {
    for role in PRIVATE {
        let answer = probe::connect_once(role.as_str(), Emulator::address())?;
        step.prove(
            format!("{role} → the AWS API"),
            answer == Answer::Connected,
            answer.to_string(),
        );
    }
    let gateway = topology
        .nat_gateway()
        .and_then(|host| host.public)
        .context("the state holds no NAT gateway")?;
    let log = fs::read_to_string(emulator.log()).context("cannot read the emulator's log")?;
    let callers: BTreeSet<Ipv4Addr> = log
        .lines()
        .filter_map(|line| line.split_whitespace().next()?.parse().ok())
        .collect();
    let bastions = topology.instances().filter_map(|(host, _)| host.public);
    let known: BTreeSet<Ipv4Addr> = bastions.chain([gateway, OPERATOR]).collect();
    let shown: Vec<String> = callers.iter().map(Ipv4Addr::to_string).collect();
    step.prove(
        "the AWS API sees private hosts only behind the NAT gateway",
        callers.contains(&gateway) && callers.is_subset(&known),
        format!(
            "calls came from {}; the gateway is {gateway}",
            shown.join(", ")
        ),
    );
    Ok(())
}

/// While it is closed: nothing gets out of either private host.
///
/// # Errors
/// If a namespace cannot be entered.
pub fn no_egress(step: &mut Current<'_>) -> Result<()> {
    for role in PRIVATE {
        let answer = probe::connect_once(role.as_str(), Emulator::address())?;
        step.prove(
            format!("{role} has no way out"),
            answer == Answer::Dropped,
            answer.to_string(),
        );
    }
    Ok(())
}

/// The claims that hold with the window open and closed alike.
///
/// # Errors
/// If the state holds no load balancer node.
pub fn everyday(
    step: &mut Current<'_>,
    topology: &Topology,
    operator: &Operator,
    machine: &Machine,
    folder: &Path,
) -> Result<()> {
    let node = topology
        .load_balancer_nodes()
        .find_map(|node| node.public)
        .context("no public load balancer node")?;
    let base = format!("http://{node}:{}", topology.load_balancer.listeners[0].port);
    step.prove_result(
        "internet → API: POST and GET /items",
        healthy(&base).and_then(|()| items(&base)),
    );
    for role in PRIVATE {
        step.prove_result(ssh_claim(role), ssh_once(operator, machine, folder, role));
    }
    Ok(())
}

/// The database's password is nowhere but where it belongs.
///
/// # Errors
/// If the password cannot be read from the emulator, or a file cannot be searched.
pub fn secrets(
    step: &mut Current<'_>,
    topology: &Topology,
    operator: &Operator,
    machine: &Machine,
    inside: &Path,
) -> Result<()> {
    let parameter = parameter::database_password(&topology.name);
    let query = [
        "aws",
        "ssm",
        "get-parameter",
        "--with-decryption",
        "--output",
        "text",
        "--query",
        "Parameter.Value",
    ];
    let arguments: Vec<&str> = query
        .into_iter()
        .chain(["--region", &topology.region, "--name", &parameter])
        .collect();
    let output = machine
        .command(&arguments, SSH_LIMIT)
        .environment(operator.environment.clone())
        .output()?;
    ensure!(
        output.status.success(),
        "aws ssm: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let secret = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    ensure!(
        secret.len() >= 32,
        "{parameter} holds no password of 32 characters or more"
    );
    let user_data = topology.hosts.iter().filter_map(|host| match &host.kind {
        Kind::Instance(instance) => Some((
            format!("user data of {}", instance.address),
            instance.user_data.clone(),
        )),
        _ => None,
    });
    let (places, searched) = super::secrets::search(&secret, inside, user_data)?;
    step.prove(
        "the database password is in no state, user data, log or argument",
        places.is_empty(),
        if places.is_empty() {
            format!("{searched} places searched")
        } else {
            format!("found in {}", places.join(", "))
        },
    );
    Ok(())
}
