//! Things that somebody leaves lying about or adds by hand, through the API, behind Terraform's back.

use serde_json::{Value, json};

use super::Found;
use crate::support::{Emulator, text};

struct Ground<'a> {
    emulator: &'a Emulator,
    planted: Found,
}

impl Ground<'_> {
    fn call(&self, service: &str, operation: &str, parameters: Value) -> Value {
        self.emulator.aws(service, operation, parameters)
    }

    fn ec2(&self, operation: &str, parameters: Value) -> Value {
        self.call("ec2", operation, parameters)
    }

    fn expect(&mut self, class: &str, kind: &str, id: &Value) {
        let planted = (class.to_owned(), kind.to_owned(), text(id));
        assert!(!planted.2.is_empty(), "{kind} without an id");
        assert!(self.planted.insert(planted), "{kind} twice");
    }

    /// The first `field` of what `operation` lists with this filter.
    fn find(&self, operation: &str, field: &str, filter: &str, value: &str) -> Value {
        let answer = self.ec2(
            operation,
            json!({"Filters": [{"Name": filter, "Values": [value]}]}),
        );
        answer[field][0].clone()
    }
}

/// The tag by which Terraform marks what it makes.
fn tags(kind: &str) -> Value {
    json!([{"ResourceType": kind, "Tags": [{"Key": "Deployment", "Value": "drawbridge"}]}])
}

/// One of each kind, and beside some of them one that is nobody's business.
pub fn everything(emulator: &Emulator, deployment: &Value) -> Found {
    let mut ground = Ground {
        emulator,
        planted: Found::new(),
    };
    left_over(&mut ground);
    added_to_the_network(&mut ground, deployment);
    added_machines(&mut ground, deployment);
    ground.planted
}

fn left_over(ground: &mut Ground<'_>) {
    let address = ground.ec2(
        "allocate_address",
        json!({"Domain": "vpc", "TagSpecifications": tags("elastic-ip")}),
    );
    ground.expect("leftover", "elastic-ip", &address["AllocationId"]);
    ground.ec2("allocate_address", json!({"Domain": "vpc"}));

    let volume = json!({"AvailabilityZone": "ap-south-1a", "Size": 7, "VolumeType": "gp3", "TagSpecifications": tags("volume")});
    let volume = ground.ec2("create_volume", volume);
    ground.expect("leftover", "volume", &volume["VolumeId"]);
    let snapshot = json!({"VolumeId": volume["VolumeId"], "TagSpecifications": tags("snapshot")});
    let snapshot = ground.ec2("create_snapshot", snapshot);
    ground.expect("leftover", "snapshot", &snapshot["SnapshotId"]);
    ground.ec2("create_snapshot", json!({"VolumeId": volume["VolumeId"]}));

    let vpc = ground.ec2(
        "create_vpc",
        json!({"CidrBlock": "10.99.0.0/16", "TagSpecifications": tags("vpc")}),
    );
    ground.expect("leftover", "vpc", &vpc["Vpc"]["VpcId"]);

    for (name, tags) in [
        ("/drawbridge/old", json!({})),
        ("old", json!({"Deployment": "drawbridge"})),
    ] {
        ground.call(
            "logs",
            "create_log_group",
            json!({"logGroupName": name, "tags": tags}),
        );
        ground.expect("leftover", "log-group", &json!(name));
    }
    ground.call(
        "logs",
        "create_log_group",
        json!({"logGroupName": "/drawbridge-other/log"}),
    );

    let parameter = json!({"Name": "/drawbridge/old/secret", "Value": "x", "Type": "String"});
    ground.call("ssm", "put_parameter", parameter);
    ground.expect("leftover", "parameter", &json!("/drawbridge/old/secret"));

    let role = |name: &str, tags: Value| json!({"RoleName": name, "AssumeRolePolicyDocument": "{}", "Tags": tags});
    ground.call(
        "iam",
        "create_role",
        role("drawbridge-old", tags("")[0]["Tags"].clone()),
    );
    ground.expect("leftover", "role", &json!("drawbridge-old"));
    ground.call("iam", "create_role", role("drawbridge-other", json!([])));

    for name in ["drawbridge-nat-0ab-4h", "drawbridge-nat-x-nat-0ab-4h"] {
        let target = json!({"Arn": "arn:aws:scheduler:::aws-sdk:ec2:deleteNatGateway", "RoleArn": "arn:aws:iam::123456789012:role/x"});
        let window = json!({"Mode": "OFF"});
        let expression = "at(2026-11-20T12:40:00)";
        let schedule = json!({"Name": name, "ScheduleExpression": expression, "FlexibleTimeWindow": window, "Target": target});
        ground.call("scheduler", "create_schedule", schedule);
    }
    ground.expect("leftover", "schedule", &json!("drawbridge-nat-0ab-4h"));
}

fn added_to_the_network(ground: &mut Ground<'_>, deployment: &Value) {
    let vpc = text(&deployment["vpc_id"]);
    let ssh = json!([{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]);
    for name in ["drawbridge-bastion", "default"] {
        let filters =
            json!([{"Name": "group-name", "Values": [name]}, {"Name": "vpc-id", "Values": [vpc]}]);
        let groups = ground.ec2("describe_security_groups", json!({"Filters": filters}));
        let group = &groups["SecurityGroups"][0]["GroupId"];
        let rule = ground.ec2(
            "authorize_security_group_ingress",
            json!({"GroupId": group, "IpPermissions": ssh}),
        );
        ground.expect(
            "drift",
            "security-group-rule",
            &rule["SecurityGroupRules"][0]["SecurityGroupRuleId"],
        );
    }
    let group = json!({"GroupName": "by-hand", "Description": "x", "VpcId": vpc});
    let group = ground.ec2("create_security_group", group);
    ground.expect("drift", "security-group", &group["GroupId"]);

    let table = text(&deployment["private_route_table_id"]);
    let internet = ground.find(
        "describe_internet_gateways",
        "InternetGateways",
        "attachment.vpc-id",
        &vpc,
    );
    let destination = "198.18.0.0/15";
    let route = json!({"RouteTableId": table, "DestinationCidrBlock": destination, "GatewayId": internet["InternetGatewayId"]});
    ground.ec2("create_route", route);
    ground.expect("drift", "route", &json!(format!("{table} {destination}")));

    let other = ground.find("describe_vpcs", "Vpcs", "is-default", "true");
    let peering = ground.ec2(
        "create_vpc_peering_connection",
        json!({"VpcId": vpc, "PeerVpcId": other["VpcId"]}),
    );
    ground.expect(
        "drift",
        "peering",
        &peering["VpcPeeringConnection"]["VpcPeeringConnectionId"],
    );

    let edge = ground.find("describe_subnets", "Subnets", "tag:Name", "drawbridge-edge");
    let address = ground.ec2("allocate_address", json!({"Domain": "vpc"}));
    let gateway = json!({"SubnetId": edge["SubnetId"], "AllocationId": address["AllocationId"]});
    let gateway = ground.ec2("create_nat_gateway", gateway);
    ground.expect(
        "drift",
        "nat-gateway",
        &gateway["NatGateway"]["NatGatewayId"],
    );

    let balancers = ground.call("elbv2", "describe_load_balancers", json!({}));
    let ours = balancers["LoadBalancers"][0]["LoadBalancerArn"].clone();
    let action = json!([{"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "200"}}]);
    let listener = json!({"LoadBalancerArn": ours, "Port": 8080, "Protocol": "HTTP", "DefaultActions": action});
    let listener = ground.call("elbv2", "create_listener", listener);
    ground.expect(
        "drift",
        "listener",
        &listener["Listeners"][0]["ListenerArn"],
    );
    let management = ground.find(
        "describe_subnets",
        "Subnets",
        "tag:Name",
        "drawbridge-management",
    );
    let inside = json!([edge["SubnetId"], management["SubnetId"]]);
    let subnets = ground.ec2(
        "describe_subnets",
        json!({"Filters": [{"Name": "default-for-az", "Values": ["true"]}]}),
    );
    let outside = json!([
        subnets["Subnets"][0]["SubnetId"],
        subnets["Subnets"][1]["SubnetId"]
    ]);
    for (class, name, subnets, tags) in [
        ("drift", "by-hand", inside, json!([])),
        (
            "leftover",
            "old",
            outside.clone(),
            tags("")[0]["Tags"].clone(),
        ),
        ("", "others", outside, json!([])),
    ] {
        let mut balancer = json!({"Name": name, "Subnets": subnets});
        if tags != json!([]) {
            balancer["Tags"] = tags;
        }
        let balancer = ground.call("elbv2", "create_load_balancer", balancer);
        if !class.is_empty() {
            ground.expect(
                class,
                "load-balancer",
                &balancer["LoadBalancers"][0]["LoadBalancerArn"],
            );
        }
    }
}

fn added_machines(ground: &mut Ground<'_>, deployment: &Value) {
    let backend = &deployment["backend"]["instance_id"];
    let address = ground.ec2("allocate_address", json!({"Domain": "vpc"}));
    let association = json!({"InstanceId": backend, "AllocationId": address["AllocationId"]});
    ground.ec2("associate_address", association);
    let interface = ground.find(
        "describe_network_interfaces",
        "NetworkInterfaces",
        "attachment.instance-id",
        &text(backend),
    );
    ground.expect("drift", "public-address", &interface["NetworkInterfaceId"]);

    let subnet = ground.find(
        "describe_subnets",
        "Subnets",
        "tag:Name",
        "drawbridge-backend",
    );
    let image = &deployment["backend"]["image_id"];
    let mut instance =
        json!({"ImageId": image, "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1});
    instance["TagSpecifications"] = tags("instance");
    let outside = ground.ec2("run_instances", instance.clone());
    ground.expect(
        "leftover",
        "instance",
        &outside["Instances"][0]["InstanceId"],
    );
    instance
        .as_object_mut()
        .unwrap()
        .remove("TagSpecifications");
    ground.ec2("run_instances", instance.clone());
    instance["SubnetId"] = subnet["SubnetId"].clone();
    let inside = ground.ec2("run_instances", instance.clone());
    ground.expect("drift", "instance", &inside["Instances"][0]["InstanceId"]);
    // A terminated one is listed for an hour and costs nothing.
    let ended = ground.ec2("run_instances", instance);
    ground.ec2(
        "terminate_instances",
        json!({"InstanceIds": [ended["Instances"][0]["InstanceId"]]}),
    );

    let interface = ground.ec2(
        "create_network_interface",
        json!({"SubnetId": subnet["SubnetId"]}),
    );
    ground.expect(
        "leftover",
        "network-interface",
        &interface["NetworkInterface"]["NetworkInterfaceId"],
    );
}

/// Deletes the schedule of the window's gateway.
pub fn take_the_deadline(emulator: &Emulator, deployment: &Value) {
    let name = &deployment["nat_gateway"]["schedule"];
    emulator.aws("scheduler", "delete_schedule", json!({"Name": name}));
}

/// What no destroy can know of.
pub fn after_destroy(emulator: &Emulator) -> Found {
    let mut ground = Ground {
        emulator,
        planted: Found::new(),
    };
    let address = ground.ec2(
        "allocate_address",
        json!({"Domain": "vpc", "TagSpecifications": tags("elastic-ip")}),
    );
    ground.expect("leftover", "elastic-ip", &address["AllocationId"]);
    ground.call(
        "logs",
        "create_log_group",
        json!({"logGroupName": "/drawbridge/vpc-flow-log"}),
    );
    ground.expect("leftover", "log-group", &json!("/drawbridge/vpc-flow-log"));
    ground.planted
}
