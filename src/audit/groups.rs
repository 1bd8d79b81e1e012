//! Security groups, and rules added to them by hand. Terraform keeps each rule as a resource of its own, so a plan does
//! not look at the others.

use std::collections::BTreeMap;

use super::Found;
use super::finding::{Class, Finding};
use super::scope::Scope;
use crate::cloud::inventory::{Inventory, Rule, SecurityGroup};

/// Groups in our VPC, or with our tag, that the state does not know; and unknown rules of all groups in our VPC, its
/// default group included.
pub(super) async fn groups(inventory: &Inventory, scope: &Scope) -> Found {
    let mut groups = BTreeMap::new();
    for place in scope.places() {
        for group in inventory.security_groups(&place).await? {
            groups.insert(group.group_id.clone(), group);
        }
    }
    let is_known = |id: &str| {
        scope.knows("aws_security_group", id) || scope.knows("aws_default_security_group", id)
    };
    let is_inside = |group: &SecurityGroup| {
        scope.vpc_id().is_some() && group.vpc_id.as_deref() == scope.vpc_id()
    };
    let mut findings = Vec::new();
    // The default group cannot be deleted: it goes with its VPC.
    let strangers = groups
        .iter()
        .filter(|(id, group)| !is_known(id) && group.group_name != "default");
    for (id, group) in strangers {
        let class = if is_inside(group) {
            Class::Drift
        } else {
            Class::Leftover
        };
        let meaning = format!(
            "the security group `{}`, which the state does not know",
            group.group_name
        );
        let delete = scope.aws(&format!("ec2 delete-security-group --group-id {id}"));
        findings.push(Finding::new(class, "security-group", id, meaning).mended_by(delete));
    }
    let inside: Vec<_> = groups
        .values()
        .filter(|group| is_inside(group))
        .map(|group| group.group_id.as_str())
        .collect();
    for rule in inventory.rules(&inside).await? {
        let id = &rule.security_group_rule_id;
        let kinds = [
            "aws_vpc_security_group_ingress_rule",
            "aws_vpc_security_group_egress_rule",
        ];
        let group = groups.get(&rule.group_id);
        // What AWS puts into every new group, and what a stranger's group may send, says nothing new about it.
        let is_strangers_egress =
            rule.is_egress && group.is_some_and(|group| !is_known(&group.group_id));
        if kinds.iter().any(|kind| scope.knows(kind, id)) || is_strangers_egress {
            continue;
        }
        let name = group.map_or(rule.group_id.as_str(), |group| group.group_name.as_str());
        let meaning = format!(
            "the security group `{name}` ({}) {}, which is not in flows.json",
            rule.group_id,
            allows(&rule)
        );
        let side = if rule.is_egress { "egress" } else { "ingress" };
        let revoke = format!(
            "ec2 revoke-security-group-{side} --group-id {} --security-group-rule-ids {id}",
            rule.group_id
        );
        findings.push(
            Finding::new(Class::Drift, "security-group-rule", id, meaning)
                .mended_by(scope.aws(&revoke)),
        );
    }
    Ok(findings)
}

/// `admits tcp 22 from 0.0.0.0/0`
fn allows(rule: &Rule) -> String {
    let protocol = if rule.ip_protocol == "-1" {
        "everything"
    } else {
        &rule.ip_protocol
    };
    let ports = match (rule.from_port, rule.to_port) {
        (Some(from), Some(to)) if rule.ip_protocol != "-1" && from == to => format!(" {from}"),
        (Some(from), Some(to)) if rule.ip_protocol != "-1" => format!(" {from}-{to}"),
        _ => String::new(),
    };
    let referenced = rule
        .referenced_group_info
        .as_ref()
        .map(|group| &group.group_id);
    let ends = [
        rule.cidr_ipv4.as_ref(),
        rule.cidr_ipv6.as_ref(),
        rule.prefix_list_id.as_ref(),
        referenced,
    ];
    let end = ends
        .into_iter()
        .flatten()
        .next()
        .map_or("somewhere", String::as_str);
    if rule.is_egress {
        format!("may send {protocol}{ports} to {end}")
    } else {
        format!("admits {protocol}{ports} from {end}")
    }
}
