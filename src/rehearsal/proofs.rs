//! What is tried while the window is open, and again when it is closed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::deploy::Operator;
use super::emulator::Emulator;
use super::invariants::PRIVATE;
use super::machine::Machine;
use super::network::{INTERNET, OPERATOR};
use super::probe::{self, Answer};
use super::report::Current;
use super::ssh;
use super::topology::{Kind, Topology};
use crate::appliance::parameter;

/// An unhealthy target takes two checks, five seconds apart, to count as healthy.
const HEALTHY_LIMIT: Duration = Duration::from_secs(30);
/// The aws command takes a second or two to start.
const AWS_LIMIT: Duration = Duration::from_secs(20);

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
    let bastions = topology
        .instances()
        .filter_map(|(host, _)| Some((host.public?, host.name.as_str())));
    let known: BTreeMap<Ipv4Addr, &str> = bastions
        .chain([(gateway, "the NAT gateway"), (OPERATOR, "the operator")])
        .collect();
    let shown: Vec<String> = callers
        .iter()
        .map(|caller| match known.get(caller) {
            Some(name) => format!("{name} ({caller})"),
            None => format!("{caller}, which is nobody's"),
        })
        .collect();
    step.prove(
        "the AWS API sees private hosts only behind the NAT gateway",
        callers.contains(&gateway) && callers.iter().all(|caller| known.contains_key(caller)),
        format!("calls came from {}", shown.join(", ")),
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
    let web = topology
        .web_address()
        .context("no load balancer node has a public address")?;
    let base = format!("http://{web}");
    step.prove_result(
        "internet → API: POST and GET /items",
        healthy(&base).and_then(|()| items(&base)),
    );
    for role in PRIVATE {
        step.prove_result(
            ssh::claim(role),
            ssh::sign_in(operator, machine, folder, role),
        );
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
        "--region",
        &topology.region,
        "--name",
        &parameter,
    ];
    let output = machine
        .command(&query, AWS_LIMIT)
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
