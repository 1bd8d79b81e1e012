//! `drawbridge cost`

use clap::Args;

use super::{DeploymentArgs, json, print};
use crate::cost::{Bill, Parts, Sizes};
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::progress::{Progress, escape};
use crate::terraform::TerraformError;
use crate::terraform::state::State;

const ABOUT: &str = "\
Show what a month costs, window closed and open, from a dated price table.

Without options: what stands, by Terraform's state; without a state, what terraform/variables.tf ships. With
any of --region, --bastion, --backend, --database, --root-volume-gib and --database-volume-gib: such a deployment, and
for the others what terraform/variables.tf ships. Asks AWS nothing. A price that is not in the table is an error, never a
guess; one with a weak source is marked ~.";

const EXAMPLES: &str = "\
Examples:
  drawbridge cost
  drawbridge cost --region us-east-1
  drawbridge cost --bastion t4g.nano --backend t4g.micro --database t4g.small --json";

/// Show what a month costs, window closed and open
#[derive(Args, Clone, Debug)]
#[command(long_about = ABOUT, after_long_help = EXAMPLES)]
pub struct CostArgs {
    #[command(flatten)]
    deployment: DeploymentArgs,
    /// AWS region, e.g. us-east-1
    #[arg(long)]
    region: Option<String>,
    /// Instance type of the bastion, e.g. t4g.nano
    #[arg(long, value_name = "TYPE")]
    bastion: Option<String>,
    /// Instance type of the backend
    #[arg(long, value_name = "TYPE")]
    backend: Option<String>,
    /// Instance type of the database
    #[arg(long, value_name = "TYPE")]
    database: Option<String>,
    /// Size of each host's root disk in GiB, 4 to 1000
    #[arg(long, value_name = "GIB", value_parser = clap::value_parser!(u64).range(4..=1000))]
    root_volume_gib: Option<u64>,
    /// Size of the database's own volume in GiB, 1 to 16384
    #[arg(long, value_name = "GIB", value_parser = clap::value_parser!(u64).range(1..=16384))]
    database_volume_gib: Option<u64>,
    /// Print JSON; amounts in millionths of a US dollar
    #[arg(long)]
    json: bool,
}

impl CostArgs {
    /// Runs it; an error is for [`super::report_error`].
    ///
    /// # Errors
    /// When the state cannot be read, or something has no price.
    pub async fn run(self, progress: &Progress, interrupt: &Interrupt) -> anyhow::Result<Exit> {
        let bill = self.bill(progress, interrupt).await?;
        progress.clear();
        print(&if self.json {
            json(&bill)?
        } else {
            bill.text()
                .lines()
                .map(|line| escape(line) + "\n")
                .collect()
        });
        Ok(Exit::Done)
    }

    async fn bill(&self, progress: &Progress, interrupt: &Interrupt) -> anyhow::Result<Bill> {
        if let Some(sizes) = self.sizes() {
            let priced = "a deployment as asked for, otherwise as terraform/variables.tf ships";
            return Ok(Bill::new(sizes.into(), priced)?);
        }
        let terraform = self.deployment.terraform(progress, interrupt);
        let deployed = match terraform {
            Ok(terraform) => match terraform.deployment().await {
                Ok(deployment) => Ok((deployment, terraform.state_pull().await?)),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        let (deployment, state) = match deployed {
            Ok(deployed) => deployed,
            Err(
                error @ (TerraformError::NotApplied { .. }
                | TerraformError::NotInitialised { .. }
                | TerraformError::NotInstalled
                | TerraformError::NoDirectory { .. }),
            ) => {
                let why = match error {
                    TerraformError::NotApplied { .. } => "nothing is applied here",
                    TerraformError::NotInitialised { .. } => "terraform init has not been run here",
                    _ => "there is no terraform here to ask what stands",
                };
                let priced = format!("as terraform/variables.tf ships; {why}");
                return Ok(Bill::new(Sizes::default().into(), &priced)?);
            }
            Err(error) => {
                let way_out =
                    "cannot see what stands (`drawbridge cost --region …` prices without a state)";
                return Err(anyhow::Error::new(error).context(way_out));
            }
        };
        let parts = Parts::deployed(&State::parse(&state)?, &deployment.region)?;
        let window = if deployment.nat_gateway.is_some() {
            "open"
        } else {
            "closed"
        };
        let priced = format!(
            "{} as it stands in Terraform's state, window {window}",
            deployment.name
        );
        Ok(Bill::new(parts, &priced)?)
    }

    /// What was asked for; `None` when nothing was.
    fn sizes(&self) -> Option<Sizes> {
        let texts = [&self.region, &self.bastion, &self.backend, &self.database];
        let numbers = [self.root_volume_gib, self.database_volume_gib];
        if texts.iter().all(|text| text.is_none()) && numbers.iter().all(Option::is_none) {
            return None;
        }
        let shipped = Sizes::default();
        let or = |given: &Option<String>, shipped| given.clone().unwrap_or(shipped);
        Some(Sizes {
            region: or(&self.region, shipped.region),
            bastion: or(&self.bastion, shipped.bastion),
            backend: or(&self.backend, shipped.backend),
            database: or(&self.database, shipped.database),
            root_volume_gib: self.root_volume_gib.unwrap_or(shipped.root_volume_gib),
            database_volume_gib: self
                .database_volume_gib
                .unwrap_or(shipped.database_volume_gib),
        })
    }
}
