//! Machines and networks beside those that Terraform made.

use std::collections::BTreeMap;

use super::Found;
use super::finding::{Class, Finding};
use super::scope::{Price, Scope};
use crate::cloud::inventory::{Inventory, Where};

/// Instances in our VPC, or with our tag, that the state does not know.
pub(super) async fn instances(inventory: &Inventory, scope: &Scope) -> Found {
    let mut instances = BTreeMap::new();
    for place in scope.places() {
        for instance in inventory.instances(&place).await? {
            instances.insert(instance.instance_id.clone(), instance);
        }
    }
    instances.retain(|id, _| !scope.knows("aws_instance", id));
    let describe = |(id, instance): (&String, &crate::cloud::inventory::Instance)| {
        let is_inside = scope.vpc_id().is_some() && instance.vpc_id.as_deref() == scope.vpc_id();
        let kind = &instance.instance_type;
        let (class, meaning) = if is_inside {
            (
                Class::Drift,
                format!("a {kind} in this VPC that Terraform did not make; its disks cost on top"),
            )
        } else {
            (
                Class::Leftover,
                format!("a {kind} that the state does not know; its disks cost on top"),
            )
        };
        Finding::new(class, "instance", id, meaning)
            .costing(scope.month(Price::Instance(kind)))
            .mended_by(scope.aws(&format!("ec2 terminate-instances --instance-ids {id}")))
    };
    Ok(instances.iter().map(describe).collect())
}

/// VPCs with our tag that the state does not know.
pub(super) async fn vpcs(inventory: &Inventory, scope: &Scope) -> Found {
    let tagged = inventory
        .vpcs(&Where::Deployment(scope.name.clone()))
        .await?;
    let unknown = tagged
        .iter()
        .filter(|vpc| !scope.knows("aws_vpc", &vpc.vpc_id));
    let describe = |id: &String| {
        let meaning = "a network that the state does not know; what stands in it goes first";
        Finding::new(Class::Leftover, "vpc", id, meaning)
            .mended_by(scope.aws(&format!("ec2 delete-vpc --vpc-id {id}")))
    };
    Ok(unknown.map(|vpc| describe(&vpc.vpc_id)).collect())
}
