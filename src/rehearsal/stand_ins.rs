//! Listeners for flows whose port no program of the images listens on, so that a line added to `flows.json` is tried
//! like the others before there is such a program.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::namespaces;
use super::probe::{self, Answer};
use super::topology::Topology;
use crate::flows::{End, Flow};

/// Programs listen within moments of the bootstrap's end.
const GRACE: Duration = Duration::from_secs(2);

/// The ports that something listens on only for the rehearsal. It does so until the rehearsal ends.
#[derive(Debug, Default)]
pub struct StandIns {
    ports: BTreeSet<(End, u16)>,
}

impl StandIns {
    /// Listens wherever a flow leads and, once everything has bootstrapped, nobody does. A connection is accepted and
    /// closed.
    ///
    /// # Errors
    /// If a namespace cannot be entered or a port cannot be taken.
    pub fn listen(topology: &Topology, flows: &[Flow]) -> Result<StandIns> {
        let mut stand_ins = StandIns::default();
        let deadline = Instant::now() + GRACE;
        for flow in flows.iter().filter(|flow| topology.has_what_it_needs(flow)) {
            for host in topology
                .hosts
                .iter()
                .filter(|host| host.end == Some(flow.to))
            {
                let target = SocketAddr::from((host.address, flow.port));
                if !is_served(&host.name, target, deadline)? && take(&host.name, target)? {
                    stand_ins.ports.insert((flow.to, flow.port));
                }
            }
        }
        Ok(stand_ins)
    }

    /// For the proof of a flow: that only a stand-in listens at its end, if so.
    pub fn note(&self, flow: &Flow) -> String {
        if self.ports.contains(&(flow.to, flow.port)) {
            format!("; a stand-in listens on {}, no program does", flow.to)
        } else {
            String::new()
        }
    }
}

/// Whether something listens, now or before `deadline`.
fn is_served(host: &str, target: SocketAddr, deadline: Instant) -> Result<bool> {
    loop {
        if probe::connect_once(host, target)? == Answer::Connected {
            return Ok(true);
        }
        if Instant::now() > deadline {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Listens on `target`; false if a program has come first.
fn take(host: &str, target: SocketAddr) -> Result<bool> {
    let listener = match namespaces::inside(host, || TcpListener::bind(target))? {
        Err(error) if error.kind() == ErrorKind::AddrInUse => return Ok(false),
        listener => listener.with_context(|| format!("cannot listen on {target} as {host}"))?,
    };
    std::thread::spawn(move || {
        loop {
            // Accepted and closed at once. Out of file descriptors: the next connection may find one.
            if listener.accept().is_err() {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    });
    Ok(true)
}
