//! What is tried while the window is open, and again when it is closed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::authority::Authority;
use super::deploy::Operator;
use super::emulator::Emulator;
use super::invariants::PRIVATE;
use super::load_balancer::{Action, Redirect};
use super::machine::Machine;
use super::network::{INTERNET, OPERATOR};
use super::probe::{self, Answer};
use super::report::Current;
use super::site::Site;
use super::ssh;
use super::topology::{Kind, Topology};
use crate::appliance::parameter;

/// An unhealthy target takes two checks, five seconds apart, to count as healthy; a starved machine misses some.
const HEALTHY_LIMIT: Duration = Duration::from_secs(300);
const NO_ENTRANCE: &str = "no load balancer node has a public address and leads to the API";
/// The aws command takes a second or two to start.
const AWS_LIMIT: Duration = Duration::from_secs(180);

/// The browser's path: documentation, a write and a read, through every node of the load balancer. With a certificate
/// also that nobody goes on without TLS or with an old one. `local` is the way in from this machine.
///
/// # Errors
/// If the authority's certificate cannot be read.
pub fn browser(
    step: &mut Current<'_>,
    topology: &Topology,
    authority: &Authority,
    local: &Site,
) -> Result<()> {
    let balancer = &topology.load_balancer;
    for node in topology.load_balancer_nodes() {
        let name = &node.name;
        let Some(public) = node.public else {
            step.prove(
                format!("{name} is public"),
                false,
                "it has no public address",
            );
            continue;
        };
        let (entrance, group) = balancer.entrance().context(NO_ENTRANCE)?;
        let site = |base: &str, port: u16| {
            let at = SocketAddr::from((public, port));
            Site::new(Some(INTERNET), base.to_owned(), at, authority)
        };
        let main = site(&balancer.url, entrance.port)?;
        step.prove_result(
            format!("internet → {name}: GET /docs"),
            healthy(&main, &group.health_path).and_then(|()| docs(&main)),
        );
        step.prove_result(
            format!("internet → {name}: POST and GET /items"),
            items(&main),
        );
        step.prove_result(
            format!("internet → {name}: GET /metrics is 404"),
            no_metrics(&main),
        );
        for listener in &balancer.listeners {
            if let Action::Redirect(redirect) = &listener.action {
                let plain = site(&format!("http://{}", balancer.host()), listener.port)?;
                step.prove_result(
                    format!("internet → {name}: port {} only redirects", listener.port),
                    redirects(&plain, &balancer.url, redirect),
                );
            }
        }
        if entrance.oldest_tls.is_some() {
            step.prove_result(
                format!("internet → {name}: TLS 1.1 is refused"),
                main.refuses_tls_1_1(),
            );
        }
    }
    step.prove_result(
        format!("this machine's browser: GET {}/docs", local.base()),
        docs(local),
    );
    Ok(())
}

/// The API's public entrance: the load balancer's first node.
///
/// # Errors
/// If there is none.
pub fn entrance(topology: &Topology, authority: &Authority) -> Result<Site> {
    let at = topology.web_address().context(NO_ENTRANCE)?;
    Site::new(
        Some(INTERNET),
        topology.load_balancer.url.clone(),
        at,
        authority,
    )
}

/// Waits until the load balancer's health check has found the API.
fn healthy(site: &Site, path: &str) -> Result<()> {
    let deadline = Instant::now() + HEALTHY_LIMIT;
    loop {
        match site.get(path) {
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

fn docs(site: &Site) -> Result<String> {
    let page = site.get("/docs")?;
    ensure!(
        page.to_lowercase().contains("swagger"),
        "{}/docs is not the API's documentation",
        site.base()
    );
    Ok(format!("200, {} kB", page.len() / 1000))
}

/// Signs in as the rehearsal's own user, who registers the first time.
fn sign_in(site: &Site) -> Result<String> {
    const LOGIN: &str = r#"{"email":"rehearsal@example.org","password":"nothing is kept here"}"#;
    const REGISTER: &str =
        r#"{"name":"Rehearsal","email":"rehearsal@example.org","password":"nothing is kept here"}"#;
    let mut answer = site.answer_to_post("/auth/login", LOGIN, None)?;
    if answer.status == 401 {
        site.post("/auth/register", REGISTER)?;
        answer = site.answer_to_post("/auth/login", LOGIN, None)?;
    }
    ensure!(
        answer.status == 200,
        "POST /auth/login answers {}",
        answer.status
    );
    let session: Value =
        serde_json::from_str(&answer.body).context("POST /auth/login answers no JSON")?;
    let token = session.get("token").and_then(Value::as_str);
    Ok(token
        .context("POST /auth/login answers without a token")?
        .to_owned())
}

/// Writes an item, which only who has signed in may do, and finds it in the list and by its id.
fn items(site: &Site) -> Result<String> {
    let body = r#"{"name":"rehearsal","description":"written through the load balancer"}"#;
    let refused = site.answer_to_post("/items", body, None)?.status;
    ensure!(
        refused == 401,
        "POST /items without a token answers {refused} instead of 401"
    );
    let token = sign_in(site)?;
    let made = site.post_as(&token, "/items", body)?;
    let made: Value = serde_json::from_str(&made).context("POST /items answers no JSON")?;
    let id = made
        .get("id")
        .and_then(Value::as_str)
        .context("POST /items answers without an id")?;
    let list = site.get("/items")?;
    ensure!(list.contains(id), "GET /items does not list {id}");
    let found: Value = serde_json::from_str(&site.get(&format!("/items/{id}"))?)
        .with_context(|| format!("GET /items/{id} answers no JSON"))?;
    ensure!(
        found == made,
        "GET /items/{id} answers something else than POST did"
    );
    Ok(format!(
        "401 without a token, 201 with one, and listed, {id}"
    ))
}

/// What the API counts is not for whoever comes through the load balancer.
fn no_metrics(site: &Site) -> Result<String> {
    let answer = site.answer("/metrics")?;
    ensure!(
        answer.status == 404,
        "{}/metrics answers {} instead of 404",
        site.base(),
        answer.status
    );
    Ok("404".to_owned())
}

/// A request without TLS is sent to the same place at `url`, and gets nothing else.
fn redirects(plain: &Site, url: &str, redirect: &Redirect) -> Result<String> {
    const ASKED: &str = "/items?from=rehearsal";
    let answer = plain.answer(ASKED)?;
    let wanted = format!("{url}:{}{ASKED}", redirect.port);
    let location = answer.location.unwrap_or_default();
    ensure!(
        answer.status == redirect.status && location == wanted,
        "{}{ASKED} answers {} and leads to {location:?} instead of {wanted:?}",
        plain.base(),
        answer.status
    );
    Ok(format!("{} to {location}", answer.status))
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
    authority: &Authority,
    operator: &Operator,
    machine: &Machine,
    folder: &Path,
) -> Result<()> {
    let (_, group) = topology.load_balancer.entrance().context(NO_ENTRANCE)?;
    let site = entrance(topology, authority)?;
    step.prove_result(
        "internet → API: POST and GET /items",
        healthy(&site, &group.health_path).and_then(|()| items(&site)),
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
    let secret = login(topology, operator, machine)?.password;
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

/// How the application logs in to the database, as the emulator holds it.
#[derive(Deserialize)]
pub struct Login {
    /// Postgres role.
    pub username: String,
    /// In clear.
    pub password: String,
}

/// The published login.
///
/// # Errors
/// If the emulator cannot be asked, or holds none.
pub fn login(topology: &Topology, operator: &Operator, machine: &Machine) -> Result<Login> {
    let parameter = parameter::database_login(&topology.name);
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
    // No word of what is wrong with it: it may hold the password.
    let login: Option<Login> = serde_json::from_slice(&output.stdout).ok();
    login
        .filter(|login| login.password.len() >= 32)
        .with_context(|| format!("{parameter} holds no password of 32 characters or more"))
}
