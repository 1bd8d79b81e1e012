//! Public addresses: those left over, and those where none may be.

use std::collections::BTreeMap;

use super::Found;
use super::finding::{Class, Finding};
use super::scope::{Price, Scope};
use crate::cloud::inventory::{Interface, Inventory, tag};

/// Elastic IPs with our tag that the state does not know.
pub(super) async fn elastic_ips(inventory: &Inventory, scope: &Scope) -> Found {
    let mut findings = Vec::new();
    for ip in inventory.elastic_ips().await? {
        let Some(id) = ip.allocation_id else { continue };
        if tag(&ip.tags, "Deployment") != Some(&scope.name) || scope.knows("aws_eip", &id) {
            continue;
        }
        let meaning = format!(
            "the public address {} costs whether used or not",
            ip.public_ip
        );
        let mut finding = Finding::new(Class::Leftover, "elastic-ip", &id, meaning)
            .costing(scope.month(Price::Address));
        if let Some(association) = ip.association_id {
            finding = finding.mended_by(scope.aws(&format!(
                "ec2 disassociate-address --association-id {association}"
            )));
        }
        findings.push(
            finding.mended_by(scope.aws(&format!("ec2 release-address --allocation-id {id}"))),
        );
    }
    Ok(findings)
}

/// Network interfaces that belong to nothing, and those with a public address that may have none.
pub(super) async fn interfaces(inventory: &Inventory, scope: &Scope) -> Found {
    let mut interfaces = BTreeMap::new();
    for place in scope.places() {
        for interface in inventory.interfaces(&place).await? {
            interfaces.insert(interface.network_interface_id.clone(), interface);
        }
    }
    let mut gateways = Vec::new();
    for gateway in inventory.nat_gateways().await? {
        gateways.extend(
            gateway
                .nat_gateway_addresses
                .iter()
                .filter_map(|address| address.network_interface_id.as_deref()),
        );
    }
    let mut findings = Vec::new();
    for (id, interface) in &interfaces {
        // A gateway that is not ours is reported as a gateway.
        if scope.knows("aws_network_interface", id) || gateways.contains(&id.as_str()) {
            continue;
        }
        let is_tagged = tag(&interface.tag_set, "Deployment") == Some(&scope.name);
        if is_tagged || interface.status == "available" {
            let meaning =
                "belongs to nothing that the state knows, and holds an address of its subnet";
            let delete = scope.aws(&format!(
                "ec2 delete-network-interface --network-interface-id {id}"
            ));
            findings.push(
                Finding::new(Class::Leftover, "network-interface", id, meaning).mended_by(delete),
            );
        }
        findings.extend(public_address(interface, scope));
    }
    Ok(findings)
}

fn public_address(interface: &Interface, scope: &Scope) -> Option<Finding> {
    let association = interface.association.as_ref()?;
    if interface.vpc_id.as_deref() != scope.vpc_id() || is_load_balancers(interface, scope) {
        return None;
    }
    let instance = interface
        .attachment
        .as_ref()
        .and_then(|attachment| attachment.instance_id.as_deref());
    let role = instance.and_then(|instance| role(instance, scope));
    if role == Some("bastion") {
        return None;
    }
    let whose = match (role, instance) {
        (Some(role), Some(instance)) => format!("the private host {role} ({instance})"),
        (None, Some(instance)) => format!("the instance {instance} in this VPC"),
        _ => format!("an interface in this VPC ({})", interface.description),
    };
    let meaning = format!(
        "{whose} has the public address {}: where its subnet's routes and its security groups allow, the internet reaches it",
        association.public_ip
    );
    let id = &interface.network_interface_id;
    let finding = Finding::new(Class::Drift, "public-address", id, meaning);
    Some(
        match (
            &association.allocation_id,
            &association.association_id,
            role,
        ) {
            (Some(allocation), Some(association), _) => finding
                .costing(scope.month(Price::Address))
                .mended_by(scope.aws(&format!(
                    "ec2 disassociate-address --association-id {association}"
                )))
                .mended_by(scope.aws(&format!("ec2 release-address --allocation-id {allocation}"))),
            // An address that came with the launch goes only with the instance.
            (_, _, Some(role)) => finding
                .costing(scope.month(Price::Address))
                .mended_by(format!(
                    "terraform -chdir=terraform apply -replace=aws_instance.{role}"
                )),
            _ => finding.mended_by(scope.aws(&format!(
                "ec2 describe-network-interfaces --network-interface-ids {id}"
            ))),
        },
    )
}

fn role(instance: &str, scope: &Scope) -> Option<&'static str> {
    let deployment = scope.deployment.as_ref()?;
    let hosts = [
        ("bastion", &deployment.bastion.instance_id),
        ("backend", &deployment.backend.instance_id),
        ("database", &deployment.database.instance_id),
    ];
    hosts
        .into_iter()
        .find(|(_, id)| *id == instance)
        .map(|(role, _)| role)
}

/// AWS describes a node's interface by the end of the load balancer's ARN: `ELB app/<name>/<hash>`.
fn is_load_balancers(interface: &Interface, scope: &Scope) -> bool {
    let mut ours = scope
        .state()
        .of_type("aws_lb")
        .filter_map(|lb| lb.optional_text("arn_suffix"));
    ours.any(|suffix| interface.description == format!("ELB {suffix}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What the emulator does not have: nodes of a load balancer, addresses that come with a launch.
    fn judge(description: &str, instance: &str, association: Value) -> Option<Finding> {
        let balancer = json!({"arn_suffix": "app/drawbridge/50dc6c495c0c9188"});
        let state = json!({"version": 4, "resources": [
            {"mode": "managed", "type": "aws_lb", "name": "main", "instances": [{"attributes": balancer}]},
        ]});
        let scope = Scope::sample(&state);
        let mut interface = json!({"NetworkInterfaceId": "eni-1", "Status": "in-use", "Description": description,
            "VpcId": scope.vpc_id(), "Association": association});
        if !instance.is_empty() {
            interface["Attachment"] = json!({"InstanceId": instance});
        }
        public_address(&serde_json::from_value(interface).unwrap(), &scope)
    }

    #[test]
    fn bastion_and_load_balancer_may_have_a_public_address_and_nobody_else() {
        let launched = || json!({"PublicIp": "203.0.113.7"});
        assert_eq!(
            judge("ELB app/drawbridge/50dc6c495c0c9188", "", launched()),
            None
        );
        assert_eq!(
            judge("Primary network interface", "i-bastion", launched()),
            None
        );
        assert_eq!(
            judge("Primary network interface", "i-backend", Value::Null),
            None
        );
        let other = judge("ELB app/other/1234", "", launched()).unwrap();
        assert!(other.meaning.contains("ELB app/other/1234"), "{other:?}");
        let backend = judge("Primary network interface", "i-backend", launched()).unwrap();
        assert!(
            backend
                .meaning
                .contains("the private host backend (i-backend)"),
            "{backend:?}"
        );
        assert_eq!(
            backend.mend,
            ["terraform -chdir=terraform apply -replace=aws_instance.backend"]
        );
    }
}
