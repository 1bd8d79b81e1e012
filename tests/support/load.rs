//! Requests that never stop, each counted: clients that connect anew each time, and clients that keep their connection.

use std::{
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::client::{self, Client};

const PAUSE: Duration = Duration::from_millis(3);
const CLIENTS: u64 = 4;

/// Clients at work.
pub struct Load {
    end: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

/// What the clients have seen.
#[derive(Debug)]
pub struct Tally {
    pub answered: u64,
    /// Each request that was not answered 200, and what came instead.
    pub failures: Vec<String>,
}

impl Load {
    pub fn start(address: SocketAddr, path: &'static str) -> Self {
        let (end, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let client = |number| {
            let (end, answered) = (end.clone(), answered.clone());
            let keeps = number % 2 == 0;
            thread::spawn(move || {
                let mut failures = Vec::new();
                let mut kept = None;
                while !end.load(Ordering::Relaxed) {
                    match request(&mut kept, address, path) {
                        Ok(()) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        Err(seen) => {
                            let kind = if keeps { "kept" } else { "new" };
                            failures.push(format!("{kind} connection: {seen}"));
                            kept = None;
                        }
                    }
                    if !keeps {
                        kept = None;
                    }
                    thread::sleep(PAUSE);
                }
                failures
            })
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self {
            end,
            answered,
            clients,
        }
    }

    /// How many requests were answered 200 so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    pub fn stop(self) -> Tally {
        self.end.store(true, Ordering::Relaxed);
        let failures = self.clients.into_iter();
        let failures = failures.flat_map(|client| client.join().unwrap()).collect();
        Tally {
            answered: self.answered.load(Ordering::Relaxed),
            failures,
        }
    }
}

/// One request and its whole answer, on the kept connection if there is one.
fn request(kept: &mut Option<Client>, address: SocketAddr, path: &str) -> Result<(), String> {
    let mut client = match kept.take() {
        Some(client) => client,
        None => Client::connect(address).map_err(|error| format!("connect: {error}"))?,
    };
    let reply = client
        .ask(&client::get(path))
        .map_err(|error| error.to_string())?;
    if !reply.is_last {
        *kept = Some(client);
    }
    match reply.status {
        200 => Ok(()),
        _ => Err(reply.head + &String::from_utf8_lossy(&reply.body)),
    }
}

/// Starts `command` as systemd does with a socket unit: the listener is its descriptor 3, and stays open here.
pub fn pass_listener(command: &[&str], listener: &TcpListener) -> Command {
    let mut shell = Command::new("sh");
    let script = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"";
    let descriptor = OwnedFd::from(listener.try_clone().unwrap());
    shell.args(["-c", script, "sh"]).args(command);
    shell.stdin(Stdio::from(descriptor));
    shell
}
