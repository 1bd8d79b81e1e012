//! What an apply makes, as the emulator's API shows it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::{Value, json};

use super::rows;
use crate::support::{Emulator, REGION, repository, text};

pub fn topology_is_the_minimal_one(emulator: &Emulator, deployment: &Value) {
    let in_vpc = json!({"Filters": [{"Name": "vpc-id", "Values": [deployment["vpc_id"]]}]});
    let subnets = emulator.aws("ec2", "describe_subnets", in_vpc.clone());
    let tables = emulator.aws("ec2", "describe_route_tables", in_vpc.clone());
    let way_out = |subnet: &Value| -> String {
        let associated = |table: &&Value| {
            rows(table, "Associations")
                .iter()
                .any(|to| to["SubnetId"] == subnet["SubnetId"])
        };
        let table = rows(&tables, "RouteTables")
            .iter()
            .find(associated)
            .expect("a table for every subnet");
        let default = rows(table, "Routes")
            .iter()
            .find(|route| route["DestinationCidrBlock"] == "0.0.0.0/0");
        default
            .map_or("none", |route| {
                if route["NatGatewayId"].is_string() {
                    "nat"
                } else {
                    "internet"
                }
            })
            .to_owned()
    };
    let seen: BTreeSet<_> = rows(&subnets, "Subnets")
        .iter()
        .map(|subnet| {
            (
                text(&subnet["CidrBlock"]),
                text(&subnet["AvailabilityZone"]),
                way_out(subnet),
                subnet["MapPublicIpOnLaunch"] == true,
            )
        })
        .collect();
    let expected = [
        ("1", "a", "internet"),
        ("2", "a", "nat"),
        ("3", "a", "nat"),
        ("4", "b", "internet"),
    ]
    .map(|(number, zone, way)| {
        (
            format!("10.20.{number}.0/24"),
            format!("{REGION}{zone}"),
            way.to_owned(),
            false,
        )
    });
    assert_eq!(seen, expected.into());

    let endpoints = emulator.aws("ec2", "describe_vpc_endpoints", in_vpc);
    let endpoint = &rows(&endpoints, "VpcEndpoints")[0];
    assert_eq!(
        (
            &endpoint["VpcEndpointType"],
            rows(endpoint, "RouteTableIds").len()
        ),
        (&json!("Gateway"), 1),
        "{endpoint}"
    );
    let private = rows(&tables, "RouteTables")
        .iter()
        .find(|table| table["RouteTableId"] == endpoint["RouteTableIds"][0]);
    assert!(
        private
            .expect("the endpoint's table")
            .to_string()
            .contains("drawbridge-private")
    );
}

/// What the rehearsal needs to build the network from the state.
pub fn addresses_can_be_routed(emulator: &Emulator, deployment: &Value) {
    let elastic = [
        &deployment["bastion"]["public_ip"],
        &deployment["nat_gateway"]["public_ip"],
    ]
    .map(text);
    assert!(
        elastic.iter().all(|ip| ip.starts_with("198.51.100.")) && elastic[0] != elastic[1],
        "{elastic:?}"
    );
    let interfaces = emulator.aws(
        "ec2",
        "describe_network_interfaces",
        json!({"Filters": [{"Name": "vpc-id", "Values": [deployment["vpc_id"]]}]}),
    );
    let private: Vec<_> = rows(&interfaces, "NetworkInterfaces")
        .iter()
        .map(|interface| text(&interface["PrivateIpAddress"]))
        .collect();
    assert_eq!(private.len(), 4, "three hosts and the gateway: {private:?}");
    assert_eq!(
        private.iter().collect::<BTreeSet<_>>().len(),
        4,
        "each its own: {private:?}"
    );
    assert_eq!(
        private
            .iter()
            .filter(|ip| ip.starts_with("10.20.1."))
            .count(),
        2,
        "bastion and gateway: {private:?}"
    );
    assert_eq!(deployment["database"]["private_ip"], "10.20.3.10");
    let associated = emulator.aws(
        "ec2",
        "describe_addresses",
        json!({"PublicIps": [elastic[0]]}),
    );
    assert_eq!(
        associated["Addresses"][0]["InstanceId"],
        deployment["bastion"]["instance_id"]
    );
}

pub fn groups_are_the_flows_and_nothing_else(emulator: &Emulator, deployment: &Value) {
    let in_vpc = json!({"Filters": [{"Name": "vpc-id", "Values": [deployment["vpc_id"]]}]});
    let groups = emulator.aws("ec2", "describe_security_groups", in_vpc);
    let name_of = |id: &str| {
        let group = rows(&groups, "SecurityGroups")
            .iter()
            .find(|group| group["GroupId"] == id)
            .expect("a known group");
        text(&group["GroupName"])
            .replacen("drawbridge-", "", 1)
            .replace('-', "_")
    };
    let ids: Vec<_> = rows(&groups, "SecurityGroups")
        .iter()
        .map(|group| &group["GroupId"])
        .collect();
    let rules = emulator.aws(
        "ec2",
        "describe_security_group_rules",
        json!({"Filters": [{"Name": "group-id", "Values": ids}]}),
    );
    let seen: BTreeSet<_> = rows(&rules, "SecurityGroupRules")
        .iter()
        .map(|rule| {
            assert_eq!(
                (&rule["IpProtocol"], &rule["FromPort"]),
                (&json!("tcp"), &rule["ToPort"]),
                "{rule}"
            );
            let other = rule["ReferencedGroupInfo"]["GroupId"]
                .as_str()
                .map_or_else(|| text(&rule["CidrIpv4"]), name_of);
            let arrow = if rule["IsEgress"] == true { "->" } else { "<-" };
            format!(
                "{} {arrow} {other} {}",
                name_of(&text(&rule["GroupId"])),
                rule["FromPort"]
            )
        })
        .collect();

    let flows = fs::read_to_string(repository().join("terraform/flows.json")).expect("flows.json");
    let flows: Vec<Value> = serde_json::from_str(&flows).expect("a list of flows");
    assert_eq!(flows.len(), 7);
    let has_certificate = text(&deployment["load_balancer"]["url"]).starts_with("https://");
    let mut expected: BTreeSet<_> = ["bastion", "backend", "database"]
        .iter()
        .map(|host| format!("{host} -> 0.0.0.0/0 443"))
        .collect();
    let exists = |flow: &&Value| flow.get("needs").is_none() || has_certificate;
    for flow in flows.iter().filter(exists) {
        let (from, to, port) = (text(&flow["from"]), text(&flow["to"]), &flow["port"]);
        match from.as_str() {
            "admins" => expected.insert(format!("{to} <- 203.0.113.0/24 {port}")),
            "internet" => expected.insert(format!("{to} <- 0.0.0.0/0 {port}")),
            _ => {
                expected.insert(format!("{to} <- {from} {port}"))
                    & expected.insert(format!("{from} -> {to} {port}"))
            }
        };
    }
    assert_eq!(seen, expected, "and the default group has no rule");
}

pub fn hosts_are_hardened(emulator: &Emulator, deployment: &Value) {
    let ids =
        ["bastion", "backend", "database"].map(|role| deployment[role]["instance_id"].clone());
    let instances = emulator.aws("ec2", "describe_instances", json!({"InstanceIds": ids}));
    let instances: Vec<_> = rows(&instances, "Reservations")
        .iter()
        .flat_map(|made| rows(made, "Instances"))
        .collect();
    assert_eq!(instances.len(), 3);
    for instance in instances {
        let metadata = &instance["MetadataOptions"];
        assert_eq!(
            (
                &metadata["HttpTokens"],
                &metadata["HttpPutResponseHopLimit"]
            ),
            (&json!("required"), &json!(1)),
            "{instance}"
        );
        let is_bastion = instance["InstanceId"] == deployment["bastion"]["instance_id"];
        assert_eq!(
            instance["PublicIpAddress"].is_string(),
            is_bastion,
            "only the bastion has a public address: {instance}"
        );
        assert_eq!(instance["KeyName"], Value::Null, "keys come from user data");
    }
    let volumes = emulator.aws(
        "ec2",
        "describe_volumes",
        json!({"Filters": [{"Name": "attachment.instance-id", "Values": ids}]}),
    );
    assert_eq!(
        rows(&volumes, "Volumes").len(),
        4,
        "three root disks and the database's own"
    );
    for volume in rows(&volumes, "Volumes") {
        assert_eq!(
            (&volume["Encrypted"], &volume["VolumeType"]),
            (&json!(true), &json!("gp3")),
            "{volume}"
        );
    }
}

pub fn roles_may_do_exactly_what_they_need(emulator: &Emulator, deployment: &Value) {
    let own = |role: &str| {
        [
            format!("hosts/{role}/bootstrap"),
            format!("hosts/{role}/ssh-host-key"),
        ]
        .map(|name| format!("ssm:PutParameter {name}"))
    };
    let on_database = |action: &str| {
        ["database/login", "database/certificate"].map(|name| format!("{action} {name}"))
    };
    let expected = [
        ("bastion", own("bastion").to_vec()),
        (
            "backend",
            [
                own("backend"),
                on_database("ssm:GetParameter"),
                on_database("ssm:GetParameters"),
            ]
            .concat(),
        ),
        (
            "database",
            [
                own("database").to_vec(),
                on_database("ssm:PutParameter").to_vec(),
                ["ssm:GetParameter", "ssm:GetParameters"]
                    .map(|action| format!("{action} database/login"))
                    .to_vec(),
            ]
            .concat(),
        ),
    ];
    for (role, expected) in expected {
        let name = format!("drawbridge-{role}");
        assert_eq!(
            rows(
                &emulator.aws("iam", "list_role_policies", json!({"RoleName": name})),
                "PolicyNames"
            )
            .len(),
            1
        );
        assert!(
            rows(
                &emulator.aws(
                    "iam",
                    "list_attached_role_policies",
                    json!({"RoleName": name})
                ),
                "AttachedPolicies"
            )
            .is_empty()
        );
        let policy = emulator.aws(
            "iam",
            "get_role_policy",
            json!({"RoleName": name, "PolicyName": "parameters"}),
        );
        let prefix = format!("arn:aws:ssm:{REGION}:123456789012:parameter/drawbridge/");
        let seen: BTreeSet<_> = rows(&policy["PolicyDocument"], "Statement")
            .iter()
            .flat_map(|statement| {
                rows(statement, "Action").iter().flat_map(|action| {
                    rows(statement, "Resource").iter().map(|resource| {
                        format!(
                            "{} {}",
                            text(action),
                            text(resource).replacen(&prefix, "", 1)
                        )
                    })
                })
            })
            .collect();
        assert_eq!(seen, expected.into_iter().collect(), "{role}");
    }
    let policy = emulator.aws(
        "iam",
        "get_role_policy",
        json!({"RoleName": "drawbridge-nat-deadline", "PolicyName": "delete-nat-gateway"}),
    );
    let statements = rows(&policy["PolicyDocument"], "Statement");
    assert_eq!(
        (statements.len(), &statements[0]["Action"]),
        (1, &json!("ec2:DeleteNatGateway"))
    );
    assert_eq!(
        statements[0]["Condition"],
        json!({"StringEquals": {"aws:ResourceTag/NatWindow": "drawbridge"}})
    );
    let gateways = emulator.aws(
        "ec2",
        "describe_nat_gateways",
        json!({"NatGatewayIds": [deployment["nat_gateway"]["id"]]}),
    );
    let tags = rows(&gateways["NatGateways"][0], "Tags");
    assert!(
        tags.contains(&json!({"Key": "NatWindow", "Value": "drawbridge"})),
        "{tags:?}"
    );
}

pub fn load_balancer_asks_for_readiness(emulator: &Emulator) {
    let groups = emulator.aws("elbv2", "describe_target_groups", json!({}));
    let group = &rows(&groups, "TargetGroups")[0];
    let check = [
        "HealthCheckPath",
        "Port",
        "HealthCheckIntervalSeconds",
        "HealthCheckTimeoutSeconds",
        "HealthyThresholdCount",
        "UnhealthyThresholdCount",
    ];
    assert_eq!(
        check.map(|field| group[field].clone()),
        [
            json!("/ready"),
            json!(8000),
            json!(5),
            json!(3),
            json!(2),
            json!(2)
        ]
    );
    let attributes = emulator.aws(
        "elbv2",
        "describe_load_balancer_attributes",
        json!({"LoadBalancerArn": group["LoadBalancerArns"][0]}),
    );
    let drops = json!({"Key": "routing.http.drop_invalid_header_fields.enabled", "Value": "true"});
    assert!(
        rows(&attributes, "Attributes").contains(&drops),
        "{attributes}"
    );
}

/// Where it listens, as `PORT PROTOCOL: what it does`.
pub fn listeners(emulator: &Emulator) -> BTreeSet<String> {
    let balancers = emulator.aws("elbv2", "describe_load_balancers", json!({}));
    let balancer = &rows(&balancers, "LoadBalancers")[0]["LoadBalancerArn"];
    let listeners = emulator.aws(
        "elbv2",
        "describe_listeners",
        json!({"LoadBalancerArn": balancer}),
    );
    rows(&listeners, "Listeners")
        .iter()
        .map(|listener| {
            let action = &listener["DefaultActions"][0];
            let does = match action["RedirectConfig"].as_object() {
                Some(to) => format!("{} to {}", text(&to["StatusCode"]), text(&to["Port"])),
                None => text(&action["Type"]),
            };
            format!(
                "{} {}: {does}",
                listener["Port"],
                text(&listener["Protocol"])
            )
        })
        .collect()
}

/// Terraform destroys in the opposite order of the dependencies it recorded. Where EC2 refuses to let go of something in
/// use, the provider asks again for up to twenty minutes, so whatever uses it has to depend on it.
pub fn no_destroy_can_hang(state: &str) {
    let state: Value = serde_json::from_str(state).expect("a state");
    let mut needs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for resource in rows(&state, "resources") {
        let address = format!("{}.{}", text(&resource["type"]), text(&resource["name"]));
        for instance in rows(resource, "instances") {
            let recorded = instance["dependencies"].as_array();
            needs
                .entry(address.clone())
                .or_default()
                .extend(recorded.into_iter().flatten().map(text));
        }
    }
    let depends = |user: &str, used: &str| {
        let mut seen = BTreeSet::new();
        let mut open = vec![user];
        while let Some(address) = open.pop() {
            let direct = needs.get(address).into_iter().flatten();
            open.extend(direct.map(String::as_str).filter(|next| seen.insert(*next)));
        }
        seen.contains(used)
    };
    let gateway = "aws_internet_gateway.main";
    let orders = [
        // A gateway is not detached while anything in its VPC has a public address.
        (gateway, "aws_lb.main"),
        (gateway, "aws_eip.bastion"),
        (gateway, "aws_eip.nat"),
        (gateway, "aws_nat_gateway.main"),
        (gateway, "aws_eip_association.bastion"),
        // An address is not released while a NAT gateway or a machine holds it.
        ("aws_eip.nat", "aws_nat_gateway.main"),
        ("aws_eip.bastion", "aws_eip_association.bastion"),
        // Neither a subnet nor a group goes while a network interface is in it.
        ("aws_subnet.main", "aws_lb.main"),
        ("aws_subnet.main", "aws_nat_gateway.main"),
        ("aws_subnet.main", "aws_instance.backend"),
        ("aws_security_group.main", "aws_lb.main"),
        ("aws_security_group.main", "aws_instance.bastion"),
        ("aws_security_group.main", "aws_instance.backend"),
        ("aws_security_group.main", "aws_instance.database"),
        // Nor a group while another group's rule names it.
        (
            "aws_security_group.main",
            "aws_vpc_security_group_egress_rule.to_inside",
        ),
        // A listener holds its target group, an attachment its volume.
        ("aws_lb_target_group.backend", "aws_lb_listener.http"),
        ("aws_lb_target_group.backend", "aws_lb_listener.https"),
        ("aws_ebs_volume.database", "aws_volume_attachment.database"),
        // Private hosts end while their way out still stands, the gateway after its route.
        ("aws_route.private_internet", "aws_instance.backend"),
        ("aws_route.private_internet", "aws_instance.database"),
        ("aws_nat_gateway.main", "aws_route.private_internet"),
    ];
    for (used, user) in orders {
        assert!(needs.contains_key(user), "no {user} in the state");
        assert!(
            depends(user, used),
            "{user} may outlive {used}: {:?}",
            needs[user]
        );
    }
}
