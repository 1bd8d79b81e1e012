//! Carries the network out: creates namespaces, runs `ip` and `nft` in them, and lends a thread to them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};

use super::network::{self, INTERNET, Link, ROUTER, Stray};
use super::packet_rules;
use super::topology::Topology;

/// Where `ip netns` keeps names. In the rehearsal's own mount namespace, so that the machine never sees them.
const NAMES: &str = "/run/netns";

/// What the kernel's network does by default and a cloud's router must not, or the reverse.
const ROUTER_SETTINGS: [(&str, &str); 4] = [
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    // Answers for the neighbours of each host, so that packets within a subnet come through here too.
    ("ipv4/conf/default/proxy_arp", "1"),
];

/// The rehearsed network, as far as it has been built.
pub struct Network {
    built: BTreeSet<String>,
}

impl Network {
    /// Makes the outside world and the VPC's router, which stand before Terraform has run.
    ///
    /// # Errors
    /// The command that failed and what it said.
    pub fn start() -> Result<Network> {
        for name in [ROUTER, INTERNET] {
            add(name)?;
        }
        inside(ROUTER, || {
            ROUTER_SETTINGS
                .iter()
                .try_for_each(|(key, value)| set(key, value))
        })??;
        ip(ROUTER, &network::router())?;
        ip(INTERNET, &network::internet())?;
        Ok(Network {
            built: BTreeSet::new(),
        })
    }

    /// Makes the network what `topology` says: adds what is missing, removes what is gone, sets routes and rules anew.
    ///
    /// # Errors
    /// The command that failed and what it said.
    pub fn follow(&mut self, topology: &Topology, stray: &Stray) -> Result<()> {
        let links = network::links(topology, stray);
        let gone: Vec<String> = self
            .built
            .iter()
            .filter(|name| !links.iter().any(|l| l.name == name.as_str()))
            .cloned()
            .collect();
        for name in gone {
            ip(ROUTER, &network::router_unlink(&name))?;
            remove(&name)?;
            self.built.remove(&name);
        }
        if self.built.is_empty() {
            ip(INTERNET, &network::internet_to_vpc(topology.vpc))?;
        }
        for link in links.iter().filter(|link| !self.built.contains(link.name)) {
            connect(topology, link)?;
        }
        ip(ROUTER, &network::routes(topology, stray))?;
        nft(ROUTER, &packet_rules::router_rules(topology, stray))?;
        if let Some(gateway) = topology.nat_gateway()
            && !self.built.contains(&gateway.name)
        {
            inside(&gateway.name, || {
                set("ipv4/ip_forward", "1")?;
                // It sends back by the interface a packet came from; without this it would tell hosts to skip it.
                set("ipv4/conf/all/send_redirects", "0")?;
                set("ipv4/conf/eth0/send_redirects", "0")
            })??;
            nft(&gateway.name, &packet_rules::nat_rules(topology, gateway))?;
        }
        self.built = links.iter().map(|link| link.name.to_owned()).collect();
        Ok(())
    }
}

fn connect(topology: &Topology, link: &Link<'_>) -> Result<()> {
    add(link.name)?;
    ip(ROUTER, &network::router_link(topology, link))?;
    // The kernel lets a proxied ARP answer wait up to 0.8 s.
    let delay = format!("ipv4/neigh/{}/proxy_delay", network::link_name(link.name));
    inside(ROUTER, || set(&delay, "0"))??;
    ip(ROUTER, &network::rule(topology, link))?;
    ip(link.name, &network::host_link(topology, link))
}

/// Path of a namespace's handle, for `nsenter --net=`.
pub fn handle(name: &str) -> PathBuf {
    PathBuf::from(NAMES).join(name)
}

/// Runs `work` on a thread of its own inside the network namespace `name`. Sockets made there belong to it for good,
/// and so do processes started there.
///
/// # Errors
/// If the namespace cannot be entered.
pub fn inside<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    let file = File::open(handle(name)).with_context(|| format!("no network namespace {name}"))?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(&file, CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("cannot enter namespace {name}"))?;
            Ok(work())
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn add(name: &str) -> Result<()> {
    run(Command::new("ip").args(["netns", "add", name]), "")
}

fn remove(name: &str) -> Result<()> {
    run(Command::new("ip").args(["netns", "del", name]), "")
}

/// `ip -batch` in a namespace.
fn ip(name: &str, batch: &str) -> Result<()> {
    run(Command::new("ip").args(["-n", name, "-batch", "-"]), batch)
        .with_context(|| format!("ip -batch in namespace {name}"))
}

/// `nft -f` in a namespace: all of it or nothing.
fn nft(name: &str, rules: &str) -> Result<()> {
    let net = format!("--net={}", handle(name).display());
    run(
        Command::new("nsenter").args([net.as_str(), "nft", "-f", "-"]),
        rules,
    )
    .with_context(|| format!("nft -f in namespace {name}, for these rules:\n{rules}"))
}

/// Writes a setting of the calling thread's network namespace.
fn set(key: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{key}");
    fs::write(&path, value).with_context(|| format!("cannot write {value} to {path}"))
}

fn run(command: &mut Command, input: &str) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {name}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends early closes the pipe; its own message says more.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .with_context(|| format!("cannot wait for {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{name} failed ({}): {}", output.status, said.trim());
    }
    // `ip -batch` answers 0 to some unknown commands and only complains.
    ensure!(said.trim().is_empty(), "{name}: {}", said.trim());
    Ok(())
}
