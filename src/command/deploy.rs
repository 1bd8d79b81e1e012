//! `drawbridge deploy`: another system on a host that runs.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::access::{AccessArgs, access};
use super::{DeploymentArgs, json, print};
use crate::appliance::Role;
use crate::appliance::system::{Activation, Staged, SystemStatus};
use crate::bastion::Access;
use crate::closure::activate::{Activating, Ended, Outcome};
use crate::closure::copy::{copy, stage};
use crate::closure::remote::{Remote, RemoteError};
use crate::closure::source::Source;
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::nat::door::Door;
use crate::progress::{Progress, escape};

const ABOUT: &str = "\
Put another system on a private host while it runs: no new instance, no window, no internet there.

The system is built here (`nix build .#nixosConfigurations.HOST.config.system.build.toplevel`) or given, what the host lacks
of it is copied through the bastion, and the host activates it by itself, detached: first the new system's database
migrations, then the switch. The host goes back to the old system by itself unless this command has signed in anew, seen the
new one run, and seen its health check hold (backend: /ready on the host and through the load balancer; database: Postgres
answers). Until then the old system is also the one that boots.

Migrations run while the old version serves, and going back does not undo them: write them so that the old version can work
with the new schema (first add, in a later deploy remove).

The bastion has nobody who may become root: publish an image and apply instead.";

const HELP: &str = "\
Examples:
  drawbridge deploy                              build and deploy the backend
  drawbridge deploy database --closure ./result  a system that was built already
  drawbridge deploy --status                     what runs, what boots, how the last deploy ended
  drawbridge deploy --rollback                   the generation before, confirmed the same way

A system that was built elsewhere is a folder with its paths and their list:
  nix copy --no-check-sigs --to ./system $(readlink -f result)
  nix path-info --store ./system --json --recursive $(readlink -f result) > system/closure.json
  drawbridge deploy --closure ./system

JSON: host, outcome (confirmed, current, rolled-back, failed, unknown), reason, generation, copied_paths, copied_bytes,
activation {phase, to, from {number, toplevel}, reason, since}; with --status current, boots, generations, activation.

Exit status:
  0    the new system runs and boots, or did already
  1    failed before anything was switched, or the host went back and the old system serves again
  2    wrong usage
  4    refused: another deploy is under way, no room, a system for another role, the bastion; nothing was changed
  5    switched, and how it ended is not known or not proven; --status says what is
  130  interrupted; a system that was not confirmed goes back by itself";

/// Put another system on a running host; it goes back by itself unless it is seen at work
#[derive(Args, Clone, Debug)]
#[command(long_about = ABOUT, after_help = HELP)]
pub struct DeployArgs {
    #[command(flatten)]
    deployment: DeploymentArgs,
    #[command(flatten)]
    access: AccessArgs,
    /// backend or database
    #[arg(default_value = "backend")]
    host: Role,
    /// A finished system: a path of this machine's store or a link to one, the JSON of `nix path-info --json --recursive`,
    /// or a folder with that as closure.json and the paths in nix/store/
    #[arg(long, value_name = "PATH", conflicts_with_all = ["status", "rollback"])]
    closure: Option<PathBuf>,
    /// The host goes back so long after the switch unless it was confirmed, 5 to 3600
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(5..=3600))]
    confirm_timeout: u64,
    /// Base address of the API, instead of the load balancer's own
    #[arg(long, value_name = "URL", env = "DRAWBRIDGE_URL")]
    url: Option<String>,
    /// Go back to the generation before the one that boots
    #[arg(long, conflicts_with = "status")]
    rollback: bool,
    /// Only show what runs, what boots and how the last deploy ended
    #[arg(long)]
    status: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// What came of a deploy.
#[derive(Debug, Serialize)]
struct Report {
    host: Role,
    #[serde(flatten)]
    ended: Ended,
    generation: u64,
    copied_paths: usize,
    copied_bytes: u64,
    activation: Option<Activation>,
}

impl DeployArgs {
    /// Runs it; an error is for [`super::report_error`].
    ///
    /// # Errors
    /// When nothing was switched, or the host cannot be asked.
    pub async fn run(self, progress: &Progress, interrupt: &Interrupt) -> anyhow::Result<Exit> {
        if self.host == Role::Bastion {
            return Ok(refuse(
                progress,
                "nobody may become root on the bastion, a deploy neither: `drawbridge image publish --role bastion`, then apply. Nothing was changed",
            ));
        }
        let (access, _) = access(&self.deployment, &self.access, progress, interrupt).await?;
        let mut begun = false;
        let work = async {
            if self.status {
                return self.show(&access, progress).await;
            }
            self.deploy(&access, progress, &mut begun).await
        };
        let ended = tokio::select! {
            ended = work => ended,
            () = interrupt.requested() => {
                progress.clear();
                let what = if begun {
                    format!("unless it was confirmed by then, {} goes back by itself; `drawbridge deploy {} --status` says", self.host, self.host)
                } else {
                    "nothing was switched; what was copied stays for the next run".to_owned()
                };
                progress.say_always(&format!("drawbridge: interrupted; {what}"));
                return Ok(Exit::Interrupted);
            }
        };
        match ended.map_err(|error| error.downcast::<RemoteError>()) {
            Ok(exit) => Ok(exit),
            Err(Ok(RemoteError::Refused(why))) => Ok(refuse(progress, &why)),
            Err(Ok(error)) => Err(error.into()),
            Err(Err(error)) => Err(error),
        }
    }

    async fn show(&self, access: &Access, progress: &Progress) -> anyhow::Result<Exit> {
        let mut remote = Remote::new(access, self.host);
        progress.begin(&format!("asking {}", self.host));
        let status: SystemStatus = remote.ask("status", tokio::io::empty()).await?;
        remote.hang_up().await;
        progress.clear();
        if self.json {
            print(&json(&status)?);
        } else {
            status_lines(self.host, &status)
                .iter()
                .for_each(|line| print(&(escape(line) + "\n")));
        }
        Ok(Exit::Done)
    }

    async fn deploy(
        &self,
        access: &Access,
        progress: &Progress,
        begun: &mut bool,
    ) -> anyhow::Result<Exit> {
        let host = self.host;
        let mut remote = Remote::new(access, host);
        progress.begin(&format!("asking {host}"));
        let (staged, sent, lacked) = if self.rollback {
            (stage_back(&mut remote).await?, 0, 0)
        } else {
            let source = self.source(&mut remote, progress).await?;
            let first = stage(&mut remote, &source).await?;
            let lacked = first.missing.len();
            let (staged, sent) = copy(&mut remote, &source, first, progress).await?;
            (staged, sent, lacked)
        };
        let mut report = Report {
            host,
            ended: Ended {
                outcome: Outcome::Current,
                reason: "it runs and boots already".to_owned(),
            },
            generation: staged.generation,
            copied_paths: lacked,
            copied_bytes: sent,
            activation: None,
        };
        if !staged.is_current {
            progress.begin(&format!(
                "{host}: activating generation {}",
                staged.generation
            ));
            *begun = true;
            let url = self.url.as_deref().map(|url| url.trim_end_matches('/'));
            let door =
                (host == Role::Backend).then(|| Door::of(&access.deployment.load_balancer, url));
            let activating = Activating {
                remote: &mut remote,
                door,
                progress,
            };
            let (activation, ended) = activating.run(self.confirm_timeout).await?;
            report.activation = Some(activation);
            report.ended = ended;
        }
        remote.hang_up().await;
        progress.clear();
        self.tell(&report)
    }

    async fn source(&self, remote: &mut Remote<'_>, progress: &Progress) -> anyhow::Result<Source> {
        if let Some(given) = &self.closure {
            return Ok(Source::given(given).await?);
        }
        let system = remote.system().await?;
        // A build may take an hour.
        remote.hang_up().await;
        progress.begin(&format!("building the {}'s system", self.host));
        Ok(Source::build(&std::env::current_dir()?, self.host, system).await?)
    }

    fn tell(&self, report: &Report) -> anyhow::Result<Exit> {
        if self.json {
            print(&json(report)?);
        } else {
            print(&(escape(&sentence(report)) + "\n"));
        }
        Ok(match report.ended.outcome {
            Outcome::Confirmed | Outcome::Current => Exit::Done,
            Outcome::RolledBack | Outcome::Failed => Exit::Failed,
            Outcome::Unknown => Exit::Unproven,
        })
    }
}

fn refuse(progress: &Progress, why: &str) -> Exit {
    progress.clear();
    progress.say_always(&format!("drawbridge: {why}"));
    Exit::Refused
}

async fn stage_back(remote: &mut Remote<'_>) -> Result<Staged, RemoteError> {
    let status: SystemStatus = remote.ask("status", tokio::io::empty()).await?;
    let host = remote.host;
    let previous = status.previous().ok_or_else(|| {
        RemoteError::Refused(format!(
            "{host} has no generation before the one that boots; nothing was changed"
        ))
    })?;
    let words = format!("stage --generation {}", previous.number);
    remote.ask(&words, tokio::io::empty()).await
}

fn sentence(report: &Report) -> String {
    let Report {
        host, generation, ..
    } = report;
    let reason = &report.ended.reason;
    let from = report
        .activation
        .as_ref()
        .map(|last| last.from.number)
        .unwrap_or_default();
    match report.ended.outcome {
        Outcome::Confirmed => format!("{host}: generation {generation} runs and boots: {reason}"),
        Outcome::Current => format!("{host}: generation {generation}: {reason}"),
        Outcome::RolledBack => {
            format!(
                "{host}: generation {generation} was not kept ({reason}): rolled back to generation {from}; it serves again"
            )
        }
        Outcome::Failed => format!(
            "{host}: generation {generation} was not switched to: {reason}. Generation {from} was not touched; `drawbridge logs {host}` has more"
        ),
        Outcome::Unknown => format!(
            "{host}: generation {generation}: {reason}. `drawbridge deploy {host} --status` says where it stands"
        ),
    }
}

fn status_lines(host: Role, status: &SystemStatus) -> Vec<String> {
    let mut lines = Vec::new();
    let boots = status.boots.as_ref();
    let current = status.current.as_ref();
    lines.push(match current {
        Some(current) => format!("{host} runs {current}"),
        None => format!("{host} runs no system of its store"),
    });
    for one in &status.generations {
        let mut marks = String::new();
        if boots == Some(one) {
            marks.push_str(", boots");
        }
        if current == Some(&one.toplevel) {
            marks.push_str(", runs");
        }
        lines.push(format!(
            "  generation {}{marks}: {}",
            one.number, one.toplevel
        ));
    }
    lines.push(match &status.activation {
        None => "no deploy since the image".to_owned(),
        Some(last) => {
            let Activation {
                to,
                from,
                phase,
                since,
                ..
            } = last;
            let reason = if last.reason.is_empty() {
                String::new()
            } else {
                format!(": {}", last.reason)
            };
            format!(
                "last deploy: generation {} after {}, {phase} since {since}{reason}",
                to.number, from.number
            )
        }
    });
    lines
}
