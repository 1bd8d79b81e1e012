//! What stands in the account, kind by kind, fresh through the `aws` command: what an audit compares with the state.
//!
//! Only the fields that are judged are read; AWS adds others at will.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::{OnceCell, Semaphore};

use super::{Cloud, CloudError, GatewayState};

/// How many `aws` commands run at a time: each takes a processor for a second just to start.
const AT_A_TIME: usize = 3;

/// Lists what stands in one region. IAM, which has no region, is asked through it too.
#[derive(Debug)]
pub struct Inventory {
    cloud: Cloud,
    turns: Semaphore,
    nat_gateways: OnceCell<Vec<NatGateway>>,
}

/// Which of a kind to list.
#[derive(Clone, Debug)]
pub enum Where {
    /// Those in this VPC.
    Vpc(String),
    /// Those tagged `Deployment=<name>`.
    Deployment(String),
}

/// A tag.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Tag {
    key: String,
    value: String,
}

/// The value of the tag `key`.
#[must_use]
pub fn tag<'a>(tags: &'a [Tag], key: &str) -> Option<&'a str> {
    let found = tags.iter().find(|tag| tag.key == key)?;
    Some(&found.value)
}

macro_rules! kind {
    ($(#[$doc:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize)]
        #[serde(rename_all = "PascalCase")]
        #[allow(missing_docs, reason = "the fields are AWS's own")]
        pub struct $name {
            $($(#[$attribute])* pub $field: $type,)*
        }
    };
}

kind! { /// An Elastic IP.
ElasticIp {
    allocation_id: Option<String>, association_id: Option<String>,
    // A carrier's address, of a Wavelength zone, has none.
    #[serde(default)] public_ip: String,
    #[serde(default)] tags: Vec<Tag>,
} }
kind! { /// A network interface.
Interface {
    network_interface_id: String, status: String, #[serde(default)] description: String, vpc_id: Option<String>,
    association: Option<Association>, attachment: Option<Attachment>, #[serde(default)] tag_set: Vec<Tag>,
} }
kind! { /// An interface's public address.
Association { public_ip: String, allocation_id: Option<String>, association_id: Option<String>, } }
kind! { /// What an interface belongs to.
Attachment { instance_id: Option<String>, } }
kind! { /// An EBS snapshot.
Snapshot { snapshot_id: String, volume_size: u64, } }
kind! { /// An EBS volume.
Volume { volume_id: String, size: u64, volume_type: String, state: String, #[serde(default)] tags: Vec<Tag>, } }
kind! { /// A NAT gateway.
NatGateway {
    nat_gateway_id: String, vpc_id: String, state: GatewayState, #[serde(default)] nat_gateway_addresses: Vec<GatewayAddress>,
    #[serde(default)] tags: Vec<Tag>,
} }
kind! { /// An address of a NAT gateway.
GatewayAddress { network_interface_id: Option<String>, } }
kind! { /// An EC2 instance.
Instance { instance_id: String, instance_type: String, vpc_id: Option<String>, } }
kind! { /// A VPC.
Vpc { vpc_id: String, } }
kind! { /// A security group.
SecurityGroup { group_id: String, group_name: String, vpc_id: Option<String>, } }
kind! { /// A rule of a security group.
Rule {
    security_group_rule_id: String, group_id: String, is_egress: bool, ip_protocol: String, from_port: Option<i64>,
    to_port: Option<i64>, cidr_ipv4: Option<String>, cidr_ipv6: Option<String>, prefix_list_id: Option<String>,
    referenced_group_info: Option<ReferencedGroup>,
} }
kind! { /// The group at a rule's other end.
ReferencedGroup { group_id: String, } }
kind! { /// A route table.
RouteTable { route_table_id: String, #[serde(default)] routes: Vec<Route>, } }
kind! { /// A route.
Route {
    destination_cidr_block: Option<String>, destination_ipv6_cidr_block: Option<String>, destination_prefix_list_id: Option<String>,
    gateway_id: Option<String>, nat_gateway_id: Option<String>, instance_id: Option<String>, network_interface_id: Option<String>,
    vpc_peering_connection_id: Option<String>, transit_gateway_id: Option<String>, egress_only_internet_gateway_id: Option<String>,
} }
kind! { /// A peering of two VPCs.
Peering {
    vpc_peering_connection_id: String, requester_vpc_info: PeeredVpc, accepter_vpc_info: PeeredVpc, status: PeeringStatus,
} }
kind! { /// One end of a peering.
PeeredVpc { vpc_id: Option<String>, owner_id: Option<String>, } }
kind! { /// Where the life of a peering stands.
PeeringStatus { code: String, } }
kind! { /// A load balancer.
LoadBalancer { load_balancer_arn: String, load_balancer_name: String, vpc_id: Option<String>, #[serde(rename = "Type")] kind: String, } }
kind! { /// A listener of a load balancer.
Listener { listener_arn: String, port: Option<u16>, protocol: Option<String>, } }
kind! { /// What the tagging API knows of a resource.
Tagged { #[serde(rename = "ResourceARN")] arn: String, } }
kind! { /// An SSM parameter, without its value.
Parameter { name: String, } }
kind! { /// An IAM role.
Role { role_name: String, } }
kind! { /// An EventBridge schedule.
Schedule { name: String, state: String, } }

/// A log group of CloudWatch, whose API begins its fields with small letters.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogGroup {
    /// Its name, e.g. `/drawbridge/vpc-flow-log`.
    pub log_group_name: String,
}

type Listed<T> = Result<Vec<T>, CloudError>;

impl Where {
    fn filter(&self) -> String {
        match self {
            Self::Vpc(id) => format!("Name=vpc-id,Values={id}"),
            Self::Deployment(name) => format!("Name=tag:Deployment,Values={name}"),
        }
    }
}

impl Inventory {
    /// Asks nothing yet.
    #[must_use]
    pub fn new(cloud: Cloud) -> Self {
        Self {
            cloud,
            turns: Semaphore::new(AT_A_TIME),
            nat_gateways: OnceCell::new(),
        }
    }

    /// The account whose credentials these are.
    ///
    /// # Errors
    /// When STS cannot be asked. So fail all methods here, each for its own service.
    pub async fn account(&self) -> Result<String, CloudError> {
        let what = "ask whose credentials these are";
        let answer = self.answer(what, &["sts", "get-caller-identity"]).await?;
        let account = answer["Account"].as_str();
        account
            .map(str::to_owned)
            .ok_or_else(|| self.cloud.misread(what, "no Account".to_owned()))
    }

    /// All Elastic IPs of the region; an account has few.
    ///
    /// # Errors
    /// As [`Inventory::account`].
    pub async fn elastic_ips(&self) -> Listed<ElasticIp> {
        self.list(
            "list the Elastic IPs",
            &["ec2", "describe-addresses"],
            "Addresses",
        )
        .await
    }

    /// Network interfaces, attached or not.
    ///
    /// # Errors
    /// As [`Inventory::account`].
    pub async fn interfaces(&self, place: &Where) -> Listed<Interface> {
        let ask = [
            "ec2",
            "describe-network-interfaces",
            "--filters",
            &place.filter(),
        ];
        self.list("list the network interfaces", &ask, "NetworkInterfaces")
            .await
    }

    /// The account's own snapshots of a deployment.
    ///
    /// # Errors
    /// As [`Inventory::account`].
    pub async fn snapshots(&self, deployment: &str) -> Listed<Snapshot> {
        let filter = Where::Deployment(deployment.to_owned()).filter();
        let ask = [
            "ec2",
            "describe-snapshots",
            "--owner-ids",
            "self",
            "--filters",
            &filter,
        ];
        self.list("list the snapshots", &ask, "Snapshots").await
    }

    /// Volumes of a deployment.
    ///
    /// # Errors
    /// As [`Inventory::account`].
    pub async fn volumes(&self, deployment: &str) -> Listed<Volume> {
        let filter = Where::Deployment(deployment.to_owned()).filter();
        let ask = ["ec2", "describe-volumes", "--filters", &filter];
        self.list("list the volumes", &ask, "Volumes").await
    }

    /// All NAT gateways of the region that stand; asked once.
    ///
    /// # Errors
    /// As [`Inventory::account`].
    pub async fn nat_gateways(&self) -> Result<&[NatGateway], CloudError> {
        let list = || async {
            let filter = "Name=state,Values=pending,available,deleting";
            let ask = ["ec2", "describe-nat-gateways", "--filter", filter];
            self.list("list the NAT gateways", &ask, "NatGateways")
                .await
        };
        self.nat_gateways
            .get_or_try_init(list)
            .await
            .map(Vec::as_slice)
    }

    /// Instances that are not terminated.
    ///
    /// # Errors
    /// As [`Inventory::account`].
    pub async fn instances(&self, place: &Where) -> Listed<Instance> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Reservation {
            instances: Vec<Instance>,
        }
        let alive = "Name=instance-state-name,Values=pending,running,stopping,stopped";
        let ask = [
            "ec2",
            "describe-instances",
            "--filters",
            alive,
            &place.filter(),
        ];
        let reservations: Vec<Reservation> = self
            .list("list the instances", &ask, "Reservations")
            .await?;
        Ok(reservations
            .into_iter()
            .flat_map(|reservation| reservation.instances)
            .collect())
    }

    /// VPCs.
    ///
    /// # Errors
    /// As [`Inventory::account`].
    pub async fn vpcs(&self, place: &Where) -> Listed<Vpc> {
        let ask = ["ec2", "describe-vpcs", "--filters", &place.filter()];
        self.list("list the VPCs", &ask, "Vpcs").await
    }

    /// Security groups.
    ///
    /// # Errors
    /// As [`Inventory::account`].
    pub async fn security_groups(&self, place: &Where) -> Listed<SecurityGroup> {
        let ask = [
            "ec2",
            "describe-security-groups",
            "--filters",
            &place.filter(),
        ];
        self.list("list the security groups", &ask, "SecurityGroups")
            .await
    }

    /// The rules of these security groups.
    ///
    /// # Errors
    /// As [`Inventory::account`].
    pub async fn rules(&self, groups: &[&str]) -> Listed<Rule> {
        let mut rules = Vec::new();
        // EC2 takes 200 values in one filter.
        for some in groups.chunks(200) {
            let filter = format!("Name=group-id,Values={}", some.join(","));
            let ask = ["ec2", "describe-security-group-rules", "--filters", &filter];
            let more: Vec<Rule> = self
                .list("list the security group rules", &ask, "SecurityGroupRules")
                .await?;
            rules.extend(more);
        }
        Ok(rules)
    }

    /// Route tables.
    ///
    /// # Errors
    /// As [`Inventory::account`].
    pub async fn route_tables(&self, place: &Where) -> Listed<RouteTable> {
        let ask = ["ec2", "describe-route-tables", "--filters", &place.filter()];
        self.list("list the route tables", &ask, "RouteTables")
            .await
    }

    /// All peerings of the region.
    ///
    /// # Errors
    /// As [`Inventory::account`].
    pub async fn peerings(&self) -> Listed<Peering> {
        let ask = ["ec2", "describe-vpc-peering-connections"];
        self.list("list the VPC peerings", &ask, "VpcPeeringConnections")
            .await
    }

    /// All load balancers of the region that are not classic ones.
    ///
    /// # Errors
    /// As [`Inventory::account`].
    pub async fn load_balancers(&self) -> Listed<LoadBalancer> {
        self.list(
            "list the load balancers",
            &["elbv2", "describe-load-balancers"],
            "LoadBalancers",
        )
        .await
    }

    /// The listeners of a load balancer.
    ///
    /// # Errors
    /// As [`Inventory::account`].
    pub async fn listeners(&self, load_balancer: &str) -> Listed<Listener> {
        let ask = [
            "elbv2",
            "describe-listeners",
            "--load-balancer-arn",
            load_balancer,
        ];
        self.list("list the listeners", &ask, "Listeners").await
    }

    /// ARNs of what carries the tag of a deployment, of one service or type, e.g. `logs`.
    ///
    /// # Errors
    /// As [`Inventory::account`].
    pub async fn tagged(&self, kind: &str, deployment: &str) -> Result<Vec<String>, CloudError> {
        let filter = format!("Key=Deployment,Values={deployment}");
        let ask = [
            "resourcegroupstaggingapi",
            "get-resources",
            "--resource-type-filters",
            kind,
            "--tag-filters",
            &filter,
        ];
        let found: Vec<Tagged> = self
            .list(
                "list what carries the deployment's tag",
                &ask,
                "ResourceTagMappingList",
            )
            .await?;
        Ok(found.into_iter().map(|tagged| tagged.arn).collect())
    }

    /// Log groups whose names begin so.
    ///
    /// # Errors
    /// As [`Inventory::account`].
    pub async fn log_groups(&self, prefix: &str) -> Listed<LogGroup> {
        let ask = [
            "logs",
            "describe-log-groups",
            "--log-group-name-prefix",
            prefix,
        ];
        self.list("list the log groups", &ask, "logGroups").await
    }

    /// SSM parameters below `path`, e.g. `/drawbridge`; their values are not read.
    ///
    /// # Errors
    /// As [`Inventory::account`].
    pub async fn parameters(&self, path: &str) -> Listed<Parameter> {
        let filter = format!("Key=Path,Option=Recursive,Values={path}");
        let ask = ["ssm", "describe-parameters", "--parameter-filters", &filter];
        self.list("list the SSM parameters", &ask, "Parameters")
            .await
    }

    /// All IAM roles of the account.
    ///
    /// # Errors
    /// As [`Inventory::account`].
    pub async fn roles(&self) -> Listed<Role> {
        self.list("list the IAM roles", &["iam", "list-roles"], "Roles")
            .await
    }

    /// The tags of a role.
    ///
    /// # Errors
    /// As [`Inventory::account`].
    pub async fn role_tags(&self, role: &str) -> Listed<Tag> {
        self.list(
            "read a role's tags",
            &["iam", "list-role-tags", "--role-name", role],
            "Tags",
        )
        .await
    }

    /// Schedules whose names begin so.
    ///
    /// # Errors
    /// As [`Inventory::account`].
    pub async fn schedules(&self, prefix: &str) -> Listed<Schedule> {
        let ask = ["scheduler", "list-schedules", "--name-prefix", prefix];
        self.list("list the schedules", &ask, "Schedules").await
    }

    async fn list<T: DeserializeOwned>(
        &self,
        what: &'static str,
        arguments: &[&str],
        field: &str,
    ) -> Listed<T> {
        let mut answer = self.answer(what, arguments).await?;
        serde_json::from_value(answer[field].take())
            .map_err(|error| self.cloud.misread(what, format!("{field}: {error}")))
    }

    async fn answer(&self, what: &'static str, arguments: &[&str]) -> Result<Value, CloudError> {
        // The semaphore is never closed; an error would only mean one command more at a time.
        let _turn = self.turns.acquire().await;
        let text = self.cloud.ask(what, arguments).await?;
        serde_json::from_str(&text).map_err(|error| self.cloud.misread(what, error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_elses_carrier_address_does_not_spoil_the_list() {
        let json = r#"[{"AllocationId":"eipalloc-1","CarrierIp":"155.146.1.1","Domain":"vpc"},{"PublicIp":"203.0.113.1"}]"#;
        let read: Vec<ElasticIp> = serde_json::from_str(json).unwrap();
        assert_eq!(
            (read[0].public_ip.as_str(), read[1].public_ip.as_str()),
            ("", "203.0.113.1")
        );
    }
}
