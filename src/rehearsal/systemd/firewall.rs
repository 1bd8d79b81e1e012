//! The host's own firewall, as the image loads it: tried from the router itself, whose packets no security group filters.

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context as _, Result, ensure};

use super::ask;
use crate::flows::{Flow, ports_to};
use crate::rehearsal::machine::Machine;
use crate::rehearsal::namespaces;
use crate::rehearsal::network::ROUTER;
use crate::rehearsal::probe::{self, Answer};
use crate::rehearsal::report::Current;
use crate::rehearsal::topology::Host;

/// A port that no flow leads to, in no range that a kernel hands out.
const UNLISTED: u16 = 4;

/// The ports of the flows to `host` get through, and another one, on which something listens, does not.
pub fn prove(step: &mut Current<'_>, machine: &Machine, host: &Host, flows: &[Flow]) {
    step.prove_result(
        format!(
            "{}: its own firewall lets in its flows and nothing else",
            machine.name()
        ),
        firewall(machine, host, flows),
    );
}

fn firewall(machine: &Machine, host: &Host, flows: &[Flow]) -> Result<String> {
    let rules = ask(machine, &["nft", "list", "tables"])?;
    ensure!(!rules.is_empty(), "no rule is loaded");
    let ports = host.end.map(|end| ports_to(flows, end)).unwrap_or_default();
    ensure!(
        !ports.is_empty() && !ports.contains(&UNLISTED),
        "no port to compare with"
    );
    for port in &ports {
        let answer = probe::connect_once(ROUTER, SocketAddr::from((host.address, *port)))?;
        ensure!(answer == Answer::Connected, "port {port} is {answer}");
    }
    let closed = SocketAddr::from((host.address, UNLISTED));
    let listener = namespaces::inside(&host.name, || TcpListener::bind(closed))?
        .with_context(|| format!("cannot listen on {closed}"))?;
    let within = probe::connect_once(&host.name, closed)?;
    let from_outside = probe::connect_once(ROUTER, closed)?;
    drop(listener);
    ensure!(
        within == Answer::Connected,
        "the host itself finds port {UNLISTED} {within}"
    );
    ensure!(
        from_outside == Answer::Dropped,
        "port {UNLISTED}, which no flow leads to, is {from_outside}"
    );
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    Ok(format!(
        "{} let in past the security groups, {UNLISTED} with a listener dropped",
        ports.join(" and ")
    ))
}
