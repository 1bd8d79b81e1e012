//! `drawbridge-host system`: another system on a host that runs, with the old one back unless somebody confirms.
//!
//! There is no Nix on the hosts. A system comes as a list of paths and a stream of archives ([`store`], [`unpack`]), is
//! activated in a unit of its own ([`activation`], [`units`]) and becomes the one that boots only when the operator has
//! seen it at work. [`files`] is what the host remembers of all that.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::Host;
use super::command::CommandError;
use super::file::FileError;
use super::steps::{READY_URL_NOTE, database_role, ready};
use crate::appliance::Role;
use crate::appliance::store::{Closure, StorePath};
use crate::appliance::system::{Activation, Generation, Probe, Staged, SystemStatus};
use crate::error_chain::chain;

mod activation;
mod files;
mod store;
mod units;
mod unpack;

/// For what only asks or takes a moment.
const PATIENCE: Duration = Duration::from_secs(5);
/// One look at the host's own service.
const PROBE_LIMIT: Duration = Duration::from_secs(8);
/// A list of paths is some 150 kB.
const LONGEST_LIST: u64 = 16 << 20;

/// Put another system on this host, or see which one runs
#[derive(Debug, Clone, Args)]
pub struct SystemArgs {
    /// The folder that is the root of the machine, in place of the machine's own
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    root: PathBuf,
    #[command(subcommand)]
    command: SystemCommand,
}

#[derive(Debug, Clone, Subcommand)]
enum SystemCommand {
    /// Read a closure as JSON and say what is missing of it here; the next two work on it
    Stage {
        /// No closure: go back to this generation
        #[arg(long, value_name = "N")]
        generation: Option<u64>,
    },
    /// Read the archives of the staged closure's missing paths
    Receive,
    /// Begin to activate what is staged; the old system comes back unless it is confirmed
    Activate {
        /// What this host is: a system for another role is refused
        #[arg(long)]
        role: Role,
        /// Go back so long after the switch, 1 to 3600
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
        confirm_timeout: u64,
    },
    /// What the unit of an activation runs
    #[command(hide = true)]
    Run,
    /// What the timers of an activation run
    #[command(hide = true)]
    Expire {
        #[arg(long, value_name = "N")]
        generation: u64,
    },
    /// Say which system runs and whether the host's service is well
    Probe {
        /// What this host is
        #[arg(long)]
        role: Role,
    },
    /// Keep the generation that runs and waits: from now on it boots
    Confirm {
        /// Its number
        #[arg(long, value_name = "N")]
        generation: u64,
    },
    /// Say which system runs, which one boots, and how the last activation ended
    Status,
}

/// Why the system is as it was, or how far it is.
#[derive(Debug, thiserror::Error)]
#[allow(
    missing_docs,
    reason = "the variants without a comment only carry an error whose text says everything"
)]
pub enum SystemError {
    /// Nothing was changed.
    #[error("{0}; wait for its end (`drawbridge deploy --status`). Nothing was changed")]
    Busy(String),
    /// Nothing was changed.
    #[error("this is a system for a {found}, and this host is a {role}; nothing was changed")]
    OtherRole { found: Role, role: Role },
    /// Nothing was changed.
    #[error(
        "{0} does not say which role it is for (etc/drawbridge/system.json): build it from this project's modules. Nothing was changed"
    )]
    NotOurs(StorePath),
    /// Nothing was changed.
    #[error("not enough room in the store: {} MiB are free and {} MiB needed; nothing was changed", free >> 20, needed >> 20)]
    NoRoom { free: u64, needed: u64 },
    /// Nothing was changed.
    #[error(
        "there is no generation {0} here; `drawbridge deploy --status` lists them. Nothing was changed"
    )]
    NoSuchGeneration(u64),
    /// Nothing was changed.
    #[error(
        "/nix/var/nix/profiles/system leads to no generation: this is no image of this project. Nothing was changed"
    )]
    NoGeneration,
    /// Somebody switched by hand, or a rollback has not come to its end.
    #[error(
        "the system that runs is not generation {0}; reboot the host first, which brings back the one that boots"
    )]
    OtherCurrent(u64),
    /// The host has gone back, or is about to.
    #[error("too late: generation {} is {}; {}", .0.to.number, .0.phase, .0.reason)]
    TooLate(Box<Activation>),
    #[error("generation {0} is not the one that was activated last")]
    OtherGeneration(u64),
    #[error("nothing is staged; `drawbridge deploy` does it first. Nothing was changed")]
    NothingStaged,
    #[error(
        "{0} paths of the staged system are missing; run the deploy again. Nothing was changed"
    )]
    Incomplete(usize),
    /// The old one boots still; the timers bring it back.
    #[error(
        "the boot loader could not be told of the new system, so the host goes back to the old one"
    )]
    BootLoader(#[source] CommandError),
    #[error("the stream broke off; what came whole is kept, run the deploy again to go on")]
    Stream(#[source] std::io::Error),
    #[error("the stream is not one of this version: use the `drawbridge` of the same release")]
    OtherStream,
    #[error("{0:?} is not missing here, or not part of what is staged")]
    NotAskedFor(String),
    /// Nothing of it is kept.
    #[error("{path} did not arrive as it should: {why}")]
    BadPath { path: StorePath, why: String },
    #[error("cannot read {}", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("the list of paths on standard input cannot be read")]
    List(#[source] serde_json::Error),
    /// The old system was not touched.
    #[error("its migrations failed ({0})")]
    Migrations(String),
    #[error("cannot find out where this program is")]
    Program(#[source] std::io::Error),
    #[error("cannot start the asynchronous runtime")]
    Runtime(#[source] std::io::Error),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Command(#[from] CommandError),
}

impl SystemError {
    /// Whether something stood in the way and nothing was changed.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Busy(_)
                | Self::OtherRole { .. }
                | Self::NotOurs(_)
                | Self::NoRoom { .. }
                | Self::NoSuchGeneration(_)
                | Self::NoGeneration
                | Self::OtherCurrent(_)
                | Self::TooLate(_)
                | Self::OtherGeneration(_)
                | Self::NothingStaged
        )
    }
}

impl SystemArgs {
    /// Does it. What it says on standard output is JSON, of the shapes in [`crate::appliance::system`].
    ///
    /// # Errors
    /// [`SystemError`]
    pub fn run(&self) -> Result<(), SystemError> {
        let host = Host::under(&self.root);
        // A mount namespace is entered by the thread that asks for it: before there are others.
        if matches!(
            self.command,
            SystemCommand::Stage { .. } | SystemCommand::Receive | SystemCommand::Confirm { .. }
        ) {
            store::open(&host)?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(SystemError::Runtime)?;
        runtime.block_on(self.perform(&host))
    }

    async fn perform(&self, host: &Host) -> Result<(), SystemError> {
        match &self.command {
            SystemCommand::Stage { generation: None } => {
                let mut text = String::new();
                let read = std::io::stdin()
                    .take(LONGEST_LIST)
                    .read_to_string(&mut text);
                read.map_err(SystemError::Stream)?;
                let closure = serde_json::from_str(&text).map_err(SystemError::List)?;
                say(&stage(host, closure).await?);
            }
            SystemCommand::Stage {
                generation: Some(number),
            } => say(&stage_back(host, *number).await?),
            SystemCommand::Receive => {
                let _lock = activation::lock(host, PATIENCE).await?;
                let staging = files::staging(host)?.ok_or(SystemError::NothingStaged)?;
                let closure = staging.closure.ok_or(SystemError::NothingStaged)?;
                let mut input = std::io::BufReader::with_capacity(1 << 18, std::io::stdin());
                store::receive(host, &closure, &mut input, &mut std::io::stdout())?;
            }
            SystemCommand::Activate {
                role,
                confirm_timeout,
            } => {
                say(&activation::activate(host, *role, *confirm_timeout).await?);
            }
            SystemCommand::Run => activation::run(host).await?,
            SystemCommand::Expire { generation } => activation::expire(host, *generation).await?,
            SystemCommand::Probe { role } => say(&probe(host, *role).await?),
            SystemCommand::Confirm { generation } => {
                let confirmed = activation::confirm(host, *generation).await?;
                // It boots and is kept; what is left over goes with the next one if it cannot go now.
                if let Err(error) = store::prune(host, None) {
                    tracing::warn!("old systems could not be removed: {}", chain(&error));
                }
                say(&confirmed);
            }
            SystemCommand::Status => say(&status(host).await?),
        }
        Ok(())
    }
}

fn say(answer: &impl serde::Serialize) {
    if let Ok(text) = serde_json::to_string(answer) {
        // That nobody reads it changes nothing of what was done.
        let _ = writeln!(std::io::stdout(), "{text}");
    }
}

async fn stage(host: &Host, closure: Closure) -> Result<Staged, SystemError> {
    let _lock = activation::lock(host, PATIENCE).await?;
    activation::refuse_second(host).await?;
    let boots = files::boots(host);
    let toplevel = closure.toplevel().clone();
    let runs_and_boots = files::current(host).as_ref() == Some(&toplevel)
        && boots.as_ref().map(|one| &one.toplevel) == Some(&toplevel);
    if let Some(boots) = boots.filter(|_| runs_and_boots) {
        return Ok(current(boots));
    }
    // What deploys before this one left: they failed, or their operators went away.
    store::prune(host, Some(&closure))?;
    let missing = store::missing(host, &closure);
    let missing_bytes = missing.iter().map(|one| one.nar_size).sum();
    store::check_room(host, missing_bytes)?;
    let missing = missing.into_iter().map(|one| one.path.clone()).collect();
    let last = files::generations(host)?.into_keys().next_back();
    let number = last.unwrap_or(0) + 1;
    let staging = files::Staging {
        to: Generation { number, toplevel },
        closure: Some(closure),
        is_back: false,
    };
    files::set_staging(host, &staging)?;
    Ok(Staged {
        is_current: false,
        generation: number,
        missing,
        missing_bytes,
    })
}

async fn stage_back(host: &Host, number: u64) -> Result<Staged, SystemError> {
    let _lock = activation::lock(host, PATIENCE).await?;
    activation::refuse_second(host).await?;
    let toplevel = files::generations(host)?.remove(&number);
    let toplevel = toplevel.ok_or(SystemError::NoSuchGeneration(number))?;
    let to = Generation { number, toplevel };
    if files::boots(host).as_ref() == Some(&to)
        && files::current(host).as_ref() == Some(&to.toplevel)
    {
        return Ok(current(to));
    }
    let staging = files::Staging {
        closure: files::closure(host, number)?,
        to,
        is_back: true,
    };
    files::set_staging(host, &staging)?;
    Ok(Staged {
        is_current: false,
        generation: number,
        missing: Vec::new(),
        missing_bytes: 0,
    })
}

fn current(generation: Generation) -> Staged {
    Staged {
        is_current: true,
        generation: generation.number,
        missing: Vec::new(),
        missing_bytes: 0,
    }
}

async fn status(host: &Host) -> Result<SystemStatus, SystemError> {
    // Whoever has the lock is at work and writes how far it is.
    let activation = match activation::lock(host, Duration::ZERO).await {
        Ok(_lock) => activation::settled(host).await?,
        Err(SystemError::Busy(_)) => files::activation(host)?,
        Err(error) => return Err(error),
    };
    let generations = files::generations(host)?.into_iter();
    Ok(SystemStatus {
        current: files::current(host),
        boots: files::boots(host),
        generations: generations
            .map(|(number, toplevel)| Generation { number, toplevel })
            .collect(),
        activation,
    })
}

async fn probe(host: &Host, role: Role) -> Result<Probe, SystemError> {
    let looked = match role {
        // Whoever asks has signed in.
        Role::Bastion => Ok("sshd let you in".to_owned()),
        Role::Backend => {
            let noted = super::file::read(&host.path(READY_URL_NOTE))?;
            let url = noted.and_then(|url| url.trim().parse().ok());
            let url: super::steps::ReadyUrl = url.unwrap_or_default();
            let ready = ready::wait_for(&url, PROBE_LIMIT).await;
            ready
                .map(|()| format!("{url} answers 200"))
                .map_err(|error| error.last)
        }
        Role::Database => postgres(host).await,
    };
    let (healthy, seen) = match looked {
        Ok(seen) => (true, seen),
        Err(seen) => (false, seen),
    };
    Ok(Probe {
        current: files::current(host),
        healthy,
        seen,
    })
}

async fn postgres(host: &Host) -> Result<String, String> {
    let ask = async {
        let client = database_role::connect(host)
            .await
            .map_err(|error| chain(&error))?;
        let answered = client.batch_execute("SELECT 1").await;
        answered.map_err(|error| chain(&error))
    };
    match tokio::time::timeout(PROBE_LIMIT, ask).await {
        Ok(answered) => answered.map(|()| "Postgres answers".to_owned()),
        Err(_) => Err(format!(
            "no answer of Postgres in {} s",
            PROBE_LIMIT.as_secs()
        )),
    }
}
