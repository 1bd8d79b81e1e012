//! The rehearsed network's packet rules as text for `nft -f`: the internet gateway's addresses, the metadata service's
//! hop limits, security groups as stateful rules, and the NAT gateway's masquerade. Pure, like [`super::network`].

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::network::{METADATA, STRAY, Stray, link_name};
use super::security_groups::{Group, Peer, Rule, Traffic};
use super::topology::{Host, Kind, Topology};

/// `nft -f` for the router: addresses of the internet gateway, metadata hop limits, security groups.
pub fn router_rules(topology: &Topology, stray: &Stray) -> String {
    format!(
        "flush ruleset\n{}{}{}",
        gateway_table(topology),
        metadata_table(topology),
        vpc_table(topology, stray)
    )
}

/// The internet gateway: one public address stands for one private one, both ways.
fn gateway_table(topology: &Topology) -> String {
    let publics: Vec<(Ipv4Addr, Ipv4Addr)> = topology
        .hosts
        .iter()
        .filter_map(|host| host.public.map(|public| (public, host.address)))
        .collect();
    format!(
        r#"table ip gateway {{
  map inward {{
    type ipv4_addr : ipv4_addr
    {inward}
  }}
  map outward {{
    type ipv4_addr : ipv4_addr
    {outward}
  }}
  chain pre {{
    type nat hook prerouting priority dstnat
    iifname "igw" dnat to ip daddr map @inward
  }}
  chain post {{
    type nat hook postrouting priority srcnat
    oifname "igw" snat to ip saddr map @outward
  }}
}}
"#,
        inward = elements(
            publics
                .iter()
                .map(|(public, private)| format!("{public} : {private}"))
        ),
        outward = elements(
            publics
                .iter()
                .map(|(public, private)| format!("{private} : {public}"))
        ),
    )
}

/// Answers of the metadata service travel only as far as the instance's hop limit says.
fn metadata_table(topology: &Topology) -> String {
    let limits: String = topology
        .instances()
        .map(|(host, instance)| {
            format!(
                "    ip saddr {METADATA} ip daddr {} tcp sport 80 ip ttl set {}\n",
                host.address, instance.hop_limit
            )
        })
        .collect();
    format!(
        "table ip metadata {{\n  chain out {{\n    type filter hook output priority mangle\n{limits}  }}\n}}\n"
    )
}

fn vpc_table(topology: &Topology, stray: &Stray) -> String {
    // A NAT gateway has no security group, and is the one host that may send from other addresses than its own.
    let guarded: Vec<&Host> = topology
        .hosts
        .iter()
        .filter(|host| !matches!(host.kind, Kind::NatGateway(_)))
        .collect();
    let own: Vec<(String, Ipv4Addr)> = guarded
        .iter()
        .map(|host| (link_name(&host.name), host.address))
        .chain([(link_name(STRAY), stray.address)])
        .collect();
    let mut text = "table inet vpc {\n".to_owned();
    for group in &topology.groups {
        let members = elements(
            topology
                .members(&group.id)
                .map(|address| address.to_string()),
        );
        let _ = write!(
            text,
            "  set {} {{\n    type ipv4_addr\n    {members}\n  }}\n",
            set_name(&group.id)
        );
    }
    for host in &guarded {
        for side in [Side::Out, Side::In] {
            let _ = write!(
                text,
                "  chain {} {{\n{}    drop\n  }}\n",
                side.chain(host),
                rules(topology, host, side)
            );
        }
    }
    let outgoing = guarded.iter().map(|host| {
        format!(
            "\"{}\" : jump {}",
            link_name(&host.name),
            Side::Out.chain(host)
        )
    });
    let incoming = guarded
        .iter()
        .map(|host| {
            format!(
                "\"{}\" : goto {}",
                link_name(&host.name),
                Side::In.chain(host)
            )
        })
        .chain(
            topology
                .nat_gateway()
                .map(|host| format!("\"{}\" : accept", link_name(&host.name))),
        )
        .chain([
            format!("\"{}\" : accept", link_name(STRAY)),
            "\"igw\" : accept".to_owned(),
        ]);
    let _ = write!(
        text,
        r#"  set own_address {{
    type ifname . ipv4_addr
    {own_address}
  }}
  set with_public {{
    type ipv4_addr
    {with_public}
  }}
  chain from_internet {{
    ct status dnat return
    drop
  }}
  chain forward {{
    type filter hook forward priority filter
    policy drop
    iifname {{ {links} }} iifname . ip saddr != @own_address drop
    ct state established,related accept
    ct state invalid drop
    iifname "igw" jump from_internet
    iifname vmap {{ {outgoing} }}
    oifname "igw" ip saddr != @with_public drop
    oifname vmap {{ {incoming} }}
  }}
}}
"#,
        own_address = elements(
            own.iter()
                .map(|(link, address)| format!("\"{link}\" . {address}"))
        ),
        with_public = elements(
            topology
                .hosts
                .iter()
                .filter(|host| host.public.is_some())
                .map(|host| host.address.to_string())
        ),
        links = join(own.iter().map(|(link, _)| format!("\"{link}\""))),
        outgoing = join(outgoing),
        incoming = join(incoming),
    );
    text
}

/// `nft -f` for the NAT gateway's namespace.
pub fn nat_rules(topology: &Topology, gateway: &Host) -> String {
    format!(
        "flush ruleset\ntable ip nat {{\n  chain post {{\n    type nat hook postrouting priority srcnat\n    ip saddr {} ip \
         saddr != {} masquerade\n  }}\n}}\n",
        topology.vpc, gateway.address
    )
}

#[derive(Clone, Copy)]
enum Side {
    In,
    Out,
}

impl Side {
    fn chain(self, host: &Host) -> String {
        let side = match self {
            Side::In => "in",
            Side::Out => "out",
        };
        format!("{side}_{}", host.name.replace('-', "_"))
    }
}

/// The rules of all of a host's groups. Outgoing packets that may leave `return` to be judged at their destination.
fn rules(topology: &Topology, host: &Host, side: Side) -> String {
    let mut text = String::new();
    let groups = topology
        .groups
        .iter()
        .filter(|group: &&Group| host.groups.contains(&group.id));
    for group in groups {
        let (rules, field, verdict): (&[Rule], _, _) = match side {
            Side::In => (&group.ingress, "saddr", "accept"),
            Side::Out => (&group.egress, "daddr", "return"),
        };
        for rule in rules {
            let peer = match &rule.peer {
                Peer::Block(block) if block.prefix_len() == 0 => String::new(),
                Peer::Block(block) => format!("ip {field} {block} "),
                Peer::Group(id) if topology.groups.iter().any(|group| &group.id == id) => {
                    format!("ip {field} @{} ", set_name(id))
                }
                // A group of which no host of this topology is a member.
                Peer::Group(_) => continue,
            };
            let traffic = match rule.traffic {
                Traffic::All => String::new(),
                Traffic::Tcp(from, to) => format!("tcp dport {from}-{to} "),
                Traffic::Udp(from, to) => format!("udp dport {from}-{to} "),
            };
            let _ = writeln!(
                text,
                "    {peer}{traffic}{verdict} comment \"{}\"",
                comment(&rule.address)
            );
        }
    }
    text
}

fn set_name(group: &str) -> String {
    group.replace('-', "_")
}

/// nftables takes up to 128 bytes in a comment and no quotes.
fn comment(address: &str) -> String {
    address.replace('"', "'").chars().take(120).collect()
}

/// `elements = { … }`, or nothing: nftables refuses an empty list.
fn elements(items: impl Iterator<Item = String>) -> String {
    let list = join(items);
    if list.is_empty() {
        String::new()
    } else {
        format!("elements = {{ {list} }}")
    }
}

fn join(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}
