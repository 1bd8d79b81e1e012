//! Load balancers left over, and doors added to ours.

use super::Found;
use super::finding::{Class, Finding};
use super::scope::{Price, Scope};
use crate::cloud::inventory::Inventory;

/// Load balancers in our VPC, or with our tag, that the state does not know; and unknown listeners of ours.
pub(super) async fn load_balancers(inventory: &Inventory, scope: &Scope) -> Found {
    let (all, tagged) = tokio::join!(
        inventory.load_balancers(),
        inventory.tagged("elasticloadbalancing:loadbalancer", &scope.name)
    );
    let (all, tagged) = (all?, tagged?);
    let mut findings = Vec::new();
    for balancer in &all {
        let arn = &balancer.load_balancer_arn;
        if scope.knows("aws_lb", arn) {
            findings.extend(listeners(inventory, scope, arn).await?);
            continue;
        }
        let is_inside = scope.vpc_id().is_some() && balancer.vpc_id.as_deref() == scope.vpc_id();
        let class = match (is_inside, tagged.contains(arn)) {
            (_, true) => Class::Leftover,
            (true, false) => Class::Drift,
            (false, false) => continue,
        };
        let meaning = format!(
            "the load balancer `{}`, which the state does not know; its addresses cost on top",
            balancer.load_balancer_name
        );
        let month = (balancer.kind == "application")
            .then(|| scope.month(Price::LoadBalancer))
            .flatten();
        let delete = scope.aws(&format!(
            "elbv2 delete-load-balancer --load-balancer-arn {arn}"
        ));
        findings.push(
            Finding::new(class, "load-balancer", arn, meaning)
                .costing(month)
                .mended_by(delete),
        );
    }
    Ok(findings)
}

async fn listeners(inventory: &Inventory, scope: &Scope, balancer: &str) -> Found {
    let mut findings = Vec::new();
    for listener in inventory.listeners(balancer).await? {
        let arn = &listener.listener_arn;
        if scope.knows("aws_lb_listener", arn) {
            continue;
        }
        let door = format!(
            "{} {}",
            listener.protocol.unwrap_or_default(),
            listener.port.unwrap_or_default()
        );
        let meaning =
            format!("our load balancer listens on {door} too, which Terraform did not make");
        let delete = scope.aws(&format!("elbv2 delete-listener --listener-arn {arn}"));
        findings.push(Finding::new(Class::Drift, "listener", arn, meaning).mended_by(delete));
    }
    Ok(findings)
}
