//! `drawbridge nat …`

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::access::AccessArgs;
use super::{DeploymentArgs, duration, json, print, report_error};
use crate::bastion::Endpoint;
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::nat::close::{self, close};
use crate::nat::error::NatError;
use crate::nat::gate::{self, Gating};
use crate::nat::open::{self, LONGEST, Work, find_command, open};
use crate::nat::position::instant_text;
use crate::nat::report::{Outcome, Report};
use crate::nat::status::{for_people, status};
use crate::progress::{Progress, escape};

/// The temporary NAT gateway of the private hosts
#[derive(Subcommand, Clone, Debug)]
#[command(after_help = NAT_HELP)]
pub enum NatCommand {
    /// Show the window as the file, the state, the cloud and the hosts see it; changes nothing
    #[command(long_about = STATUS_ABOUT, after_help = STATUS_HELP)]
    Status(StatusArgs),
    /// Open the window for a time, run a command, and close it in every case
    #[command(long_about = OPEN_ABOUT, after_help = OPEN_HELP)]
    Open(OpenArgs),
    /// Take the NAT gateway down and prove that it is gone
    #[command(long_about = CLOSE_ABOUT, after_help = CLOSE_HELP)]
    Close(CloseArgs),
}

const NAT_HELP: &str = "\
Examples:
  drawbridge nat status
  drawbridge nat close --wait
  drawbridge nat open --for 30m -- terraform -chdir=terraform apply -replace=aws_instance.backend";

const STATUS_ABOUT: &str = "\
Show the window as the file, the state, the cloud and the hosts see it; changes nothing.

Every disagreement is a line that begins with `but` and ends with the command that mends it. What cannot be learnt, for
want of a permission say, is shown as unknown with its reason.";

const STATUS_HELP: &str = "\
Examples:
  drawbridge nat status
  drawbridge nat status --json | jq -e '.window == \"closed\" and .findings == []'

JSON: deployment, account, region; window (open, expired, leftover, closed) with gateway or what; position (open, leased,
closed) with lease_until; state {gateway, address, route, schedule}; gateways, addresses, route {target, is_blackhole},
deadline {name, at, is_enabled}, seconds_to_deadline; stood {gateway, opened_at, closed_at, seconds, cost}; waiting (the
hosts that are not complete); findings [{finding, means, command}]; next (a command, or null). Where route, deadline or
waiting could not be learnt, route_unknown, deadline_unknown or reports_unknown says why.

Exit status:
  0    shown, whatever it says
  1    failed
  2    wrong usage
  4    AWS cannot be asked about this deployment: missing or expired credentials, another account, another endpoint
  130  interrupted";

const CLOSE_ABOUT: &str = "\
Take the NAT gateway down and prove that it is gone.

Refuses, naming the host and the step it stands at, until backend and database have reported a complete bootstrap and
the API answers 200 through the load balancer. Then plans with `nat_gateway = false`, refuses if the plan would change
anything but the window (schedule, route, gateway, address), writes nat.auto.tfvars.json, applies, and proves: gateway
and address gone, next plan empty, the API is ready, neither private host reaches the internet. What terraform made and
could not write down, because it was killed, is taken into the state first. Interrupted anywhere, run it again.";

const CLOSE_HELP: &str = "\
Examples:
  drawbridge nat close --wait          wait for the hosts, then close
  drawbridge nat close --prove         closed already? prove it again
  drawbridge nat close --force --json  close at once; proofs and times as JSON

Exit status:
  0    closed now, or closed already
  1    failed; the message says whether something was changed
  2    wrong usage
  3    a private host is not complete, or the API not ready; nothing was changed
  4    refused: the plan wants more than the window, a NAT gateway that is not the window's, missing or expired
       credentials, another account, a locked state; nothing was changed
  5    changed, but not everything could be proven
  130  interrupted; run it again and it goes on";

const OPEN_ABOUT: &str = "\
Open the window for a time, run a command, and close it in every case.

Refuses while a window stands, or if the plan would change anything but the window. Says what it costs, writes the lease
into nat.auto.tfvars.json, applies, waits until the private hosts have their route, and runs COMMAND in this terminal:
Ctrl-C is COMMAND's, SIGTERM and SIGHUP are passed on to it as SIGTERM. At the end of TIME it gets SIGTERM and two minutes
later SIGKILL. Without COMMAND the window stands until TIME is over or Ctrl-C.

Then it closes as `drawbridge nat close` does, whatever happened before. Hosts that COMMAND has replaced get the rest of
TIME for their bootstrap; Ctrl-C ends that waiting, and once more the close. If COMMAND left the plan wanting more than
the window, that rest is left as it is.

Should this machine vanish, AWS itself deletes the gateway ten minutes after TIME, and `drawbridge nat close` clears
what that leaves. stdout belongs to COMMAND: all else goes to stderr, and as JSON into the file of --report.";

const OPEN_HELP: &str = "\
Examples:
  drawbridge nat open --for 30m -- terraform -chdir=terraform apply -replace=aws_instance.backend
  drawbridge nat open --for 10m -- drawbridge exec backend -- drawbridge-host egress example.com:443
  drawbridge nat open --for 2h --report window.json

Exit status, if COMMAND ran and did not end with 0: its own; 128 + N if signal N killed it; 126 if it cannot be run.
Else:
  0    done, and the window is closed again
  1    opening or closing failed; the message says what stands
  2    wrong usage
  4    refused: a window stands, the plan wants more than the window, a NAT gateway that is not the window's, missing or
       expired credentials, another account, a locked state; nothing was changed
  5    closed, but not everything could be proven
  127  there is no such command; nothing was changed
  130  interrupted while opening or closing";

/// `nat status`
#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    #[command(flatten)]
    deployment: DeploymentArgs,
    /// Print JSON; the fields are listed below
    #[arg(long)]
    json: bool,
}

/// How the proofs of a close are led.
#[derive(Args, Clone, Debug)]
pub(super) struct ProofArgs {
    #[command(flatten)]
    access: AccessArgs,
    /// Base address of the API, instead of the load balancer's own
    #[arg(long, value_name = "URL", env = "DRAWBRIDGE_URL")]
    url: Option<String>,
    /// What the private hosts try to reach afterwards; default: the host of AWS_ENDPOINT_URL, else
    /// ssm.<region>.amazonaws.com:443
    #[arg(long, value_name = "HOST:PORT", env = "DRAWBRIDGE_EGRESS_TARGET")]
    egress_target: Option<Endpoint>,
    /// Sign in to no host: leave out the proofs that they no longer reach the internet, say so, and prove that their
    /// route table has no way out instead. For a machine that is not in admin_cidrs, such as a CI runner
    #[arg(long, conflicts_with_all = ["bastion", "identity", "egress_target"])]
    without_ssh: bool,
}

/// `nat open`
#[derive(Args, Clone, Debug)]
pub struct OpenArgs {
    #[command(flatten)]
    deployment: DeploymentArgs,
    #[command(flatten)]
    proofs: ProofArgs,
    /// How long COMMAND may take, or the window stands without one: 90s, 30m, 2h; 168h at most
    #[arg(long = "for", value_name = "TIME", value_parser = lease)]
    time: Duration,
    /// Write what happened there as JSON: deployment, refusal, gateway, lease_until, failure, command, close (as
    /// `nat close --json`), close_failure, terraform_seconds
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Open even if the plan wants more than the window, and leave that rest to COMMAND: a host that is to be made anew
    /// from a new image in the files, say
    #[arg(long)]
    leave_rest: bool,
    /// Program and arguments, run as they are
    #[arg(last = true)]
    command: Vec<String>,
}

/// `nat close`
#[derive(Args, Clone, Debug)]
pub struct CloseArgs {
    #[command(flatten)]
    deployment: DeploymentArgs,
    #[command(flatten)]
    proofs: ProofArgs,
    /// Wait until both private hosts are complete and the API is ready, instead of refusing at once
    #[arg(long)]
    wait: bool,
    /// How long --wait waits: 90s, 15m, 2h
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = duration)]
    wait_limit: Duration,
    /// Close no matter how far the hosts are: a host whose bootstrap is cut off stays without its secrets and its API
    /// down until the window is opened again and the bootstrap has run
    #[arg(long, conflicts_with = "wait")]
    force: bool,
    /// Close even if the plan wants more than the window, and leave that rest as it is: for the window's four resources
    /// alone (terraform's -target), with the same check of what they would change
    #[arg(long)]
    leave_rest: bool,
    /// Lead the proofs again when the window is closed already
    #[arg(long)]
    prove: bool,
    /// Print the proofs and times as JSON
    #[arg(long)]
    json: bool,
}

impl NatCommand {
    /// Runs it and returns the exit status; an error is for [`report_error`].
    ///
    /// # Errors
    /// Anything that kept it from finishing.
    pub async fn run(self, progress: &Progress, interrupt: &Interrupt) -> anyhow::Result<u8> {
        let ended = match self {
            Self::Status(args) => args.run(progress, interrupt).await,
            Self::Open(args) => args.run(progress, interrupt).await,
            Self::Close(args) => args.run(progress, interrupt).await,
        };
        let is_refusal = |error: &anyhow::Error| {
            let error = error.downcast_ref::<NatError>();
            interrupt.count() == 0 && error.is_some_and(NatError::is_refusal)
        };
        match ended {
            Err(error) if is_refusal(&error) => {
                let _ = report_error(&error, progress, interrupt);
                Ok(Exit::Refused as u8)
            }
            ended => ended,
        }
    }
}

impl StatusArgs {
    async fn run(self, progress: &Progress, interrupt: &Interrupt) -> anyhow::Result<u8> {
        let terraform = self.deployment.terraform(progress, interrupt)?;
        let status = tokio::select! {
            status = status(&terraform) => status?,
            () = interrupt.requested() => return Ok(Exit::Interrupted as u8),
        };
        progress.clear();
        print(&if self.json {
            json(&status)?
        } else {
            status
                .text()
                .lines()
                .map(|line| escape(line) + "\n")
                .collect()
        });
        Ok(Exit::Done as u8)
    }
}

impl ProofArgs {
    pub(super) fn options(
        self,
        gating: Gating,
        progress: &Progress,
        interrupt: &Interrupt,
    ) -> close::Options {
        let keys = self.access.keyring(progress, interrupt);
        close::Options {
            gating,
            leave_rest: false,
            prove: false,
            url: self.url,
            egress_target: self.egress_target,
            bastion: self.access.bastion,
            keys,
            without_ssh: self.without_ssh,
        }
    }
}

impl CloseArgs {
    async fn run(self, progress: &Progress, interrupt: &Interrupt) -> anyhow::Result<u8> {
        let terraform = self.deployment.terraform(progress, interrupt)?;
        let gating = match (self.force, self.wait) {
            (true, _) => Gating::Skip,
            (false, true) => Gating::Wait(self.wait_limit),
            (false, false) => Gating::Refuse,
        };
        let options = close::Options {
            leave_rest: self.leave_rest,
            prove: self.prove,
            ..self.proofs.options(gating, progress, interrupt)
        };
        if self.force {
            progress.say("--force: a host that is not complete loses its way out in the middle of its bootstrap");
        }
        let report = close(&terraform, &options, progress, interrupt).await?;
        progress.clear();
        print(&if self.json {
            json(&report)?
        } else {
            text(&report)
        });
        Ok(report.outcome.exit() as u8)
    }
}

impl OpenArgs {
    async fn run(self, progress: &Progress, interrupt: &Interrupt) -> anyhow::Result<u8> {
        if let Err(problem) = find_command(&self.command) {
            progress.clear();
            progress.say_always(&format!("drawbridge: {problem}"));
            return Ok(NO_SUCH_COMMAND);
        }
        // Before the window costs anything: a report that cannot be written would be found out at the very end.
        let file = self.report.as_ref().map(|path| {
            File::create(path).with_context(|| {
                format!(
                    "cannot write {} (name another file with --report)",
                    path.display()
                )
            })
        });
        let file = file.transpose()?;
        let terraform = self.deployment.terraform(progress, interrupt)?;
        let options = open::Options {
            time: self.time,
            work: match self.command.is_empty() {
                true => Work::Watch,
                false => Work::Command(self.command),
            },
            leave_rest: self.leave_rest,
            close: self.proofs.options(Gating::Refuse, progress, interrupt),
        };
        let report = open(&terraform, &options, progress, interrupt).await?;
        progress.clear();
        for line in open_text(&report, "command").lines() {
            progress.say_always(line);
        }
        if let Some(mut file) = file {
            let written = file.write_all(json(&report)?.as_bytes());
            if let Err(error) = written {
                progress.say_always(&format!(
                    "drawbridge: the report could not be written: {error}"
                ));
            }
        }
        Ok(report.status())
    }
}

/// As shells say it.
const NO_SUCH_COMMAND: u8 = 127;

pub(super) fn lease(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time.is_zero() || time > LONGEST {
        return Err("it must be longer than nothing and at most 168h".to_owned());
    }
    Ok(time)
}

/// `work` is what ran in the window, for people.
pub(super) fn open_text(report: &open::Report, work: &str) -> String {
    let mut lines = Vec::new();
    if let Some(refusal) = &report.refusal {
        lines.push(format!("not opened, nothing was changed: {refusal}"));
        return lines.concat();
    }
    if let Some(ended) = &report.command {
        let said = ended.said.as_ref().map(|said| format!(" ({said})"));
        lines.push(format!(
            "the {work} ended with status {}{}",
            ended.status,
            said.unwrap_or_default()
        ));
    }
    if let Some(failure) = &report.failure {
        lines.push(failure.clone());
    }
    if let Some(close) = &report.close {
        lines.push(text(close).trim_end().to_owned());
    }
    if let Some(failure) = &report.close_failure {
        lines.push(failure.clone());
    }
    if !report.is_closed() {
        lines.push(format!(
            "THE WINDOW MAY STILL BE OPEN: run `drawbridge nat close`; if nobody does, AWS deletes the gateway at {}",
            instant_text(report.lease_until)
        ));
    }
    lines.join("\n")
}

pub(super) fn text(report: &Report) -> String {
    let name = &report.deployment;
    let mut lines = Vec::new();
    match report.outcome {
        Outcome::Closed => lines.push(format!("closed the NAT window of {name}")),
        Outcome::AlreadyClosed => {
            lines.push(format!(
                "the NAT window of {name} is closed already: nothing stands, nothing was done"
            ));
        }
        Outcome::Unproven => lines.push(format!(
            "not everything could be proven of the NAT window of {name}: `drawbridge nat close --prove` tries again"
        )),
        Outcome::NotReady => {
            lines.push(format!(
                "not closed, nothing was changed: {}",
                gate::describe(&report.waiting)
            ));
            lines.push("next: `drawbridge nat close --wait`, or look at the host's journal (`drawbridge-bootstrap`, `drawbridge-api`)".to_owned());
        }
        Outcome::Refused => lines.push(format!(
            "not closed: {}",
            report.refusal.as_deref().unwrap_or_default()
        )),
        Outcome::Interrupted => {
            lines.push("interrupted; run it again, it goes on from here".to_owned())
        }
    }
    for proof in &report.proofs {
        lines.push(format!(
            "  {} {}: {}",
            if proof.holds { "ok  " } else { "FAIL" },
            proof.claim,
            proof.seen
        ));
    }
    for claim in &report.left_out {
        lines.push(format!("  --   {claim}: left out (--without-ssh)"));
    }
    if let Some(stood) = &report.window {
        lines.push(format!(
            "{} stood for {} and cost {}",
            stood.gateway,
            for_people(stood.seconds),
            stood.cost
        ));
    }
    let phases: Vec<_> = report
        .phases
        .iter()
        .map(|phase| format!("{} {:.1}", phase.name, phase.seconds))
        .collect();
    lines.push(format!(
        "{:.1} s, of which {:.1} s waiting for terraform ({})",
        report.seconds,
        report.terraform_seconds,
        phases.join(", ")
    ));
    lines.iter().map(|line| escape(line) + "\n").collect()
}
