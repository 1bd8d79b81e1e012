//! `drawbridge nat …`

use std::io::Write as _;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::access::AccessArgs;
use super::{DeploymentArgs, duration};
use crate::bastion::Endpoint;
use crate::exit::{self, Exit};
use crate::interrupt::Interrupt;
use crate::nat::close::{Options, close};
use crate::nat::gate;
use crate::nat::report::{Outcome, Report};
use crate::nat::status::{for_people, status};
use crate::progress::{Progress, escape};

/// The temporary NAT gateway of the private hosts
#[derive(Subcommand, Clone, Debug)]
pub enum NatCommand {
    /// Show the window as the file, the state, the cloud and the hosts see it; changes nothing
    Status(StatusArgs),
    /// Take the NAT gateway down and prove that it is gone
    #[command(long_about = CLOSE_ABOUT, after_help = exit::HELP)]
    Close(CloseArgs),
}

const CLOSE_ABOUT: &str = "\
Take the NAT gateway down and prove that it is gone.

Refuses, naming the host and the step it stands at, until backend and database have reported a complete bootstrap. Then
plans with `nat_gateway = false`, refuses if the plan would change anything but the window (schedule, route, gateway,
address), writes nat.auto.tfvars.json, applies, and proves: gateway and address gone, next plan empty, GET /ready
answers 200 through the load balancer, neither private host reaches the internet. Interrupted anywhere, run it again.";

/// `nat status`
#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    #[command(flatten)]
    deployment: DeploymentArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// `nat close`
#[derive(Args, Clone, Debug)]
pub struct CloseArgs {
    #[command(flatten)]
    deployment: DeploymentArgs,
    #[command(flatten)]
    access: AccessArgs,
    /// Wait until both private hosts are complete, instead of refusing at once
    #[arg(long)]
    wait: bool,
    /// How long --wait waits: 90s, 15m, 2h
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = duration)]
    wait_limit: Duration,
    /// Close no matter how far the hosts are: a host whose bootstrap is cut off stays without its secrets and its API
    /// down until the window is opened again and the bootstrap has run
    #[arg(long, conflicts_with = "wait")]
    force: bool,
    /// Base address of the API, instead of the load balancer's own
    #[arg(long, value_name = "URL", env = "DRAWBRIDGE_URL")]
    url: Option<String>,
    /// What the private hosts try to reach afterwards; default: the host of AWS_ENDPOINT_URL, else
    /// ssm.<region>.amazonaws.com:443
    #[arg(long, value_name = "HOST:PORT", env = "DRAWBRIDGE_EGRESS_TARGET")]
    egress_target: Option<Endpoint>,
    /// Print the proofs and times as JSON
    #[arg(long)]
    json: bool,
}

impl NatCommand {
    /// Runs it; an error is for [`super::report_error`].
    ///
    /// # Errors
    /// Anything that kept it from finishing.
    pub async fn run(self, progress: &Progress, interrupt: &Interrupt) -> anyhow::Result<Exit> {
        match self {
            Self::Status(args) => args.run(progress, interrupt).await,
            Self::Close(args) => args.run(progress, interrupt).await,
        }
    }
}

impl StatusArgs {
    async fn run(self, progress: &Progress, interrupt: &Interrupt) -> anyhow::Result<Exit> {
        let terraform = self.deployment.terraform(progress, interrupt)?;
        let status = tokio::select! {
            status = status(&terraform) => status?,
            () = interrupt.requested() => return Ok(Exit::Interrupted),
        };
        progress.clear();
        print(&if self.json {
            json(&status)?
        } else {
            status.text()
        });
        Ok(Exit::Done)
    }
}

impl CloseArgs {
    async fn run(self, progress: &Progress, interrupt: &Interrupt) -> anyhow::Result<Exit> {
        let terraform = self.deployment.terraform(progress, interrupt)?;
        let options = Options {
            wait: self.wait.then_some(self.wait_limit),
            force: self.force,
            url: self.url,
            egress_target: self.egress_target,
            bastion: self.access.bastion,
            identity: self.access.identity,
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
        Ok(report.outcome.exit())
    }
}

fn json(value: &impl serde::Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

// A closed pipe is not an error: whoever read it has seen enough.
fn print(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

fn text(report: &Report) -> String {
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
            "changed the NAT window of {name}, but not everything could be proven"
        )),
        Outcome::NotReady => {
            lines.push(format!(
                "not closed, nothing was changed: {}",
                gate::describe(&report.waiting)
            ));
            lines.push("next: `drawbridge nat close --wait`, or look at the host's journal (`drawbridge-bootstrap`)".to_owned());
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
