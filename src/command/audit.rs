//! `drawbridge audit`

use clap::Args;

use super::{DeploymentArgs, json, print};
use crate::audit::{Given, Scope, audit};
use crate::cloud::is_region;
use crate::exit::{self, Exit};
use crate::interrupt::Interrupt;
use crate::progress::{Progress, escape};

const ABOUT: &str = "\
Find what is left over of a deployment, and what was added to it where a plan does not look; changes nothing.

Compares the account with Terraform's state. Left over: all that carries the tag Deployment=<name> or the deployment's
name and is not in the state, among it the database's volume that scripts/destroy.sh keeps. Added: security-group rules,
NAT gateways, public addresses, routes, instances, load balancers, listeners and peerings in the VPC; a window's gateway
without a deadline. Each finding comes with what it means, what it costs a month when that is known, and the command that
mends it, which is yours to run.

Without a state, as after a destroy, it needs --name and --region, and all that carries the tag counts as left over.";

const EXAMPLES: &str = "\
Examples:
  drawbridge audit
  drawbridge audit --json | jq -r '.findings[] | .kind + \" \" + .id'
  drawbridge audit --name drawbridge --region ap-south-1    # after terraform destroy

Asks through the aws command, with read-only permissions: Describe*, List* and Get* of ec2, elasticloadbalancing, iam,
logs, scheduler, ssm (DescribeParameters), sts and tag.

";

/// Find what is left over and what was added by hand; changes nothing
#[derive(Args, Clone, Debug)]
#[command(long_about = ABOUT, after_long_help = EXAMPLES.to_owned() + exit::HELP)]
pub struct AuditArgs {
    #[command(flatten)]
    deployment: DeploymentArgs,
    /// Name of the deployment, where no state tells it, e.g. drawbridge
    #[arg(long, value_parser = name)]
    name: Option<String>,
    /// AWS region, where no state tells it, e.g. ap-south-1
    #[arg(long, value_parser = region)]
    region: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl AuditArgs {
    /// Runs it; an error is for [`super::report_error`].
    ///
    /// # Errors
    /// When it is not known what to look for, or nothing can be asked.
    pub async fn run(self, progress: &Progress, interrupt: &Interrupt) -> anyhow::Result<Exit> {
        let given = Given {
            name: self.name,
            region: self.region,
        };
        let terraform = self.deployment.terraform(progress, interrupt);
        let work = async {
            let scope = Scope::read(terraform, &given).await?;
            progress.line(&format!("looking at {} in {}", scope.name, scope.region));
            anyhow::Ok(audit(&scope).await?)
        };
        let audit = tokio::select! {
            audit = work => audit?,
            () = interrupt.requested() => return Ok(Exit::Interrupted),
        };
        progress.clear();
        print(&if self.json {
            json(&audit)?
        } else {
            audit
                .lines()
                .iter()
                .map(|line| escape(line) + "\n")
                .collect()
        });
        Ok(audit.exit())
    }
}

// Both go into filters, where EC2 takes `*` and `?` for anything: only what terraform/variables.tf takes too.
fn name(text: &str) -> Result<String, String> {
    let is_right = text.starts_with(|first: char| first.is_ascii_lowercase())
        && (2..=21).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let wrong = "a deployment's name is 2 to 21 lower-case letters, digits or hyphens and begins with a letter";
    is_right
        .then(|| text.to_owned())
        .ok_or_else(|| wrong.to_owned())
}

fn region(text: &str) -> Result<String, String> {
    let wrong = "a region is a code like ap-south-1";
    is_region(text)
        .then(|| text.to_owned())
        .ok_or_else(|| wrong.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_or_region_that_would_filter_more_than_it_says_is_refused() {
        assert!(name("drawbridge").is_ok() && region("us-gov-west-1").is_ok());
        for wrong in ["", "*", "a", "Draw", "draw*", "draw,x", "1draw"] {
            assert!(name(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "ap-south", "ap-south-1a", "*-south-1", "ap_south_1"] {
            assert!(region(wrong).is_err(), "{wrong}");
        }
    }
}
