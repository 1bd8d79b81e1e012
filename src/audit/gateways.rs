//! NAT gateways beside the window's, and the deadlines of those that stand.

use super::Found;
use super::finding::{Class, Finding};
use super::scope::{Price, Scope};
use crate::cloud::inventory::{Inventory, NatGateway, Schedule, tag};

/// Gateways in our VPC, or with our tag, that the state does not know.
pub(super) async fn gateways(inventory: &Inventory, scope: &Scope) -> Found {
    let gateways = inventory.nat_gateways().await?.iter();
    Ok(gateways
        .filter_map(|gateway| unknown(gateway, scope))
        .collect())
}

fn unknown(gateway: &NatGateway, scope: &Scope) -> Option<Finding> {
    let id = &gateway.nat_gateway_id;
    if scope.knows("aws_nat_gateway", id) {
        return None;
    }
    let (class, meaning) = if tag(&gateway.tags, "Deployment") == Some(&scope.name) {
        (
            Class::Leftover,
            "a NAT gateway that Terraform made once and no longer knows",
        )
    } else if Some(gateway.vpc_id.as_str()) == scope.vpc_id() {
        (
            Class::Drift,
            "a second NAT gateway in this VPC, beside the window; its address costs on top",
        )
    } else {
        return None;
    };
    let delete = scope.aws(&format!("ec2 delete-nat-gateway --nat-gateway-id {id}"));
    Some(
        Finding::new(class, "nat-gateway", id, meaning)
            .costing(scope.month(Price::NatGateway))
            .mended_by(delete),
    )
}

/// Deadlines of gateways that the state does not know, and gateways of ours without one. Schedules carry no tags; ours
/// are named `<name>-<gateway's id>-<deadline>`.
pub(super) async fn schedules(inventory: &Inventory, scope: &Scope) -> Found {
    let prefix = format!("{}-", scope.name);
    let (gateways, schedules) = (
        inventory.nat_gateways().await?,
        inventory.schedules(&format!("{prefix}nat-")).await?,
    );
    let mut findings = Vec::new();
    for schedule in &schedules {
        let known = scope.state().of_type("aws_scheduler_schedule");
        let mut names = known.filter_map(|known| known.optional_text("name"));
        let Some(gateway) = gateway_of(schedule, &prefix) else {
            continue;
        };
        if !names.any(|name| name == schedule.name) {
            let meaning =
                format!("the deadline of {gateway}, a schedule that the state does not know");
            let delete = scope.aws(&format!(
                "scheduler delete-schedule --name {}",
                schedule.name
            ));
            findings.push(
                Finding::new(Class::Leftover, "schedule", &schedule.name, meaning)
                    .mended_by(delete),
            );
        }
    }
    for gateway in gateways {
        let id = &gateway.nat_gateway_id;
        let is_ours = scope.knows("aws_nat_gateway", id)
            || tag(&gateway.tags, "NatWindow") == Some(&scope.name);
        let mut enabled = schedules
            .iter()
            .filter(|schedule| schedule.state == "ENABLED");
        if is_ours && !enabled.any(|schedule| gateway_of(schedule, &prefix).as_ref() == Some(id)) {
            let meaning = "the window's gateway has no enabled schedule: nothing deletes it should nobody close the window";
            findings.push(
                Finding::new(Class::Drift, "no-deadline", id, meaning)
                    .costing(scope.month(Price::NatGateway))
                    .mended_by("# to close the window: drawbridge nat close")
                    .mended_by("# to keep it, with nat_gateway_max_hours above 0: terraform -chdir=terraform apply"),
            );
        }
    }
    Ok(findings)
}

/// `shop-nat-` also begins the names of a deployment `shop-nat-x`, but a gateway's id is hexadecimal.
fn gateway_of(schedule: &Schedule, prefix: &str) -> Option<String> {
    let id = schedule
        .name
        .strip_prefix(prefix)?
        .strip_prefix("nat-")?
        .split('-')
        .next()?;
    let is_id = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| format!("nat-{id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_names_its_gateway_and_another_deployments_does_not() {
        let of = |name: &str| {
            let schedule = Schedule {
                name: name.to_owned(),
                state: "ENABLED".to_owned(),
            };
            gateway_of(&schedule, "shop-")
        };
        assert_eq!(of("shop-nat-0ab1-4h").as_deref(), Some("nat-0ab1"));
        assert_eq!(
            of("shop-nat-0ab1-20261120T124000Z").as_deref(),
            Some("nat-0ab1")
        );
        assert_eq!(of("shop-nat-x-nat-0ab1-4h"), None);
        assert_eq!(of("shopping-nat-0ab1"), None);
    }
}
