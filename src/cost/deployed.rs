//! What stands, from Terraform's state.

use super::Parts;
use crate::terraform::state::{Resource, State, StateError};

/// Resource types that cost nothing by themselves. What flows through them or is kept in them may; the bill names that.
const FREE: [&str; 20] = [
    "aws_default_security_group",
    "aws_eip_association",
    "aws_iam_instance_profile",
    "aws_iam_role",
    "aws_iam_role_policy",
    "aws_internet_gateway",
    "aws_lb_listener",
    "aws_lb_target_group",
    "aws_lb_target_group_attachment",
    "aws_route",
    "aws_route_table",
    "aws_route_table_association",
    "aws_scheduler_schedule",
    "aws_security_group",
    "aws_ssm_parameter",
    "aws_subnet",
    "aws_volume_attachment",
    "aws_vpc",
    "aws_vpc_security_group_egress_rule",
    "aws_vpc_security_group_ingress_rule",
];

/// Billed by what they hold, which the bill says in words.
const BY_USE: [&str; 2] = ["aws_cloudwatch_log_group", "aws_flow_log"];

/// Why a state cannot be priced.
#[derive(Debug, thiserror::Error)]
pub enum DeployedError {
    /// A resource lacks what the price depends on.
    #[error(transparent)]
    State(#[from] StateError),
    /// Nothing in it tells where it is.
    #[error(
        "the state holds no VPC, so there is nothing to price: `drawbridge cost --region …` prices without a state"
    )]
    NoVpc,
}

impl Parts {
    /// What `state` says stands. The window's gateway and address are left out: they are the window's rows.
    ///
    /// # Errors
    /// When a resource lacks its size, or there is no VPC.
    pub fn deployed(state: &State, region: &str) -> Result<Self, DeployedError> {
        state
            .of_type("aws_vpc")
            .next()
            .ok_or(DeployedError::NoVpc)?;
        let mut parts = Self {
            region: region.to_owned(),
            instances: Vec::new(),
            volumes: Vec::new(),
            load_balancers: 0,
            addresses: Vec::new(),
            unpriced: Vec::new(),
        };
        for resource in state.all() {
            parts.add(resource)?;
        }
        Ok(parts)
    }

    fn add(&mut self, resource: &Resource) -> Result<(), StateError> {
        let whose = || short_name(&resource.address).to_owned();
        match resource.kind() {
            "aws_instance" => {
                self.instances
                    .push((whose(), resource.text("instance_type")?.to_owned()));
                for disk in resource.blocks("root_block_device") {
                    let kind = disk
                        .optional_text("volume_type")
                        .unwrap_or("of an unknown kind");
                    self.volumes.push((
                        format!("{} root", whose()),
                        kind.to_owned(),
                        disk.number("volume_size")?,
                    ));
                }
            }
            "aws_ebs_volume" => {
                self.volumes.push((
                    whose(),
                    resource.text("type")?.to_owned(),
                    resource.number("size")?,
                ));
            }
            "aws_lb"
                if resource
                    .optional_text("load_balancer_type")
                    .is_none_or(|kind| kind == "application") =>
            {
                self.load_balancers += 1;
                if !resource.flag("internal") {
                    let nodes = resource.texts("subnets").len() as u64;
                    self.addresses
                        .push(("load balancer nodes".to_owned(), nodes));
                }
            }
            "aws_eip" | "aws_nat_gateway" if is_windows(&resource.address) => {}
            "aws_eip" => self.addresses.push((whose(), 1)),
            "aws_vpc_endpoint"
                if resource.optional_text("vpc_endpoint_type") == Some("Gateway") => {}
            "terraform_data" => {}
            kind if FREE.contains(&kind) || BY_USE.contains(&kind) => {}
            _ => self.unpriced.push(resource.address.clone()),
        }
        Ok(())
    }
}

fn is_windows(address: &str) -> bool {
    crate::nat::window::RESOURCES.contains(&address)
}

/// `aws_instance.backend` as `backend`, `aws_instance.more["a"]` as `more["a"]`.
fn short_name(address: &str) -> &str {
    address.split_once('.').map_or(address, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_stands_is_counted_and_what_has_no_price_is_named() {
        let resource = |kind: &str, name: &str, attributes: serde_json::Value| json!({"mode": "managed", "type": kind, "name": name, "instances": [{"attributes": attributes}]});
        let gateway = json!({"mode": "managed", "type": "aws_nat_gateway", "name": "main",
            "instances": [{"index_key": 0, "attributes": {}}]});
        let instance = json!({"instance_type": "t4g.small", "root_block_device": [{"volume_size": 9, "volume_type": "gp3"}]});
        let state = json!({"version": 4, "resources": [
            resource("aws_vpc", "main", json!({"id": "vpc-1"})),
            resource("aws_instance", "backend", instance),
            resource("aws_ebs_volume", "database", json!({"size": 20, "type": "gp3"})),
            resource("aws_lb", "main", json!({"internal": false, "subnets": ["a", "b", "c"]})),
            resource("aws_eip", "bastion", json!({})),
            resource("aws_db_instance", "mine", json!({})),
            resource("aws_nat_gateway", "second", json!({})),
            gateway,
        ]});
        let parts =
            Parts::deployed(&State::parse(&state.to_string()).unwrap(), "us-east-1").unwrap();
        assert_eq!(
            parts.instances,
            [("backend".to_owned(), "t4g.small".to_owned())]
        );
        assert_eq!(
            parts.volumes.iter().map(|(_, _, gib)| *gib).sum::<u64>(),
            29
        );
        assert_eq!(
            parts.addresses,
            [
                ("load balancer nodes".to_owned(), 3),
                ("bastion".to_owned(), 1)
            ]
        );
        assert_eq!(
            parts.unpriced,
            ["aws_db_instance.mine", "aws_nat_gateway.second"]
        );
        let empty = State::parse(r#"{"version": 4}"#).unwrap();
        assert!(matches!(
            Parts::deployed(&empty, "us-east-1"),
            Err(DeployedError::NoVpc)
        ));
    }
}
