//! `drawbridge up` and `drawbridge open`.

use std::time::Duration;

use clap::Args;

use super::image::{PARALLEL, build_folder, publish_folders, text as published_text};
use super::nat::{ProofArgs, lease, open_text, text};
use super::{DeploymentArgs, print, report_error};
use crate::appliance::Role;
use crate::exit::Exit;
use crate::image::target::{BadTarget, Target};
use crate::image::variables::{FILE, Variables};
use crate::image::{ImageError, System};
use crate::interrupt::Interrupt;
use crate::nat::gate::{Gating, describe};
use crate::nat::report::Outcome as Closing;
use crate::progress::{Progress, escape};
use crate::terraform::Terraform;
use crate::up::browser::{self, Surroundings};
use crate::up::decide::Refusal;
use crate::up::run::{Options, Outcome, UpError, agree, docs_url, up};

const UP_ABOUT: &str = "\
Publish what is missing, apply, wait for the hosts, close the NAT window, prove it, and open /docs.

Looks at what stands and does what is missing: builds and publishes the image of each role that images.auto.tfvars.json does
not name, or names and EC2 does not know; runs terraform init where that was never done; plans, shows the plan and asks.
The first apply has the window in it. Later the window is opened only if the plan makes backend or database anew, or if one
of them has not completed its bootstrap; a database made anew takes the backend along, which needs its new password. While
it waits, each host has a line with the step it stands at and for how long.

The window is closed whatever comes of the apply, and proven closed. Interrupted anywhere, run it again: it is decided anew
from the position file, Terraform's state, the cloud and the hosts' reports. In a CI job ($CI) it refuses a state on the
job's own disk, and a position file that says open.

Costs: what the plan makes (`drawbridge cost`), the window (about 0.06 USD an hour), the images' snapshots.";

const UP_HELP: &str = "\
Examples:
  drawbridge up                                           build, publish, apply, wait, close, prove, open /docs
  drawbridge up --skip-publish --yes --without-ssh        in a CI job
  drawbridge up --skip-publish --replace aws_instance.backend

stdout has the address of /docs; all else goes to stderr.

Exit status:
  0    up, the window closed and everything proven; or nothing was to be done
  1    failed; the message says what stands; run it again and it goes on
  2    wrong usage
  4    refused: nobody agreed, a CI job's own disk or open position, a NAT gateway that is not the window's, missing or
       expired credentials, another account, a locked state; nothing was changed
  5    changed, but not everything could be proven
  130  interrupted; run it again and it goes on";

const OPEN_ABOUT: &str = "\
Open the API's documentation in the browser, and print its address.

Takes $BROWSER, else the desktop's own program (xdg-open, on a Mac open). In a CI job or without a display it only prints.";

const OPEN_HELP: &str = "\
Examples:
  drawbridge open
  BROWSER=lynx drawbridge open
  curl -fsS \"$(drawbridge open --print)\"

Exit status:
  0    printed, whether or not a browser was there
  1    failed: nothing is deployed, or the state cannot be read
  2    wrong usage
  130  interrupted";

/// Bring the deployment up: publish, apply, wait, close the window, prove, open /docs
#[derive(Args, Clone, Debug)]
#[command(long_about = UP_ABOUT, after_help = UP_HELP)]
pub struct UpArgs {
    #[command(flatten)]
    deployment: DeploymentArgs,
    #[command(flatten)]
    proofs: ProofArgs,
    /// How long the NAT window may stand, should it be needed: 90s, 45m, 2h; 168h at most
    #[arg(long = "for", value_name = "TIME", default_value = "45m", value_parser = lease)]
    time: Duration,
    /// Go on without asking
    #[arg(long)]
    yes: bool,
    /// Build and publish nothing: take the images that images.auto.tfvars.json names
    #[arg(long)]
    skip_publish: bool,
    /// Processor of images to build, x86_64-linux or aarch64-linux; default: this machine's
    #[arg(long, value_name = "SYSTEM", conflicts_with = "skip_publish")]
    system: Option<System>,
    /// AWS region to publish to; default: AWS_REGION, else the deployment's
    #[arg(long, value_name = "REGION", conflicts_with = "skip_publish")]
    region: Option<String>,
    /// Make this Terraform resource anew though nothing asks for it, e.g. aws_instance.backend; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    replace: Vec<String>,
    /// Open no browser, only print the address
    #[arg(long)]
    no_open: bool,
}

/// Open the API's documentation in the browser
#[derive(Args, Clone, Debug)]
#[command(long_about = OPEN_ABOUT, after_help = OPEN_HELP)]
pub struct OpenArgs {
    #[command(flatten)]
    deployment: DeploymentArgs,
    /// Only print the address
    #[arg(long)]
    print: bool,
}

impl UpArgs {
    /// Runs it; an error is for [`report_error`].
    ///
    /// # Errors
    /// Anything that kept it from finishing.
    pub async fn run(self, progress: &Progress, interrupt: &Interrupt) -> anyhow::Result<u8> {
        let terraform = self.deployment.terraform(progress, interrupt)?;
        if !self.skip_publish {
            let published = tokio::select! {
                published = self.publish(&terraform, progress, interrupt) => published,
                () = interrupt.requested() => {
                    progress.clear();
                    progress.say_always("drawbridge: interrupted; run it again and it goes on");
                    return Ok(Exit::Interrupted as u8);
                }
            };
            if let Err(error) = published {
                return refused_or(error, progress, interrupt);
            }
        }
        let options = Options {
            time: self.time,
            yes: self.yes,
            replace: self.replace,
            close: self.proofs.options(Gating::Refuse, progress, interrupt),
        };
        let outcome = match up(&terraform, &options, progress, interrupt).await {
            Ok(outcome) => outcome,
            Err(error) => return refused_or(error.into(), progress, interrupt),
        };
        progress.clear();
        let status = tell(&outcome, progress);
        if status == Exit::Done as u8 || status == Exit::Unproven as u8 {
            let is_seen = !self.no_open && status == Exit::Done as u8;
            show_docs(&terraform, is_seen, progress).await?;
        }
        Ok(status)
    }

    /// Builds and publishes the images that are missing.
    async fn publish(
        &self,
        terraform: &Terraform,
        progress: &Progress,
        interrupt: &Interrupt,
    ) -> anyhow::Result<()> {
        progress.begin("looking for the images");
        let directory = terraform.directory();
        let listed = Variables::read(directory).map_err(ImageError::from)?;
        let listed = listed.images();
        let target = match Target::find(self.region.clone(), Some(terraform)).await {
            // Nothing to publish, and nobody has said where: terraform's own plan tells whether they are there.
            Err(BadTarget::NoRegion) if listed.len() == Role::ALL.len() => return Ok(()),
            target => target.map_err(ImageError::from)?,
        };
        let ids: Vec<_> = listed.values().map(String::as_str).collect();
        let known = match ids.is_empty() {
            true => Default::default(),
            false => target
                .cloud
                .known_images(&ids)
                .await
                .map_err(ImageError::from)?,
        };
        let is_there = |role: &Role| listed.get(role).is_some_and(|id| known.contains(id));
        let missing: Vec<_> = Role::ALL
            .into_iter()
            .filter(|role| !is_there(role))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let roles = missing.iter().map(Role::to_string).collect::<Vec<_>>();
        progress.say(&format!(
            "not published, or not named in {FILE}: {}; building takes tens of minutes, and a snapshot about 0.05 USD a GB-month",
            roles.join(", ")
        ));
        agree(self.yes, "Build and publish them?", progress, interrupt).await?;
        let mut folders = Vec::new();
        for role in missing {
            folders.push(build_folder(role, self.system, progress).await?);
        }
        let report = publish_folders(&target, folders, PARALLEL, directory, progress).await?;
        for line in published_text(&report).lines() {
            progress.say(line);
        }
        Ok(())
    }
}

impl OpenArgs {
    /// Runs it; an error is for [`report_error`].
    ///
    /// # Errors
    /// When nothing is deployed, or the state cannot be read.
    pub async fn run(self, progress: &Progress, interrupt: &Interrupt) -> anyhow::Result<Exit> {
        let terraform = self.deployment.terraform(progress, interrupt)?;
        show_docs(&terraform, !self.print, progress).await?;
        Ok(Exit::Done)
    }
}

/// Prints the address of /docs, and opens it where somebody sees it.
async fn show_docs(
    terraform: &Terraform,
    is_seen: bool,
    progress: &Progress,
) -> anyhow::Result<()> {
    let address = docs_url(terraform).await?;
    progress.clear();
    print(&(escape(&address) + "\n"));
    if is_seen && let Err(why) = browser::open(&address, &Surroundings::of_this_process()).await {
        progress.say_always(&format!("drawbridge: {why}"));
    }
    Ok(())
}

/// What it came to, for people; the exit status.
fn tell(outcome: &Outcome, progress: &Progress) -> u8 {
    let say = |text: &str| text.lines().for_each(|line| progress.say_always(line));
    let (done, proof) = match outcome {
        Outcome::Nothing(proof) => ("nothing to do: everything stands as the files say", proof),
        Outcome::Applied(proof) => ("applied; the NAT window stayed closed", proof),
        Outcome::Windowed { report, waiting } => {
            say(&open_text(report, "apply"));
            if waiting.is_empty() {
                return report.status();
            }
            say(&format!(
                "the time was over before everybody was done: {}",
                describe(waiting)
            ));
            say("next: `drawbridge up --for 2h` opens the window for them again");
            return Exit::Unproven as u8;
        }
        Outcome::NotCleared(report) => {
            say(&text(report));
            return match report.outcome {
                Closing::Refused => Exit::Failed,
                outcome => outcome.exit(),
            } as u8;
        }
    };
    say(done);
    if proof.holds {
        say(&format!("  ok   {}: {}", proof.claim, proof.seen));
        return Exit::Done as u8;
    }
    say(&format!("  FAIL {}: {}", proof.claim, proof.seen));
    say("next: `drawbridge exec backend -- journalctl -u drawbridge-api -n 50` says why");
    Exit::Unproven as u8
}

/// A refusal is an exit status of its own.
fn refused_or(
    error: anyhow::Error,
    progress: &Progress,
    interrupt: &Interrupt,
) -> anyhow::Result<u8> {
    let is_refusal = error.downcast_ref().is_some_and(UpError::is_refusal)
        || error.downcast_ref().is_some_and(ImageError::is_refusal)
        || error.downcast_ref::<Refusal>().is_some();
    if is_refusal && interrupt.count() == 0 {
        let _ = report_error(&error, progress, interrupt);
        return Ok(Exit::Refused as u8);
    }
    Err(error)
}
