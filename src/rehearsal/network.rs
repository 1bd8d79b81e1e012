//! The rehearsed network as text: what `ip -batch` and `nft -f` are given. Pure, so that it can be read and tested
//! without a network; [`super::namespaces`] carries it out.
//!
//! One router namespace plays the VPC. Each host hangs on a routed veth of its own, so that every packet, also one to
//! the same subnet, is forwarded by the router: security groups sit there, outside the guest, as on AWS.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::routing::Exit;
use super::topology::{Kind, Topology};

/// The outside world: one namespace with three addresses from TEST-NET-3 (RFC 5737).
pub const INTERNET: &str = "internet";
/// The VPC's router.
pub const ROUTER: &str = "router";
/// Where administrators sit: the one address in `admin_cidrs`.
pub const OPERATOR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// Where anybody else sits.
pub const STRANGER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 99);
/// Where the AWS emulator listens.
pub const CLOUD: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 200);
/// The internet gateway's outer address.
const INTERNET_GATEWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// Elastic IPs and load balancer addresses: TEST-NET-2.
const PUBLIC_NETWORK: &str = "198.51.100.0/24";
/// The instance metadata service.
pub const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// Number of the first policy routing table; clear of the kernel's own (253 to 255).
const FIRST_TABLE: usize = 100;

/// A machine of the rehearsal's own, which no security group knows: it stands for whatever else may get into the VPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    /// Its private address.
    pub address: Ipv4Addr,
    /// Index of its subnet.
    pub subnet: usize,
}

/// Name of the stray machine's namespace.
pub const STRAY: &str = "stray";

/// What has to be known of a machine to connect it.
pub struct Link<'a> {
    /// Namespace.
    pub name: &'a str,
    /// Private address.
    pub address: Ipv4Addr,
    /// Index of the subnet.
    pub subnet: usize,
}

/// Name of the router's end of a host's link.
pub fn link_name(host: &str) -> String {
    format!("v-{host}")
}

/// All links of a topology, the stray machine's included.
pub fn links<'a>(topology: &'a Topology, stray: &Stray) -> Vec<Link<'a>> {
    let hosts = topology.hosts.iter().map(|host| Link {
        name: &host.name,
        address: host.address,
        subnet: host.subnet,
    });
    hosts
        .chain([Link {
            name: STRAY,
            address: stray.address,
            subnet: stray.subnet,
        }])
        .collect()
}

/// `ip -batch` for the internet's namespace, before there is a VPC.
pub fn internet() -> String {
    format!(
        "link set lo up\naddr add {OPERATOR}/24 dev eth0\naddr add {STRANGER}/24 dev eth0\naddr add {CLOUD}/24 dev \
         eth0\nlink set eth0 up\nroute add {PUBLIC_NETWORK} via {INTERNET_GATEWAY}\n"
    )
}

/// `ip -batch` for the router: its own addresses and the link to the internet, whose other end is in `internet`.
pub fn router() -> String {
    format!(
        "link set lo up\naddr add {METADATA}/32 dev lo\nlink add igw type veth peer name eth0 netns {INTERNET}\naddr \
         add {INTERNET_GATEWAY}/24 dev igw\nlink set igw up\n"
    )
}

/// `ip -batch` for the internet once the VPC's block is known. With a route to private addresses, a refusal is the
/// VPC's doing and not a missing route of the sender.
pub fn internet_to_vpc(vpc: Ipv4Net) -> String {
    format!("route replace {vpc} via {INTERNET_GATEWAY}\n")
}

/// `ip -batch` for the router: one more host's link.
pub fn router_link(topology: &Topology, link: &Link<'_>) -> String {
    let dev = link_name(link.name);
    let gateway = topology.subnets[link.subnet].gateway();
    format!(
        "link add {dev} type veth peer name eth0 netns {}\naddr add {gateway}/32 dev {dev}\nlink set {dev} up\n",
        link.name
    )
}

/// `ip -batch` for the router: one host's link less, with its [`rule`]. Both ends of a link go together.
pub fn router_unlink(name: &str) -> String {
    let dev = link_name(name);
    format!("rule del iif {dev}\nlink del {dev}\n")
}

/// `ip -batch` for a host: its address and the way to its subnet's router.
pub fn host_link(topology: &Topology, link: &Link<'_>) -> String {
    let subnet = &topology.subnets[link.subnet];
    format!(
        "link set lo up\naddr add {}/{} dev eth0\nlink set eth0 up\nroute add default via {}\n",
        link.address,
        subnet.block.prefix_len(),
        subnet.gateway()
    )
}

/// `ip -batch` for the router: every route table anew. Table `100 + i` is the i-th of the topology; a lookup that finds
/// nothing there is swallowed silently, as on AWS.
pub fn routes(topology: &Topology, stray: &Stray) -> String {
    let links = links(topology, stray);
    let mut text = String::new();
    for link in &links {
        let _ = writeln!(
            text,
            "route replace {}/32 dev {}",
            link.address,
            link_name(link.name)
        );
    }
    for (index, table) in topology.tables.iter().enumerate() {
        let number = FIRST_TABLE + index;
        let _ = writeln!(text, "route flush table {number}");
        for link in &links {
            let _ = writeln!(
                text,
                "route add {}/32 dev {} table {number}",
                link.address,
                link_name(link.name)
            );
        }
        let _ = writeln!(
            text,
            "route add blackhole default table {number} metric 9999"
        );
        for route in &table.routes {
            let next_hop = match &route.exit {
                // Every address out there is in the one namespace behind the link.
                Exit::Internet => format!("via {OPERATOR} dev igw"),
                Exit::Nat(id) => {
                    // A route to a gateway that is gone is a black hole.
                    let gateway = topology
                        .hosts
                        .iter()
                        .find(|h| matches!(&h.kind, Kind::NatGateway(nat) if nat == id));
                    let Some(gateway) = gateway else { continue };
                    format!("via {} dev {}", gateway.address, link_name(&gateway.name))
                }
            };
            let _ = writeln!(
                text,
                "route add {} {next_hop} onlink table {number}",
                route.destination
            );
        }
    }
    text
}

/// `ip -batch` for the router: which table each host's packets are looked up in. Run once per link.
pub fn rule(topology: &Topology, link: &Link<'_>) -> String {
    let number = FIRST_TABLE + topology.subnets[link.subnet].table;
    format!(
        "rule add iif {} lookup {number} pref {number}\n",
        link_name(link.name)
    )
}
