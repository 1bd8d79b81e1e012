//! `drawbridge rehearse`: the whole appliance on one Linux machine, with no AWS account.
//!
//! Terraform applies the real `terraform/` to an emulator; the network its state describes is built from namespaces;
//! the real programs run in it; and each promise of the topology is tried. In the order of data: [`deploy`] makes a
//! state, [`state`] reads it, [`topology`] gives it meaning, [`network`] writes it as commands, [`namespaces`] carries
//! those out, [`machine`] and [`hosts`] bring machines to life, [`proofs`] and [`closing`] try them.

use std::env;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::exit::Exit;
use crate::flows;
use crate::nat::position::Position;
use crate::progress::Progress;
use crate::terraform::{self, state};
use tools::Tools;

mod audit;
mod authority;
mod boot;
mod closing;
mod deploy;
mod emulator;
mod flow_matrix;
mod follower;
mod hosts;
mod invariants;
mod load_balancer;
mod machine;
mod metadata_service;
mod namespaces;
mod network;
mod packet_rules;
mod probe;
mod proofs;
mod publish;
mod reopening;
mod report;
mod routing;
mod sandbox;
mod secrets;
mod security_groups;
mod session;
mod site;
mod ssh;
mod sshd;
mod stand_ins;
mod status;
mod systemd;
mod tools;
mod topology;
mod tunnel;
mod volumes;
mod world;

const HELP: &str = "\
Examples:
  sudo scripts/rehearse                        builds, installs what is missing, and runs `drawbridge rehearse`
  drawbridge rehearse --exit --json            as root, the programs being there
  drawbridge rehearse --exit --systemd --logs /tmp/logs

Exit status:
  0    ended by Ctrl-C; with --exit: every proof held
  1    failed, or with --exit a proof did not hold
  2    wrong usage
  130  interrupted before everything was tried";

/// The whole deploy on this machine: Terraform against an AWS emulator, real hosts in network namespaces
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct RehearseArgs {
    /// End as soon as everything is proven, with status 0 only if every proof held
    #[arg(long)]
    exit: bool,
    /// At the end open the window again for one command with `drawbridge nat open`, and prove it closed; about half a minute more
    #[arg(long)]
    reopen: bool,
    /// Print the proofs as one JSON object on stdout
    #[arg(long)]
    json: bool,
    /// Port of 127.0.0.1 that leads to the load balancer; 0 takes any free one [default: 8080; with --exit any]
    #[arg(long)]
    port: Option<u16>,
    /// Terraform folder to rehearse [default: terraform/ of this repository]
    #[arg(long, env = terraform::DIRECTORY_VARIABLE, value_name = "DIR")]
    terraform_dir: Option<PathBuf>,
    /// Folder for the few files that people use (ssh_config, a key); one rehearsal at a time per folder
    #[arg(long, value_name = "DIR", default_value = ".drawbridge/rehearsal")]
    work_dir: PathBuf,
    /// Copy all logs to this folder at the end
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,
    /// Boot each instance with a systemd of its own and the settings of nixos/evaluated/, as the images do, and try those
    #[arg(long)]
    systemd: bool,
    /// With --systemd: folder with the evaluated settings [default: nixos/evaluated of this repository]
    #[arg(long, value_name = "DIR", requires = "systemd")]
    evaluated: Option<PathBuf>,
    /// Set by the rehearsal itself, inside its namespaces: the tools it has found
    #[arg(long, hide = true, value_parser = |text: &str| Tools::from_argument(text))]
    inside: Option<Tools>,
}

impl RehearseArgs {
    /// With --exit nobody will open it, so it need not be one that people remember.
    fn web_port(&self) -> u16 {
        self.port.unwrap_or(if self.exit { 0 } else { 8080 })
    }
}

/// The folder in memory of a rehearsal that keeps its files in `work_dir`. It vanishes with the rehearsal; a device that
/// the kernel still names by it has been left behind.
pub fn memory_folder(work_dir: &Path) -> PathBuf {
    world::World::inside_path(work_dir)
}

/// Runs the rehearsal.
///
/// # Errors
/// What is missing or in the way, before anything is made. What goes wrong later is in the report.
pub async fn run(mut args: RehearseArgs) -> Result<u8> {
    let here = env::current_dir().context("the current folder is gone")?;
    args.work_dir = here.join(&args.work_dir);
    args.logs = args.logs.map(|logs| here.join(logs));
    args.evaluated = args.evaluated.map(|folder| here.join(folder));
    let root = repository(&here)?;
    let source = terraform::directory(args.terraform_dir.as_deref(), &here)?;
    if let Some(tools) = args.inside.take() {
        return inside(args, root, tools, source).await;
    }
    let tools = Tools::find(&root, args.systemd)?;
    if args.systemd {
        systemd::Images::find(&root, args.evaluated.as_deref())?;
    }
    // Read here for their errors alone: a typing mistake should not cost a terraform apply.
    flows::read(&source.join("flows.json"))?;
    Position::read(&source)?;
    let sandbox = sandbox::Sandbox::take(&args.work_dir)?;
    // Given back at once: the inner half takes it.
    drop(publish::Port::take(args.web_port(), "--port")?);
    let status = sandbox.run(&tools).await?;
    // 128 + signal is what a shell would say of a killed program; here that is always a kill -9.
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(137))
}

/// The inner half: first process of its own namespaces.
async fn inside(args: RehearseArgs, root: PathBuf, tools: Tools, source: PathBuf) -> Result<u8> {
    static STAYING: AtomicBool = AtomicBool::new(false);
    let progress = Progress::stderr();
    tokio::spawn(leave_on_request(&STAYING, progress.clone()));
    let stay = !args.exit;
    let rehearsal = session::Session {
        args,
        root,
        tools,
        source,
        progress,
    };
    let passed = tokio::task::spawn_blocking(move || {
        rehearsal.run(|| {
            STAYING.store(true, Ordering::Relaxed);
            if stay {
                loop {
                    std::thread::park();
                }
            }
        })
    })
    .await
    .context("the rehearsal broke off")??;
    Ok(if passed {
        Exit::Done as u8
    } else {
        Exit::Failed as u8
    })
}

/// Ends the process at a signal, or when the outer half closes the lifeline. As it is the first process of its PID
/// namespace, everything else ends with it. Status 0 only once everything has been proven.
async fn leave_on_request(staying: &'static AtomicBool, progress: Progress) {
    let lifeline = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return;
    };
    tokio::select! {
        _ = lifeline => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    progress.clear();
    if staying.load(Ordering::Relaxed) {
        progress.say("the rehearsal ends; nothing of it stays");
        std::process::exit(Exit::Done as i32);
    }
    progress.say("interrupted; nothing of the rehearsal stays");
    std::process::exit(Exit::Interrupted as i32);
}

/// The repository's folder: the scripts are part of what is rehearsed.
fn repository(here: &Path) -> Result<PathBuf> {
    here.ancestors()
        .find(|folder| folder.join("scripts/destroy-nat.sh").is_file())
        .map(Path::to_owned)
        .with_context(|| {
            format!("neither {} nor a folder above it holds scripts/destroy-nat.sh: go to a clone of the repository", here.display())
        })
}

/// Copies the logs of all machines and of the emulator.
fn keep_logs(inside: &Path, target: &Path) -> Result<()> {
    fs::create_dir_all(target).with_context(|| format!("cannot create {}", target.display()))?;
    systemd::keep_journals(&inside.join("machines"), target)?;
    for file in secrets::log_files(inside)? {
        let name = file
            .strip_prefix(inside)
            .unwrap_or(&file)
            .to_string_lossy()
            .replace('/', "-");
        fs::copy(&file, target.join(name))
            .with_context(|| format!("cannot copy {}", file.display()))?;
    }
    Ok(())
}
