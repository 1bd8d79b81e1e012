//! `drawbridge status`

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use tokio::time::sleep;

use super::access::AccessArgs;
use super::{DeploymentArgs, json, print};
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::status::Status;
use crate::status::look::look;

const ABOUT: &str = "\
Show hosts, API, database, NAT window and backup on one screen; changes nothing.

Asks hosts (through the bastion), AWS and the load balancer side by side, all of it within --limit. What could not be
learnt is shown as unknown with its reason, and never as fine: without AWS credentials only the load balancer is asked,
without a way in by ssh all that is seen from outside is shown. Every line that begins with `but` says what is wrong and
ends with the command that mends it; `drawbridge doctor` looks further, `drawbridge audit` for what no plan shows.";

const HELP: &str = "\
Examples:
  drawbridge status
  drawbridge status --watch 5
  drawbridge status --json | jq -r '.unknown[] | .part + \": \" + .reason'
  drawbridge status --json | jq '.hosts.database.host.database.size_bytes'

JSON: deployment, account, region, taken_at, seconds; hosts {bastion, backend, database}, each with instance_id,
private_ip, public_ip, image_id, instance {state, launched_at}, image {name, created_at} (null: gone), bootstrap
{is_complete, step, said}, clock_ahead_seconds and host: what `drawbridge-host status` prints there; api {load_balancer,
direct}, each {is_ready, seen}; window as `drawbridge nat status --json`; last_backup (null: none); findings
[{finding, means, command}]; unknown [{part, reason}]. In place of a value that is not known stands {\"unknown\": \"why\"}.
With --watch each look is one line.

Exit status:
  0    everything is known and fine
  1    it is not known what stands: terraform failed or did not answer
  2    wrong usage
  5    something is not known, and nothing known is wrong
  6    something is wrong, whatever else is not known
  130  interrupted; --watch ends so too";

/// Show hosts, API, database, NAT window and backup on one screen
#[derive(Args, Clone, Debug)]
#[command(long_about = ABOUT, after_help = HELP)]
pub struct StatusArgs {
    #[command(flatten)]
    deployment: DeploymentArgs,
    #[command(flatten)]
    access: AccessArgs,
    /// Base address of the API, instead of the load balancer's own
    #[arg(long, value_name = "URL", env = "DRAWBRIDGE_URL")]
    url: Option<String>,
    /// Give up on what has not answered after this long, 1 to 300
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=300))]
    limit: u64,
    /// Look again and again until Ctrl-C, SECONDS (1 to 3600, default 5) after each look: in place on a terminal, block
    /// after block elsewhere
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "5", value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch: Option<u64>,
    /// Print JSON; the fields are listed below
    #[arg(long)]
    json: bool,
}

impl StatusArgs {
    /// Runs it; an error is for [`super::report_error`].
    ///
    /// # Errors
    /// When it cannot be learnt what there is to look at.
    pub async fn run(self, progress: &Progress, interrupt: &Interrupt) -> anyhow::Result<Exit> {
        let way = self.access.way(self.url.clone());
        let limit = Duration::from_secs(self.limit);
        progress.line("asking hosts, AWS and the load balancer");
        loop {
            let terraform = self.deployment.terraform(&Progress::quiet(), interrupt)?;
            let looked = tokio::select! {
                looked = look(&terraform, &way, limit) => looked,
                () = interrupt.requested() => return Ok(Exit::Interrupted),
            };
            progress.clear();
            let Some(pause) = self.watch else {
                let status = looked?.status;
                print(&self.shown(&status)?);
                return Ok(status.exit());
            };
            // Whoever watches wants to see it come back.
            match looked {
                Ok(looked) => print(&self.shown(&looked.status)?),
                Err(error) => progress.say_always(&format!(
                    "drawbridge: {}",
                    crate::error_chain::chain(&error)
                )),
            }
            tokio::select! {
                () = sleep(Duration::from_secs(pause)) => {}
                () = interrupt.requested() => return Ok(Exit::Interrupted),
            }
        }
    }

    fn shown(&self, status: &Status) -> anyhow::Result<String> {
        let is_watched = self.watch.is_some();
        if self.json {
            let text = json(status)?;
            let line = || text.lines().map(str::trim).collect::<String>() + "\n";
            return Ok(if is_watched { line() } else { text });
        }
        let text = status.text();
        Ok(match (is_watched, std::io::stdout().is_terminal()) {
            (false, _) => text,
            (true, false) => text + "\n",
            // To the upper left corner, and away with the look before.
            (true, true) => format!("\u{1b}[H\u{1b}[2J{text}"),
        })
    }
}
