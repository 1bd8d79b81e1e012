//! Requests that never stop, each counted: clients that connect anew each time, and clients that keep their connection.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Longer than a restart takes on a busy machine: a connection that waits for the next process is not a failure.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
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
fn request(
    kept: &mut Option<BufReader<TcpStream>>,
    address: SocketAddr,
    path: &str,
) -> Result<(), String> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: std::io::Error| format!("{what}: {error}")
    };
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect(address).map_err(failed("connect"))?;
            stream.set_read_timeout(Some(ANSWER_LIMIT)).unwrap();
            BufReader::new(stream)
        }
    };
    let head = format!("GET {path} HTTP/1.1\r\nHost: load\r\n\r\n");
    stream
        .get_mut()
        .write_all(head.as_bytes())
        .map_err(failed("write"))?;
    let (mut status, mut length, mut is_last) = (String::new(), 0, false);
    stream.read_line(&mut status).map_err(failed("read"))?;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).map_err(failed("read"))? == 0 {
            return Err(format!("the connection ended after {status:?}"));
        }
        let line = line.trim().to_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        is_last |= line == "connection: close";
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream
        .read_exact(&mut body)
        .map_err(failed("read the body"))?;
    if !is_last {
        *kept = Some(stream);
    }
    match status.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => Err(status.trim().to_owned() + " " + &String::from_utf8_lossy(&body)),
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
