//! The network that the state describes: subnets, routes, hosts, addresses. Pure; nothing here is hard-coded that the
//! state says. What AWS would choose by itself (the load balancer's addresses) is chosen here.

use std::net::{Ipv4Addr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ipnet::Ipv4Net;

use super::load_balancer::{self, LoadBalancer};
use super::routing::{self, RouteTable, Subnet};
use super::security_groups::{self, Group};
use super::state::{Resource, State, StateError};
use crate::appliance::{Role, UserData};
use crate::flows::{End, Flow, Need};

/// Public addresses that the state does not mention, as those of load balancer nodes: the upper half of TEST-NET-2
/// (RFC 5737). The emulator hands out Elastic IPs from the lower half.
const PUBLIC_POOL: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 128);

/// Resources that decide who reaches whom and that no network is made of here: with one of them in the state, a proof
/// would hold for something else than what AWS would build.
const NOT_REHEARSED: [&str; 13] = [
    "aws_default_network_acl",
    "aws_default_route_table",
    "aws_egress_only_internet_gateway",
    "aws_lb_listener_rule",
    "aws_main_route_table_association",
    "aws_network_acl",
    "aws_network_acl_rule",
    "aws_network_interface",
    "aws_network_interface_sg_attachment",
    "aws_security_group_rule",
    "aws_vpc_endpoint_route_table_association",
    "aws_vpc_ipv4_cidr_block_association",
    "aws_vpc_peering_connection",
];

/// Everything the rehearsed network consists of.
#[derive(Debug)]
pub struct Topology {
    /// Name of the deployment, from the instances' user data.
    pub name: String,
    /// Its AWS region, from there too.
    pub region: String,
    /// The VPC's block.
    pub vpc: Ipv4Net,
    /// All subnets.
    pub subnets: Vec<Subnet>,
    /// All route tables, the VPC's main table last.
    pub tables: Vec<RouteTable>,
    /// All security groups.
    pub groups: Vec<Group>,
    /// All machines with a network interface in the VPC.
    pub hosts: Vec<Host>,
    /// The load balancer in front of the backend.
    pub load_balancer: LoadBalancer,
}

/// One machine with an address in the VPC.
#[derive(Debug)]
pub struct Host {
    /// Name of its namespace: the role, `alb-1a`, or `nat`. At most 13 characters, so that `v-` and it fit a link name.
    pub name: String,
    /// Which end of a flow it is. None for the NAT gateway.
    pub end: Option<End>,
    /// Private address.
    pub address: Ipv4Addr,
    /// Index into [`Topology::subnets`].
    pub subnet: usize,
    /// Public address, if it has one.
    pub public: Option<Ipv4Addr>,
    /// Ids of its security groups.
    pub groups: Vec<String>,
    /// What kind of machine it is.
    pub kind: Kind,
}

/// What kind of machine a host is.
#[derive(Debug)]
pub enum Kind {
    /// An EC2 instance.
    Instance(Box<Instance>),
    /// A node of the load balancer.
    LoadBalancerNode,
    /// A NAT gateway, with its id.
    NatGateway(String),
}

/// What the state says of an instance beyond its address.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Terraform address.
    pub address: String,
    /// `i-…`.
    pub id: String,
    /// `ami-…`.
    pub image_id: String,
    /// What it is for, from its user data.
    pub role: Role,
    /// The bytes the metadata service answers for `user-data`.
    pub user_data: String,
    /// Name of its instance profile, if it has one.
    pub profile: Option<String>,
    /// Whether the metadata service refuses requests without a session token (IMDSv2).
    pub tokens_required: bool,
    /// IP hop limit of the metadata service's answers.
    pub hop_limit: u8,
    /// Attached volumes: id and size in GiB.
    pub volumes: Vec<(String, u64)>,
}

/// Why no network can be made of a state.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// The state lacks something or holds something that cannot be built.
    #[error(transparent)]
    State(#[from] StateError),
    /// An instance's user data is not what `drawbridge-host bootstrap` expects.
    #[error("{address}: its user data is refused: {reason}")]
    UserData {
        /// Terraform address of the instance.
        address: String,
        /// What the parser says.
        reason: String,
    },
    /// Something changes the network in a way that is not built here.
    #[error(
        "{address}: the rehearsal does not know what a resource of this type does to the network, so it could prove \
         nothing; say the same with the types that terraform/ uses"
    )]
    NotRehearsed {
        /// Terraform address.
        address: String,
    },
    /// Two machines of one kind.
    #[error("the state holds more than one {0}, and the rehearsal has room for one")]
    Twice(String),
    /// Something refers to a thing that is not there.
    #[error("{address}: {reason}")]
    Dangling {
        /// Terraform address of what refers.
        address: String,
        /// To what.
        reason: String,
    },
}

impl Topology {
    /// Makes the network of a state.
    ///
    /// # Errors
    /// [`TopologyError`], naming the resource.
    pub fn read(state: &State) -> Result<Topology, TopologyError> {
        if let Some(resource) = NOT_REHEARSED
            .into_iter()
            .find_map(|kind| state.of_type(kind).next())
        {
            return Err(TopologyError::NotRehearsed {
                address: resource.address.clone(),
            });
        }
        let vpc = state.first("aws_vpc")?;
        let tables = routing::read_tables(state, vpc)?;
        let subnets = routing::read_subnets(state, &tables)?;
        let mut topology = Topology {
            name: String::new(),
            region: String::new(),
            vpc: vpc.parsed("cidr_block", "an IPv4 CIDR block")?,
            subnets,
            tables,
            groups: security_groups::read(state)?,
            hosts: Vec::new(),
            load_balancer: load_balancer::read(state)?,
        };
        for resource in state.of_type("aws_instance") {
            let (host, user_data) = topology.instance(state, resource)?;
            topology.name = user_data.name;
            topology.region = user_data.region;
            topology.hosts.push(host);
        }
        for resource in state.of_type("aws_nat_gateway") {
            topology.hosts.push(Host {
                name: "nat".to_owned(),
                end: None,
                address: resource.address("private_ip")?,
                subnet: topology.subnet(resource, resource.text("subnet_id")?)?,
                public: Some(resource.address("public_ip")?),
                groups: Vec::new(),
                kind: Kind::NatGateway(resource.text("id")?.to_owned()),
            });
        }
        topology.place_load_balancer(state)?;
        topology.check_names()?;
        Ok(topology)
    }

    /// Each machine gets a namespace of its name, so there can be one bastion, one NAT gateway and so on.
    fn check_names(&self) -> Result<(), TopologyError> {
        for (index, host) in self.hosts.iter().enumerate() {
            if self.hosts[..index]
                .iter()
                .any(|other| other.name == host.name)
            {
                return Err(TopologyError::Twice(host.name.clone()));
            }
        }
        Ok(())
    }

    fn subnet(&self, resource: &Resource, id: &str) -> Result<usize, TopologyError> {
        self.subnets
            .iter()
            .position(|subnet| subnet.id == id)
            .ok_or_else(|| TopologyError::Dangling {
                address: resource.address.clone(),
                reason: format!("its subnet {id} is not in the state"),
            })
    }

    fn instance(
        &self,
        state: &State,
        resource: &Resource,
    ) -> Result<(Host, UserData), TopologyError> {
        let id = resource.text("id")?;
        let user_data = resource
            .optional_text("user_data_base64")
            .and_then(decode_base64)
            .ok_or_else(|| StateError::Field {
                address: resource.address.clone(),
                field: "user_data_base64".to_owned(),
                expected: "base64 of the instance's user data, a text",
            })?;
        let parsed = UserData::parse(&user_data).map_err(|error| TopologyError::UserData {
            address: resource.address.clone(),
            reason: error.to_string(),
        })?;
        let role = parsed.role();
        let metadata = resource.blocks("metadata_options");
        let metadata = metadata.first();
        let association = state
            .of_type("aws_eip_association")
            .find(|a| a.optional_text("instance_id") == Some(id));
        let public = match association {
            Some(association) => Some(association.address("public_ip")?),
            None => resource
                .optional_text("public_ip")
                .and_then(|address| address.parse().ok()),
        };
        let volumes = state
            .of_type("aws_volume_attachment")
            .filter(|attachment| attachment.optional_text("instance_id") == Some(id))
            .filter_map(|attachment| attachment.optional_text("volume_id"))
            .filter_map(|volume| {
                state
                    .of_type("aws_ebs_volume")
                    .find(|v| v.optional_text("id") == Some(volume))
            })
            .map(|volume| Ok((volume.text("id")?.to_owned(), volume.number("size")?)))
            .collect::<Result<_, StateError>>()?;
        let host = Host {
            name: role.to_string(),
            end: Some(End::from(role)),
            address: resource.address("private_ip")?,
            subnet: self.subnet(resource, resource.text("subnet_id")?)?,
            public,
            groups: resource
                .texts("vpc_security_group_ids")
                .into_iter()
                .map(str::to_owned)
                .collect(),
            kind: Kind::Instance(Box::new(Instance {
                address: resource.address.clone(),
                id: id.to_owned(),
                image_id: resource.text("ami")?.to_owned(),
                role,
                user_data,
                profile: resource
                    .optional_text("iam_instance_profile")
                    .map(str::to_owned),
                tokens_required: metadata.and_then(|m| m.optional_text("http_tokens"))
                    == Some("required"),
                hop_limit: metadata
                    .and_then(|m| m.number("http_put_response_hop_limit").ok())
                    .unwrap_or(1),
                volumes,
            })),
        };
        Ok((host, parsed))
    }

    /// AWS gives a load balancer one address in each of its subnets and a public one for each.
    fn place_load_balancer(&mut self, state: &State) -> Result<(), TopologyError> {
        let resource = state.first("aws_lb")?;
        let groups: Vec<String> = resource
            .texts("security_groups")
            .into_iter()
            .map(str::to_owned)
            .collect();
        let internal = resource.flag("internal");
        for (number, subnet_id) in (0..).zip(resource.texts("subnets")) {
            let subnet = self.subnet(resource, subnet_id)?;
            let Subnet {
                block, ref zone, ..
            } = self.subnets[subnet];
            let taken: Vec<Ipv4Addr> = self.hosts.iter().map(|host| host.address).collect();
            let address = free_address(block, &taken).ok_or_else(|| TopologyError::Dangling {
                address: resource.address.clone(),
                reason: format!("no free address in {block}"),
            })?;
            let zone = zone.rsplit('-').next().unwrap_or(zone);
            self.hosts.push(Host {
                name: format!("alb-{zone}"),
                end: Some(End::LoadBalancer),
                address,
                subnet,
                public: (!internal).then(|| Ipv4Addr::from(u32::from(PUBLIC_POOL) + number)),
                groups: groups.clone(),
                kind: Kind::LoadBalancerNode,
            });
        }
        Ok(())
    }

    /// The address in `subnet` for a machine that the state does not know, such as the rehearsal's own stray one.
    pub fn spare_address(&self, subnet: usize) -> Option<Ipv4Addr> {
        let taken: Vec<Ipv4Addr> = self.hosts.iter().map(|host| host.address).collect();
        free_address(self.subnets[subnet].block, &taken)
    }

    /// The host of an instance role.
    pub fn instance_host(&self, role: Role) -> Option<(&Host, &Instance)> {
        self.instances().find(|(_, instance)| instance.role == role)
    }

    /// All instances.
    pub fn instances(&self) -> impl Iterator<Item = (&Host, &Instance)> {
        self.hosts.iter().filter_map(|host| match &host.kind {
            Kind::Instance(instance) => Some((host, instance.as_ref())),
            _ => None,
        })
    }

    /// The load balancer's nodes.
    pub fn load_balancer_nodes(&self) -> impl Iterator<Item = &Host> {
        self.hosts
            .iter()
            .filter(|host| matches!(host.kind, Kind::LoadBalancerNode))
    }

    /// Where browsers go: the listener that leads to the API, on the load balancer's first public node.
    pub fn web_address(&self) -> Option<SocketAddr> {
        let node = self.load_balancer_nodes().find_map(|node| node.public)?;
        let (listener, _) = self.load_balancer.entrance()?;
        Some(SocketAddr::from((node, listener.port)))
    }

    /// Where the load balancer expects an instance to answer: port and path of its health check.
    pub fn health_check(&self, instance: &Instance) -> Option<(u16, &str)> {
        let (_, group) = self.load_balancer.entrance()?;
        let (_, port) = group.targets.iter().find(|(id, _)| *id == instance.id)?;
        Some((*port, &group.health_path))
    }

    /// Whether a flow exists: it needs nothing, or what it needs is there.
    pub fn has_what_it_needs(&self, flow: &Flow) -> bool {
        match flow.needs {
            None => true,
            Some(Need::Certificate) => self.load_balancer.has_certificate(),
        }
    }

    /// The NAT gateway, while the window is open.
    pub fn nat_gateway(&self) -> Option<&Host> {
        self.hosts
            .iter()
            .find(|host| matches!(host.kind, Kind::NatGateway(_)))
    }

    /// Private addresses of a group's members.
    pub fn members<'a>(&'a self, group: &'a str) -> impl Iterator<Item = Ipv4Addr> + 'a {
        self.hosts
            .iter()
            .filter(move |host| host.groups.iter().any(|id| id == group))
            .map(|host| host.address)
    }
}

/// The highest free address: instances are given low ones. AWS keeps the first four and the last of a subnet.
fn free_address(block: Ipv4Net, taken: &[Ipv4Addr]) -> Option<Ipv4Addr> {
    let first = u32::from(block.network()) + 4;
    (first..u32::from(block.broadcast()))
        .rev()
        .map(Ipv4Addr::from)
        .find(|address| !taken.contains(address))
}

fn decode_base64(text: &str) -> Option<String> {
    String::from_utf8(BASE64.decode(text).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_that_no_network_is_made_of_is_named() {
        let state = State::parse(
            r#"{"version":4,"resources":[{"mode":"managed","type":"aws_security_group_rule","name":"old",
              "instances":[{"attributes":{}}]}]}"#,
        );
        let error = Topology::read(&state.unwrap()).unwrap_err().to_string();
        assert!(
            error.starts_with("aws_security_group_rule.old: "),
            "{error}"
        );
    }

    #[test]
    fn load_balancer_and_stray_addresses_are_the_highest_free_ones() {
        let block: Ipv4Net = "10.20.4.0/24".parse().unwrap();
        assert_eq!(
            free_address(block, &[]),
            Some(Ipv4Addr::new(10, 20, 4, 254))
        );
        assert_eq!(
            free_address(block, &[Ipv4Addr::new(10, 20, 4, 254)]),
            Some(Ipv4Addr::new(10, 20, 4, 253))
        );
        let small: Ipv4Net = "10.0.0.0/29".parse().unwrap();
        let taken: Vec<Ipv4Addr> = (4..7).map(|n| Ipv4Addr::new(10, 0, 0, n)).collect();
        assert_eq!(free_address(small, &taken), None);
    }
}
