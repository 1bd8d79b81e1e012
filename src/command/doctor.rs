//! `drawbridge doctor`

use std::time::Duration;

use clap::Args;

use super::access::AccessArgs;
use super::{DeploymentArgs, json, print};
use crate::doctor::doctor;
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::progress::{Progress, escape};

const ABOUT: &str = "\
Find what is wrong with this machine and with the deployment; changes nothing.

This machine: terraform and its version, the aws command, whose the credentials are, region, clock (by AWS's), ssh key (is
it accepted, or in admin_ssh_keys), own address (in admin_cidrs), published host keys, .drawbridge/ssh_config, the lock of a
local state, an uncommitted position file, and whether images can be built here. The deployment: all that `drawbridge
status` shows, judged. Each finding comes with the command that mends it, which is yours to run. A note is no fault:
an image older than 90 days, an API in the clear, no Nix here. For what was added by hand or is left over: `drawbridge
audit`.";

const HELP: &str = "\
Examples:
  drawbridge doctor
  drawbridge doctor --checkip        where the bastion does not answer: is this machine's address in admin_cidrs?
  drawbridge doctor --json | jq -r '.findings[] | .finding + \": \" + .command'

JSON: deployment (null where nothing tells it), fine [{check, seen}], findings and notes [{finding, means, command}],
unknown [{part, reason}].

Exit status:
  0    nothing was found
  2    wrong usage
  5    nothing was found, but some checks could not be made
  6    something was found, whatever else could not be checked
  130  interrupted";

/// Find what is wrong with this machine and with the deployment; changes nothing
#[derive(Args, Clone, Debug)]
#[command(long_about = ABOUT, after_help = HELP)]
pub struct DoctorArgs {
    #[command(flatten)]
    deployment: DeploymentArgs,
    #[command(flatten)]
    access: AccessArgs,
    /// Base address of the API, instead of the load balancer's own
    #[arg(long, value_name = "URL", env = "DRAWBRIDGE_URL")]
    url: Option<String>,
    /// May ask https://checkip.amazonaws.com which address this machine has
    #[arg(long)]
    checkip: bool,
    /// Give up on what of the deployment has not answered after this long, 1 to 300
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=300))]
    limit: u64,
    /// Print JSON; the fields are listed below
    #[arg(long)]
    json: bool,
}

impl DoctorArgs {
    /// Runs it; an error is for [`super::report_error`].
    ///
    /// # Errors
    /// When what was found cannot be written.
    pub async fn run(self, progress: &Progress, interrupt: &Interrupt) -> anyhow::Result<Exit> {
        let terraform = self.deployment.terraform(&Progress::quiet(), interrupt);
        let way = self.access.way(self.url);
        progress.line("looking at this machine, hosts, AWS and the load balancer");
        let limit = Duration::from_secs(self.limit);
        let found = tokio::select! {
            found = doctor(terraform, &way, self.checkip, limit) => found,
            () = interrupt.requested() => return Ok(Exit::Interrupted),
        };
        progress.clear();
        print(&if self.json {
            json(&found)?
        } else {
            let lines = found.lines();
            lines.iter().map(|line| escape(line) + "\n").collect()
        });
        Ok(found.exit())
    }
}
