//! `drawbridge dev`: the API and a Postgres of its own on this machine, nothing else needed.

mod folder;
mod server;

use std::{
    io::{self, Write},
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::{
    process::Child,
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep},
};

use crate::bastion::exec::command_line;
use crate::postgres::{Binaries, Cluster, ClusterError, Owner};
use folder::Folder;
use server::Server;

const HELP: &str = "\
Examples:
  drawbridge dev
  drawbridge dev --port 8001 --data-dir /tmp/other

Exit status:
  0    ended by Ctrl-C, SIGTERM or SIGHUP
  1    failed; nothing is left running
  2    wrong usage";

/// Runs the API with a Postgres of its own, until Ctrl-C.
///
/// The data stays in the folder: the next start finds it again. Nothing else on the machine is touched, and nothing
/// listens but the API, on 127.0.0.1.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = HELP)]
pub struct DevArgs {
    /// Port of the API on 127.0.0.1.
    #[arg(long, default_value_t = 8000, value_parser = clap::value_parser!(u16).range(1..), value_name = "PORT")]
    pub port: u16,
    /// Folder that keeps the database and everything else of this run; remove it to begin anew.
    #[arg(long, default_value = ".drawbridge/dev", value_name = "FOLDER")]
    pub data_dir: PathBuf,
}

/// A session notices within a second that its server was killed; one in the middle of a long statement takes longer.
const SESSIONS_LIMIT: Duration = Duration::from_secs(30);

/// What has been started so far.
#[derive(Default)]
struct Running {
    postgres: Option<Child>,
    server: Option<Server>,
}

/// Brings both up, prints the address of `/docs` on standard output, and returns after SIGINT, SIGTERM or SIGHUP, when
/// both have ended.
///
/// # Errors
/// One line that names what is in the way and what to do about it. Nothing is left running.
pub async fn run(args: DevArgs) -> Result<()> {
    let binaries = Binaries::find()?;
    let owner = Owner::for_this_process()?;
    let program = server::program()?;
    let folder = Folder::lock(&args.data_dir, args.port)?;
    let cluster = Cluster::prepare(binaries, &folder.for_postgres(owner).await?, owner)?;

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut running = Running::default();
    let outcome = tokio::select! {
        outcome = bring_up_and_watch(&args, &folder, &cluster, program, &mut running) => outcome,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        _ = hangup.recv() => Ok(()),
    };
    // The server first, so that its last requests still find their database.
    if let Some(server) = running.server {
        server.stop(&folder).await;
    }
    if let Some(postgres) = running.postgres {
        cluster.stop(postgres).await;
    }
    if outcome.is_ok() {
        eprintln!("stopped; the data stays in {}", folder.path().display());
    }
    outcome
}

async fn bring_up_and_watch(
    args: &DevArgs,
    folder: &Folder,
    cluster: &Cluster,
    program: PathBuf,
    running: &mut Running,
) -> Result<()> {
    if server::stop_leftover(folder).await {
        eprintln!("stopped an API that a killed run had left behind");
    }
    if cluster.stop_leftover().await? {
        eprintln!("stopped a PostgreSQL that a killed run had left behind");
    }
    ensure_port_is_free(args.port)?;

    if !cluster.data().join("PG_VERSION").exists() {
        eprintln!(
            "creating the database in {} (once)",
            cluster.data().display()
        );
    }
    cluster
        .create_if_missing(&[
            "CREATE ROLE drawbridge LOGIN",
            "CREATE DATABASE drawbridge OWNER drawbridge",
        ])
        .await?;
    // Whoever we are on this machine is `drawbridge` in the database; the kernel vouches for it, so no password.
    let me = nix::unistd::User::from_uid(nix::unistd::geteuid())?.map(|user| user.name);
    let me =
        me.context("the current user has no name on this machine (no entry in /etc/passwd)")?;
    cluster.write_access(
        "local all all peer map=dev\n",
        &format!("dev \"{me}\" drawbridge\ndev \"{me}\" postgres\n"),
    )?;
    let settings = [
        ("listen_addresses", ""),
        ("max_connections", "30"),
        ("shared_buffers", "32MB"),
    ];
    let deadline = Instant::now() + SESSIONS_LIMIT;
    let postgres = loop {
        let postgres = running.postgres.insert(cluster.spawn(&settings)?);
        match cluster.wait_ready(postgres).await {
            Ok(()) => break running.postgres.as_mut().context("PostgreSQL is gone")?,
            // Sessions of a server that was killed hold its memory until they notice.
            Err(ClusterError::Failed { said, .. })
                if said.contains("is still in use") && Instant::now() < deadline =>
            {
                sleep(Duration::from_millis(500)).await;
            }
            Err(error) => return Err(error.into()),
        }
    };

    let server = running
        .server
        .insert(Server::spawn(&program, folder, cluster, args.port)?);
    server.wait_ready(args.port).await?;

    let mut out = io::stdout().lock();
    // A closed pipe is no reason to stop serving.
    drop(writeln!(out, "http://127.0.0.1:{}/docs", args.port).and_then(|()| out.flush()));
    drop(out);
    eprintln!("the API is up; Ctrl-C stops it and its database");
    eprintln!(
        "the database: {}",
        command_line(&[
            "psql",
            "-h",
            &cluster.sockets().to_string_lossy(),
            "-U",
            "drawbridge",
            "drawbridge"
        ])
    );

    tokio::select! {
        status = server.wait() => bail!("the API ended by itself ({status}); its last lines are above"),
        status = postgres.wait() => bail!(
            "PostgreSQL ended by itself ({}); see {}",
            status.map_or_else(|error| error.to_string(), |status| status.to_string()),
            cluster.log().display()
        ),
    }
}

fn ensure_port_is_free(port: u16) -> Result<()> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let other =
                TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr());
            let other = other.map_or(8001, |free| free.port());
            bail!(
                "port {port} on 127.0.0.1 is taken; end what listens there (`ss -ltnp 'sport = :{port}'` names it), \
                 or choose another port: --port {other}"
            )
        }
        Err(error) => Err(error).with_context(|| {
            format!("cannot listen on port {port} of 127.0.0.1; choose another: --port 8000")
        }),
    }
}
