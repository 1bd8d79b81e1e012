//! Opening the window once more with `drawbridge nat open`, for one command that needs it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::closing::{Script, add_terraform, prove_close};
use super::emulator::Emulator;
use super::namespaces;
use super::network::{INTERNET, STRANGER};
use super::report::Current;

/// The window's time; the command needs a second of it.
const TIME: &str = "10m";
/// Applies with provider waits of 15 and 20 s, four plans, and the close's proofs.
const LIMIT: Duration = Duration::from_secs(2400);
/// Where the backend connects to: port 443, which is all that its security group lets out.
const TARGET: SocketAddr = SocketAddr::new(IpAddr::V4(STRANGER), 443);

/// Opens, runs a command that makes the backend connect to somebody outside, and closes. `before` is the address of the
/// gateway that was closed. Returns the new one's, which has to be gone afterwards.
///
/// # Errors
/// If the command cannot be run or leaves no report, or nobody was seen outside.
pub fn prove(
    step: &mut Current<'_>,
    script: &Script<'_>,
    emulator: &mut Emulator,
    folder: &Path,
    before: Ipv4Addr,
) -> Result<Ipv4Addr> {
    let witness = Witness::listen()?;
    let file = folder.join("reopening.json");
    let file_name = file.display().to_string();
    let target = TARGET.to_string();
    let open = [
        "drawbridge",
        "nat",
        "open",
        "--for",
        TIME,
        "--report",
        &file_name,
        "--",
    ];
    let inner = [
        "drawbridge",
        "exec",
        "backend",
        "--",
        "drawbridge-host",
        "egress",
        &target,
    ];
    let output = script.run(&[&open[..], &inner].concat(), LIMIT, emulator)?;
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().unwrap_or_default();
    let report = fs::read_to_string(&file)
        .with_context(|| format!("nat open ({}) leaves no report: {last}", output.status))?;
    let report: Value =
        serde_json::from_str(&report).context("the report of nat open is no JSON")?;
    let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    step.prove(
        "nat open runs a command while the window is open",
        output.status.success() && report["command"]["status"] == 0,
        if output.status.success() {
            format!("backend says: {answer}")
        } else {
            format!("{}: {answer} {last}", output.status)
        },
    );
    let callers = witness.callers();
    let caller = *callers
        .first()
        .with_context(|| format!("nobody connected to {TARGET} while the window was open"))?;
    let bastion = script.operator.topology()?;
    let is_bastion = bastion
        .instances()
        .any(|(host, _)| host.public == Some(caller));
    step.prove(
        "backend reaches out through a new gateway",
        callers.iter().all(|other| *other == caller) && caller != before && !is_bastion,
        format!("seen outside as {caller}; the gateway before was {before}"),
    );
    add_terraform(step, &report);
    prove_close(step, "nat open", output.status, &report["close"]);
    Ok(caller)
}

/// Somebody outside who notes who connects.
struct Witness {
    callers: Arc<Mutex<Vec<Ipv4Addr>>>,
}

impl Witness {
    /// Listens until the rehearsal ends.
    fn listen() -> Result<Witness> {
        let listener = namespaces::inside(INTERNET, || TcpListener::bind(TARGET))?
            .with_context(|| format!("cannot listen on {TARGET}"))?;
        let callers = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&callers);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if let (Ok(SocketAddr::V4(peer)), Ok(mut noted)) =
                    (stream.peer_addr(), noted.lock())
                {
                    noted.push(*peer.ip());
                }
            }
        });
        Ok(Witness { callers })
    }

    fn callers(&self) -> Vec<Ipv4Addr> {
        self.callers
            .lock()
            .map(|callers| callers.clone())
            .unwrap_or_default()
    }
}
