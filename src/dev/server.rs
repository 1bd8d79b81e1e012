//! The API server as a child of `drawbridge dev`.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use super::folder::Folder;
use crate::postgres::{Cluster, is_alive, is_command_with};

/// Migrations of an empty database and the first connection take about half a second.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// Above the server's own limit for requests under way.
const STOP_LIMIT: Duration = Duration::from_secs(25);
const INTERVAL: Duration = Duration::from_millis(50);

/// What the keys of the server's configuration begin with in the environment. `__` stands between their levels; names
/// without it, such as `DRAWBRIDGE_IDENTITY`, are for `drawbridge` and not for the server.
const CONFIGURATION: &str = "DRAWBRIDGE_";

/// Variables that would take the server somewhere else than to this run's database and port. Others, such as
/// `DRAWBRIDGE_LOG__FILTER`, are for the user to set.
const OURS: [&str; 3] = [
    "DRAWBRIDGE_DATABASE__",
    "DRAWBRIDGE_HTTP__LISTEN",
    "CREDENTIALS_DIRECTORY",
];

/// `drawbridge-host`, which is built and installed beside `drawbridge`.
pub fn program() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let program = own.with_file_name("drawbridge-host");
    if !program.is_file() {
        bail!(
            "{} is missing: it belongs beside this program; build both with `cargo build`",
            program.display()
        );
    }
    Ok(program)
}

/// A running server.
pub struct Server(Child);

impl Server {
    /// Starts `serve` on the cluster's socket and on `port` of 127.0.0.1.
    pub fn spawn(program: &Path, folder: &Folder, cluster: &Cluster, port: u16) -> Result<Self> {
        let config = folder.config();
        // A JSON string is a TOML string.
        let host = serde_json::to_string(&cluster.sockets())?;
        let text = format!(
            "# Written by `drawbridge dev` at every start.\n\
             [http]\nlisten = \"127.0.0.1:{port}\"\n\n[auth]\nanonymous_writes = true\n\n[database]\nhost = {host}\n\n[log]\nformat = \"text\"\n\n\
             [metrics]\npublic = true\n"
        );
        fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        let mut command = Command::new(program);
        command
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            // The terminal's Ctrl-C is for us: we stop it before its database.
            .process_group(0)
            .kill_on_drop(true);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            let is_foreign = text.starts_with(CONFIGURATION) && !text.contains("__");
            if is_foreign || OURS.iter().any(|ours| text.starts_with(ours)) {
                command.env_remove(&name);
            }
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let pid = child.id().unwrap_or_default();
        fs::write(folder.server_pid(), pid.to_string())
            .with_context(|| format!("cannot write {}", folder.server_pid().display()))?;
        Ok(Self(child))
    }

    /// Waits until `/ready` answers 200, 60 s at most.
    pub async fn wait_ready(&mut self, port: u16) -> Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        let mut last_seen;
        loop {
            last_seen = match timeout(Duration::from_secs(5), ask_ready(port)).await {
                Ok(Ok(line)) if line.contains(" 200 ") => return Ok(()),
                Ok(Ok(line)) => line,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            if let Ok(Some(status)) = self.0.try_wait() {
                bail!("the API did not start ({status}); its last lines are above");
            }
            if Instant::now() >= deadline {
                bail!(
                    "the API is not ready after {READY_LIMIT:?}; the last thing /ready said: {last_seen}"
                );
            }
            sleep(INTERVAL).await;
        }
    }

    /// Waits until it ends by itself; returns how.
    pub async fn wait(&mut self) -> String {
        let status = self.0.wait().await;
        status.map_or_else(|error| error.to_string(), |status| status.to_string())
    }

    /// Asks it to end, and makes it end when it has not after 25 s.
    pub async fn stop(mut self, folder: &Folder) {
        if let Some(pid) = self.0.id() {
            // It may have ended by itself a moment ago.
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM);
        }
        if timeout(STOP_LIMIT, self.0.wait()).await.is_err() {
            drop(self.0.kill().await);
        }
        drop(fs::remove_file(folder.server_pid()));
    }
}

/// Ends the server of a run that was killed; its configuration file among the arguments tells it from any other
/// process that has its number by now. Returns whether there was one.
pub async fn stop_leftover(folder: &Folder) -> bool {
    let Some(pid) = fs::read_to_string(folder.server_pid())
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .map(Pid::from_raw)
    else {
        return false;
    };
    if !is_alive(pid) || !is_command_with(pid, &folder.config()) {
        return false;
    }
    for (signal, limit) in [
        (Signal::SIGTERM, STOP_LIMIT),
        (Signal::SIGKILL, Duration::from_secs(5)),
    ] {
        let _ = kill(pid, signal);
        let deadline = Instant::now() + limit;
        while is_alive(pid) && Instant::now() < deadline {
            sleep(INTERVAL).await;
        }
    }
    true
}

/// The status line of `GET /ready`.
async fn ask_ready(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream
        .write_all(b"GET /ready HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        .await?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer).await?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}
