//! Security groups as the state describes them, whether their rules are resources of their own or written inline.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::state::{Resource, State, StateError};

/// One security group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// `sg-…`.
    pub id: String,
    /// Terraform address.
    pub address: String,
    /// What may come in.
    pub ingress: Vec<Rule>,
    /// What may go out.
    pub egress: Vec<Rule>,
}

/// One rule. Rules only ever allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Terraform address of the resource the rule stands in.
    pub address: String,
    /// The other side.
    pub peer: Peer,
    /// Which packets.
    pub traffic: Traffic,
}

/// The other side of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A block of addresses.
    Block(Ipv4Net),
    /// The members of a group, by its id.
    Group(String),
}

/// Which packets a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Every protocol (`-1` in the state).
    All,
    /// TCP to these ports, both ends included.
    Tcp(u16, u16),
    /// UDP to these ports, both ends included.
    Udp(u16, u16),
}

impl Traffic {
    fn parse(
        resource: &Resource,
        protocol: &str,
        ports: Option<(u16, u16)>,
    ) -> Result<Traffic, StateError> {
        match (protocol, ports) {
            ("-1" | "all", _) => Ok(Traffic::All),
            ("tcp" | "6", Some((from, to))) => Ok(Traffic::Tcp(from, to)),
            ("udp" | "17", Some((from, to))) => Ok(Traffic::Udp(from, to)),
            _ => Err(StateError::Field {
                address: resource.address.clone(),
                field: "ip_protocol".to_owned(),
                expected: "tcp, udp or -1 with ports, which is all the rehearsal can build",
            }),
        }
    }

    /// First and last of the TCP ports it names.
    pub fn tcp_ports(self) -> Option<[u16; 2]> {
        match self {
            Traffic::Tcp(from, to) => Some([from, to]),
            Traffic::All | Traffic::Udp(..) => None,
        }
    }

    /// Whether TCP packets to `port` are meant.
    pub fn covers_tcp(self, port: u16) -> bool {
        match self {
            Traffic::All => true,
            Traffic::Tcp(from, to) => (from..=to).contains(&port),
            Traffic::Udp(..) => false,
        }
    }
}

impl Group {
    /// The ingress rule that lets TCP from `source` to `port` in, if one does. `members` answers whether an address
    /// belongs to a group.
    pub fn admits(
        &self,
        source: Ipv4Addr,
        port: u16,
        members: impl Fn(&str, Ipv4Addr) -> bool,
    ) -> Option<&Rule> {
        self.ingress.iter().find(|rule| {
            rule.traffic.covers_tcp(port)
                && match &rule.peer {
                    Peer::Block(block) => block.contains(&source),
                    Peer::Group(id) => members(id, source),
                }
        })
    }
}

/// Reads every group with its rules.
///
/// # Errors
/// [`StateError`] naming the rule that cannot be built.
pub fn read(state: &State) -> Result<Vec<Group>, StateError> {
    let mut groups = Vec::new();
    for resource in state.of_type("aws_security_group") {
        groups.push(Group {
            id: resource.text("id")?.to_owned(),
            address: resource.address.clone(),
            ingress: inline_rules(resource, "ingress")?,
            egress: inline_rules(resource, "egress")?,
        });
    }
    for resource in state.of_type("aws_vpc_security_group_ingress_rule") {
        add(&mut groups, resource, |group| &mut group.ingress)?;
    }
    for resource in state.of_type("aws_vpc_security_group_egress_rule") {
        add(&mut groups, resource, |group| &mut group.egress)?;
    }
    Ok(groups)
}

fn add(
    groups: &mut [Group],
    resource: &Resource,
    side: fn(&mut Group) -> &mut Vec<Rule>,
) -> Result<(), StateError> {
    let id = resource.text("security_group_id")?;
    // A rule of the default group, or of a group of somebody else: no host of ours is in it.
    let Some(group) = groups.iter_mut().find(|group| group.id == id) else {
        return Ok(());
    };
    let protocol = resource.text("ip_protocol")?;
    let ports = match protocol {
        "-1" => None,
        _ => Some((resource.number("from_port")?, resource.number("to_port")?)),
    };
    let traffic = Traffic::parse(resource, protocol, ports)?;
    let peer = match (
        resource.optional_text("cidr_ipv4"),
        resource.optional_text("referenced_security_group_id"),
    ) {
        (Some(_), _) => Peer::Block(resource.parsed("cidr_ipv4", "an IPv4 CIDR block")?),
        // Another account's group is written `account/sg-…`.
        (None, Some(id)) => Peer::Group(id.rsplit('/').next().unwrap_or(id).to_owned()),
        // IPv6 blocks and prefix lists match no address of the rehearsed network.
        (None, None) => return Ok(()),
    };
    // The provider lists separate rules in the group's own attribute too, once it has been refreshed. The
    // separate resource is the better name.
    let rules = side(group);
    rules.retain(|rule| !(rule.peer == peer && rule.traffic == traffic));
    rules.push(Rule {
        address: resource.address.clone(),
        peer,
        traffic,
    });
    Ok(())
}

fn inline_rules(resource: &Resource, field: &str) -> Result<Vec<Rule>, StateError> {
    let mut rules = Vec::new();
    for block in resource.blocks(field) {
        let protocol = block.optional_text("protocol").unwrap_or("-1");
        let ports = match protocol {
            "-1" => None,
            _ => Some((block.number("from_port")?, block.number("to_port")?)),
        };
        let traffic = Traffic::parse(resource, protocol, ports)?;
        let blocks = block
            .texts("cidr_blocks")
            .into_iter()
            .filter_map(|cidr| cidr.parse().ok())
            .map(Peer::Block);
        let groups = block
            .texts("security_groups")
            .into_iter()
            .map(|id| Peer::Group(id.to_owned()));
        // `self = true` means the group's own members.
        let own = block
            .flag("self")
            .then(|| resource.text("id"))
            .transpose()?
            .map(|id| Peer::Group(id.to_owned()));
        rules.extend(blocks.chain(groups).chain(own).map(|peer| Rule {
            address: format!("{} ({field})", resource.address),
            peer,
            traffic,
        }));
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: &str = r#"{"version":4,"resources":[
      {"mode":"managed","type":"aws_security_group","name":"a","instances":[{"attributes":{"id":"sg-a","egress":[],
        "ingress":[{"cidr_blocks":["10.0.0.0/8"],"security_groups":[],"protocol":"tcp","from_port":22,"to_port":22}]}}]},
      {"mode":"managed","type":"aws_vpc_security_group_ingress_rule","name":"r","instances":[
        {"index_key":"x","attributes":{"security_group_id":"sg-a","ip_protocol":"tcp","from_port":22,"to_port":22,"cidr_ipv4":"10.0.0.0/8"}},
        {"index_key":"y","attributes":{"security_group_id":"sg-a","ip_protocol":"tcp","from_port":80,"to_port":90,
          "referenced_security_group_id":"123/sg-b"}}]}]}"#;

    #[test]
    fn separate_and_inline_rules_become_one_list_without_doubles() {
        let groups = read(&State::parse(STATE).unwrap()).unwrap();
        let shown: Vec<_> = groups[0]
            .ingress
            .iter()
            .map(|r| (r.address.as_str(), r.traffic))
            .collect();
        assert_eq!(
            shown,
            [
                (
                    r#"aws_vpc_security_group_ingress_rule.r["x"]"#,
                    Traffic::Tcp(22, 22)
                ),
                (
                    r#"aws_vpc_security_group_ingress_rule.r["y"]"#,
                    Traffic::Tcp(80, 90)
                ),
            ]
        );
        assert_eq!(groups[0].ingress[1].peer, Peer::Group("sg-b".to_owned()));
    }

    #[test]
    fn an_inline_rule_for_the_group_itself_admits_its_members() {
        let state = r#"{"version":4,"resources":[{"mode":"managed","type":"aws_security_group","name":"a","instances":[
          {"attributes":{"id":"sg-a","egress":[],"ingress":[{"cidr_blocks":[],"security_groups":[],"self":true,
          "protocol":"-1","from_port":0,"to_port":0}]}}]}]}"#;
        let groups = read(&State::parse(state).unwrap()).unwrap();
        assert_eq!(groups[0].ingress[0].peer, Peer::Group("sg-a".to_owned()));
    }

    #[test]
    fn the_admitting_rule_is_found_by_block_and_by_membership() {
        let groups = read(&State::parse(STATE).unwrap()).unwrap();
        let member =
            |id: &str, address: Ipv4Addr| id == "sg-b" && address == Ipv4Addr::new(192, 0, 2, 7);
        let admits =
            |source: [u8; 4], port| groups[0].admits(source.into(), port, member).is_some();
        assert!(admits([10, 1, 1, 1], 22));
        assert!(!admits([11, 1, 1, 1], 22));
        assert!(admits([192, 0, 2, 7], 85));
        assert!(!admits([192, 0, 2, 8], 85));
    }
}
