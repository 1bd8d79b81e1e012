//! What no plan shows: what is left over of a deployment, and what somebody added to it by hand.
//!
//! Each look compares one kind of thing in the account with Terraform's state, and changes nothing. A look that cannot
//! be taken is reported as such, never as "nothing found".

mod addresses;
mod disks;
mod finding;
mod gateways;
mod groups;
mod instances;
mod load_balancers;
mod named;
mod routes;
mod scope;

use serde::Serialize;

pub use self::finding::{Class, Finding};
pub use self::scope::{Given, Scope, ScopeError};
use crate::cloud::inventory::Inventory;
use crate::cloud::{Cloud, CloudError, Trouble};
use crate::cost::MicroUsd;
use crate::error_chain::chain;
use crate::exit::Exit;

/// What was seen. `--json` prints this.
#[derive(Clone, Debug, Serialize)]
pub struct Audit {
    /// Name of the deployment.
    pub deployment: String,
    /// AWS region.
    pub region: String,
    /// The account that was looked at.
    pub account: String,
    /// Whether Terraform's state told what is ours; otherwise all that carries the tag counts as left over.
    pub has_state: bool,
    /// What was looked at, in words.
    pub looks: Vec<&'static str>,
    /// What was found.
    pub findings: Vec<Finding>,
    /// What could not be looked at.
    pub unknown: Vec<Unknown>,
    /// What the findings cost a month, as far as known.
    pub month_usd_micros: MicroUsd,
}

/// A look that could not be taken.
#[derive(Clone, Debug, Serialize)]
pub struct Unknown {
    /// Which one.
    pub look: &'static str,
    /// Why not.
    pub reason: String,
}

type Found = Result<Vec<Finding>, CloudError>;

/// Looks at everything, changes nothing.
///
/// # Errors
/// When nothing at all can be asked: credentials, account, region, network.
pub async fn audit(scope: &Scope) -> Result<Audit, CloudError> {
    let cloud = Cloud::new(&scope.region).await;
    let inventory = Inventory::new(cloud.clone());
    let account = match &scope.deployment {
        Some(deployment) => {
            cloud.check_account(&deployment.account_id).await?;
            deployment.account_id.clone()
        }
        None => inventory.account().await?,
    };
    vpc_is_there(&inventory, scope, &account).await?;
    let looks = look(&inventory, scope).await;
    let mut audit = Audit {
        deployment: scope.name.clone(),
        region: scope.region.clone(),
        account,
        has_state: scope.has_resources(),
        looks: Vec::new(),
        findings: Vec::new(),
        unknown: Vec::new(),
        month_usd_micros: MicroUsd::default(),
    };
    for (look, found) in looks {
        audit.looks.push(look);
        match found {
            Ok(findings) => audit.findings.extend(findings),
            Err(error) if is_hopeless(&error) => return Err(error),
            Err(error) => audit.unknown.push(Unknown {
                look,
                reason: chain(&error),
            }),
        }
    }
    audit.month_usd_micros = audit
        .findings
        .iter()
        .filter_map(|finding| finding.month_usd_micros)
        .sum();
    Ok(audit)
}

/// All looks side by side; the inventory bounds how many commands run at a time.
async fn look(inventory: &Inventory, scope: &Scope) -> Vec<(&'static str, Found)> {
    let (ips, interfaces, volumes, snapshots, nats, instances, vpcs, groups) = tokio::join!(
        addresses::elastic_ips(inventory, scope),
        addresses::interfaces(inventory, scope),
        disks::volumes(inventory, scope),
        disks::snapshots(inventory, scope),
        gateways::gateways(inventory, scope),
        instances::instances(inventory, scope),
        instances::vpcs(inventory, scope),
        groups::groups(inventory, scope),
    );
    let (balancers, routes, peerings, schedules, logs, parameters, roles) = tokio::join!(
        load_balancers::load_balancers(inventory, scope),
        routes::routes(inventory, scope),
        routes::peerings(inventory, scope),
        gateways::schedules(inventory, scope),
        named::log_groups(inventory, scope),
        named::parameters(inventory, scope),
        named::roles(inventory, scope),
    );
    vec![
        ("Elastic IPs", ips),
        ("network interfaces", interfaces),
        ("volumes", volumes),
        ("snapshots", snapshots),
        ("NAT gateways", nats),
        ("schedules", schedules),
        ("instances", instances),
        ("VPCs", vpcs),
        ("security groups", groups),
        ("load balancers", balancers),
        ("routes", routes),
        ("VPC peerings", peerings),
        ("log groups", logs),
        ("SSM parameters", parameters),
        ("IAM roles", roles),
    ]
}

/// In another region, or behind another endpoint, nothing would be found and all would seem well.
async fn vpc_is_there(
    inventory: &Inventory,
    scope: &Scope,
    account: &str,
) -> Result<(), CloudError> {
    let Some(vpc) = scope.vpc() else {
        return Ok(());
    };
    if inventory.vpcs(&vpc).await?.is_empty() {
        return Err(CloudError::NotThere {
            what: scope.vpc_id().unwrap_or_default().to_owned(),
            region: scope.region.clone(),
            account: account.to_owned(),
        });
    }
    Ok(())
}

/// Whether every other look fails for the same reason.
fn is_hopeless(error: &CloudError) -> bool {
    match error {
        // One service that does not answer says nothing about the others.
        CloudError::Request {
            trouble: Trouble::NoAnswer { .. },
            ..
        } => false,
        error => error.is_about_access(),
    }
}

impl Audit {
    /// How the command ends. What could not be looked at weighs more than what was found: the list is not complete.
    #[must_use]
    pub fn exit(&self) -> Exit {
        if !self.unknown.is_empty() {
            Exit::Failed
        } else if self.findings.is_empty() {
            Exit::Done
        } else {
            Exit::Found
        }
    }

    /// For people.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let whose = format!(
            "{} in {}, account {}",
            self.deployment, self.region, self.account
        );
        let mut lines = vec![match self.findings.len() {
            0 => format!("{whose}: found nothing in {}", self.looked_at()),
            1 => format!("{whose}: 1 finding"),
            count => format!("{whose}: {count} findings"),
        }];
        if !self.has_state {
            lines.push(
                "no state: all that carries the deployment's tag counts as left over".to_owned(),
            );
        }
        for finding in &self.findings {
            lines.extend(finding.lines());
        }
        for unknown in &self.unknown {
            lines.push(format!("unknown   {}: {}", unknown.look, unknown.reason));
        }
        if self.month_usd_micros > MicroUsd::default() {
            lines.push(format!(
                "together {} a month, as far as known",
                self.month_usd_micros
            ));
        }
        lines
    }

    fn looked_at(&self) -> String {
        let unknown = |look: &&str| self.unknown.iter().any(|unknown| unknown.look == *look);
        let seen: Vec<_> = self
            .looks
            .iter()
            .copied()
            .filter(|look| !unknown(look))
            .collect();
        seen.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audit(findings: usize, unknown: usize) -> Audit {
        let finding = Finding::new(Class::Drift, "route", "rtb-1", "somewhere");
        let reason = "not allowed: ec2:DescribeRouteTables".to_owned();
        Audit {
            deployment: "drawbridge".into(),
            region: "ap-south-1".into(),
            account: "123456789012".into(),
            has_state: true,
            looks: vec!["routes", "volumes"],
            findings: vec![finding; findings],
            unknown: vec![
                Unknown {
                    look: "routes",
                    reason
                };
                unknown
            ],
            month_usd_micros: MicroUsd::default(),
        }
    }

    #[test]
    fn what_could_not_be_looked_at_is_never_fine() {
        assert_eq!(audit(0, 0).exit(), Exit::Done);
        assert_eq!(audit(1, 0).exit(), Exit::Found);
        assert_eq!(audit(0, 1).exit(), Exit::Failed);
        assert_eq!(audit(1, 1).exit(), Exit::Failed);
        let lines = audit(0, 1).lines();
        assert!(lines[0].ends_with("found nothing in volumes"), "{lines:?}");
        assert!(
            lines[1].contains("routes: not allowed: ec2:DescribeRouteTables"),
            "{lines:?}"
        );
    }
}
