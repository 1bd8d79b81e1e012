//! Ways out of the VPC that Terraform did not make.

use super::Found;
use super::finding::{Class, Finding};
use super::scope::Scope;
use crate::cloud::inventory::{Inventory, Route};

/// Routes in our tables that the state does not know. Our tables have no inline routes, so a plan does not look.
pub(super) async fn routes(inventory: &Inventory, scope: &Scope) -> Found {
    let Some(vpc) = scope.vpc() else {
        return Ok(Vec::new());
    };
    let private = scope
        .deployment
        .as_ref()
        .map(|deployment| deployment.private_route_table_id.as_str());
    let mut findings = Vec::new();
    for table in inventory.route_tables(&vpc).await? {
        let id = &table.route_table_id;
        if !scope.knows("aws_route_table", id) {
            continue;
        }
        for route in table
            .routes
            .iter()
            .filter(|route| !is_known(route, id, scope))
        {
            let (option, destination) = destination(route);
            let half = if Some(id.as_str()) == private {
                "private"
            } else {
                "public"
            };
            let meaning = format!(
                "the {half} route table leads {destination} to {}, which is no route of Terraform's",
                target(route)
            );
            let delete = format!("ec2 delete-route --route-table-id {id} {option} {destination}");
            let name = format!("{id} {destination}");
            findings.push(
                Finding::new(Class::Drift, "route", name, meaning).mended_by(scope.aws(&delete)),
            );
        }
    }
    Ok(findings)
}

fn is_known(route: &Route, table: &str, scope: &Scope) -> bool {
    match route.gateway_id.as_deref() {
        Some("local") => return true,
        Some(endpoint) if endpoint.starts_with("vpce-") => {
            return scope.knows("aws_vpc_endpoint", endpoint);
        }
        _ => {}
    }
    // Where a known route leads, a plan does see.
    let (_, wanted) = destination(route);
    let fields = [
        "destination_cidr_block",
        "destination_ipv6_cidr_block",
        "destination_prefix_list_id",
    ];
    scope.state().of_type("aws_route").any(|known| {
        known.optional_text("route_table_id") == Some(table)
            && fields
                .iter()
                .any(|field| known.optional_text(field) == Some(wanted))
    })
}

/// The option of `aws ec2 delete-route`, and its value.
fn destination(route: &Route) -> (&'static str, &str) {
    let all = [
        ("--destination-cidr-block", &route.destination_cidr_block),
        (
            "--destination-ipv6-cidr-block",
            &route.destination_ipv6_cidr_block,
        ),
        (
            "--destination-prefix-list-id",
            &route.destination_prefix_list_id,
        ),
    ];
    let found = all
        .into_iter()
        .find_map(|(option, value)| Some((option, value.as_deref()?)));
    found.unwrap_or(("--destination-cidr-block", "somewhere"))
}

fn target(route: &Route) -> &str {
    let all = [
        &route.nat_gateway_id,
        &route.gateway_id,
        &route.egress_only_internet_gateway_id,
        &route.instance_id,
        &route.network_interface_id,
        &route.vpc_peering_connection_id,
        &route.transit_gateway_id,
    ];
    all.into_iter()
        .flatten()
        .next()
        .map_or("something", String::as_str)
}

/// Peerings of our VPC that the state does not know.
pub(super) async fn peerings(inventory: &Inventory, scope: &Scope) -> Found {
    let Some(vpc) = scope.vpc_id() else {
        return Ok(Vec::new());
    };
    let mut findings = Vec::new();
    for peering in inventory.peerings().await? {
        let id = &peering.vpc_peering_connection_id;
        let stands = [
            "initiating-request",
            "pending-acceptance",
            "provisioning",
            "active",
        ]
        .contains(&peering.status.code.as_str());
        let ends = [&peering.requester_vpc_info, &peering.accepter_vpc_info];
        let is_ours = ends.iter().any(|end| end.vpc_id.as_deref() == Some(vpc));
        let is_known = scope.knows("aws_vpc_peering_connection", id)
            || scope.knows("aws_vpc_peering_connection_accepter", id);
        if !stands || !is_ours || is_known {
            continue;
        }
        let other = ends
            .iter()
            .find(|end| end.vpc_id.as_deref() != Some(vpc))
            .unwrap_or(&ends[0]);
        let meaning = format!(
            "this VPC is joined with {} of account {} ({})",
            other.vpc_id.as_deref().unwrap_or("another"),
            other.owner_id.as_deref().unwrap_or("unknown"),
            peering.status.code
        );
        let delete = scope.aws(&format!(
            "ec2 delete-vpc-peering-connection --vpc-peering-connection-id {id}"
        ));
        findings.push(Finding::new(Class::Drift, "peering", id, meaning).mended_by(delete));
    }
    Ok(findings)
}
