//! The API is restarted while it is used: what is under way is answered, what comes meanwhile waits.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::{ask, properties};
use crate::appliance::{API_PORT, Role};
use crate::rehearsal::hosts::API_UNIT;
use crate::rehearsal::machine::Machine;
use crate::rehearsal::namespaces;
use crate::rehearsal::probe;
use crate::rehearsal::report::Current;
use crate::rehearsal::topology::{Host, Topology};

/// Connecting takes a millisecond where something listens.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
/// Above `TimeoutStopSec` and a start.
const ANSWER_LIMIT: Duration = Duration::from_secs(180);
/// How long the slow request holds its second half back once the API stops, for others to come meanwhile.
const SLOW: Duration = Duration::from_secs(1);
/// On a busy machine systemd may take long to stop it. Below `TimeoutStopSec`, which ends it the hard way.
const STOPPING_LIMIT: Duration = Duration::from_secs(40);
/// Pause between new connections.
const PAUSE: Duration = Duration::from_millis(50);

/// `systemctl restart` in the middle of requests. `keeps_socket` is whether systemd holds the listening socket.
pub fn prove(
    step: &mut Current<'_>,
    topology: &Topology,
    backend: &Machine,
    keeps_socket: bool,
) -> Result<()> {
    let node = topology
        .load_balancer_nodes()
        .next()
        .context("there is no load balancer node to ask from")?;
    let (host, _) = topology
        .instance_host(Role::Backend)
        .context("the state holds no backend")?;
    let at = SocketAddr::from((host.address, API_PORT));
    let (slow, others) = restart(node, at, backend)?;
    step.prove_result(
        "backend: a request under way is answered across a restart of the API",
        slow,
    );
    if keeps_socket {
        step.prove_result(
            "backend: no connection is refused while the API restarts",
            others,
        );
    }
    Ok(())
}

/// What became of a slow request, and of the others.
fn restart(
    node: &Host,
    at: SocketAddr,
    backend: &Machine,
) -> Result<(Result<String>, Result<String>)> {
    let pid = || properties(backend, API_UNIT, &["MainPID"]).map(|seen| seen["MainPID"].clone());
    let before = pid()?;
    // What anybody may write, each time another; its second half comes while the API stops.
    let body = format!(
        r#"{{"name":"slow","email":"slow-{before}@example.org","password":"nothing is kept here"}}"#
    );
    let (first, second) = body.split_at(body.len() / 2);
    let mut slow = connect(node, at)?;
    let head = format!(
        "POST /auth/register HTTP/1.1\r\nHost: backend\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{first}",
        body.len()
    );
    slow.write_all(head.as_bytes())
        .context("cannot send half a request")?;
    // The API has to have begun with it; another answer on another connection says that it has read since.
    get(node, at)?;
    let over = AtomicBool::new(false);
    let (restarted, answer, others) = std::thread::scope(|scope| {
        let restarting = scope.spawn(|| {
            let done = backend
                .command(&["systemctl", "restart", API_UNIT], ANSWER_LIMIT)
                .output();
            over.store(true, Ordering::Relaxed);
            done
        });
        let others = scope.spawn(|| {
            let mut asking = Vec::new();
            while !over.load(Ordering::Relaxed) {
                asking.push(scope.spawn(|| get(node, at)));
                std::thread::sleep(PAUSE);
            }
            probe::join(asking)
        });
        let was_stopping = stopping(backend, &over);
        std::thread::sleep(SLOW);
        let answer = slow
            .write_all(second.as_bytes())
            .context("the second half cannot be sent")
            .and_then(|()| read(&mut slow))
            .and_then(|answer| {
                let state = was_stopping?;
                ensure!(
                    state["ActiveState"] == "deactivating",
                    "the API did not wait for it: {}/{}",
                    state["ActiveState"],
                    state["SubState"]
                );
                Ok(answer)
            });
        let others = probe::join_one(others);
        (probe::join_one(restarting), answer, others)
    });
    let restarted = restarted?;
    ensure!(
        restarted.status.success(),
        "systemctl restart: {}",
        String::from_utf8_lossy(&restarted.stderr).trim()
    );
    let after = pid()?;
    ensure!(before != after, "the API was not restarted");
    let slow = answer.and_then(|answer| {
        ensure!(answer.contains(" 201 "), "answered with {answer}");
        Ok(format!("{answer}, by the process that was stopping"))
    });
    let all = others.len();
    let problems: Vec<String> = others
        .into_iter()
        .filter_map(|answer| match answer {
            Ok(line) if line.contains(" 200 ") => None,
            Ok(line) => Some(line),
            Err(error) => Some(format!("{error:#}")),
        })
        .collect();
    let others = match problems.first() {
        None if all > 0 => Ok(format!(
            "{all} connections made meanwhile were all answered with 200"
        )),
        None => bail!("nobody asked meanwhile"),
        Some(first) => Err(anyhow::anyhow!(
            "{} of {all} were not answered: {first}",
            problems.len()
        )),
    };
    // The last thing a restart owes: it serves.
    ask(backend, &["systemctl", "is-active", API_UNIT])?;
    Ok((slow, others))
}

/// What systemd says of the API once it stops, or once its restart is over.
fn stopping(backend: &Machine, over: &AtomicBool) -> Result<BTreeMap<String, String>> {
    let begun = Instant::now();
    loop {
        let is_last = over.load(Ordering::Relaxed) || begun.elapsed() > STOPPING_LIMIT;
        let seen = properties(backend, API_UNIT, &["ActiveState", "SubState"])?;
        if is_last || seen["ActiveState"] == "deactivating" {
            return Ok(seen);
        }
        std::thread::sleep(PAUSE);
    }
}

fn connect(node: &Host, at: SocketAddr) -> Result<TcpStream> {
    let stream = namespaces::inside(&node.name, || {
        TcpStream::connect_timeout(&at, CONNECT_LIMIT)
    })?
    .with_context(|| format!("no connection to {at}"))?;
    stream
        .set_read_timeout(Some(ANSWER_LIMIT))
        .context("cannot set a time limit")?;
    Ok(stream)
}

/// The first line of the answer to a short request on a connection of its own.
fn get(node: &Host, at: SocketAddr) -> Result<String> {
    let mut stream = connect(node, at)?;
    stream
        .write_all(b"GET /health HTTP/1.1\r\nHost: backend\r\nConnection: close\r\n\r\n")
        .context("cannot ask")?;
    read(&mut stream)
}

fn read(stream: &mut TcpStream) -> Result<String> {
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .context("the answer breaks off")?;
    let text = String::from_utf8_lossy(&answer);
    text.lines()
        .next()
        .map(str::to_owned)
        .context("closed without an answer")
}
