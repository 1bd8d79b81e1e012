//! Subnets and route tables as the state describes them, whether routes are resources of their own or written inline.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::state::{Resource, State};
use super::topology::TopologyError;

/// One subnet.
#[derive(Debug)]
pub struct Subnet {
    /// `subnet-…`.
    pub id: String,
    /// Terraform address.
    pub address: String,
    /// Its block.
    pub block: Ipv4Net,
    /// Availability zone, e.g. `ap-south-1a`.
    pub zone: String,
    /// Index into [`Topology::tables`].
    pub table: usize,
}

impl Subnet {
    /// The VPC router's address in this subnet: AWS reserves the first one for it.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.block.network()) + 1)
    }
}

/// One route table.
#[derive(Debug)]
pub struct RouteTable {
    /// `rtb-…`.
    pub id: String,
    /// Terraform address, or the VPC's for its main table.
    pub address: String,
    /// Routes beside the VPC's own.
    pub routes: Vec<Route>,
}

/// One route that leads out of the VPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Terraform address of the resource it stands in.
    pub address: String,
    /// Where to.
    pub destination: Ipv4Net,
    /// Which way.
    pub exit: Exit,
}

/// How a route leaves the VPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// The internet gateway.
    Internet,
    /// A NAT gateway, by its id.
    Nat(String),
}

/// All route tables, the VPC's main table last.
///
/// # Errors
/// [`TopologyError`] naming the route that cannot be built.
pub fn read_tables(state: &State, vpc: &Resource) -> Result<Vec<RouteTable>, TopologyError> {
    let mut tables = Vec::new();
    for resource in state.of_type("aws_route_table") {
        tables.push(RouteTable {
            id: resource.text("id")?.to_owned(),
            address: resource.address.clone(),
            routes: Vec::new(),
        });
    }
    tables.push(RouteTable {
        id: vpc.text("main_route_table_id")?.to_owned(),
        address: format!("{} (main route table)", vpc.address),
        routes: Vec::new(),
    });
    for resource in state.of_type("aws_route") {
        let id = resource.text("route_table_id")?;
        let destination = resource.parsed("destination_cidr_block", "an IPv4 CIDR block")?;
        let exit = exit(
            &resource.address,
            resource.optional_text("gateway_id"),
            resource.optional_text("nat_gateway_id"),
        )?;
        let table = tables
            .iter_mut()
            .find(|table| table.id == id)
            .ok_or_else(|| TopologyError::Dangling {
                address: resource.address.clone(),
                reason: format!("its route table {id} is not in the state"),
            })?;
        table.routes.push(Route {
            address: resource.address.clone(),
            destination,
            exit,
        });
    }
    // Inline routes. A refreshed table also lists the separate ones here: those are known by now.
    for (resource, table) in state.of_type("aws_route_table").zip(&mut tables) {
        for block in resource.blocks("route") {
            let Some(Ok(destination)) = block.optional_text("cidr_block").map(str::parse) else {
                continue;
            };
            let exit = exit(
                &resource.address,
                block.optional_text("gateway_id"),
                block.optional_text("nat_gateway_id"),
            )?;
            if !table
                .routes
                .iter()
                .any(|route| route.destination == destination)
            {
                table.routes.push(Route {
                    address: resource.address.clone(),
                    destination,
                    exit,
                });
            }
        }
    }
    Ok(tables)
}

fn exit(address: &str, gateway: Option<&str>, nat: Option<&str>) -> Result<Exit, TopologyError> {
    match (gateway, nat) {
        (_, Some(id)) => Ok(Exit::Nat(id.to_owned())),
        (Some(id), None) if id.starts_with("igw-") => Ok(Exit::Internet),
        _ => Err(TopologyError::Dangling {
            address: address.to_owned(),
            reason: "a route leads neither to an internet gateway nor to a NAT gateway; the rehearsal knows no other \
                     exit"
                .to_owned(),
        }),
    }
}

/// All subnets; one without an association of its own uses the main table, the last of `tables`.
///
/// # Errors
/// [`TopologyError`] naming the subnet or its association.
pub fn read_subnets(state: &State, tables: &[RouteTable]) -> Result<Vec<Subnet>, TopologyError> {
    let main = tables.len() - 1;
    let mut subnets = Vec::new();
    for resource in state.of_type("aws_subnet") {
        let id = resource.text("id")?;
        let association = state
            .of_type("aws_route_table_association")
            .find(|a| a.optional_text("subnet_id") == Some(id));
        let table = match association {
            None => main,
            Some(association) => {
                let table_id = association.text("route_table_id")?;
                tables
                    .iter()
                    .position(|table| table.id == table_id)
                    .ok_or_else(|| TopologyError::Dangling {
                        address: association.address.clone(),
                        reason: format!("its route table {table_id} is not in the state"),
                    })?
            }
        };
        subnets.push(Subnet {
            id: id.to_owned(),
            address: resource.address.clone(),
            block: resource.parsed("cidr_block", "an IPv4 CIDR block")?,
            zone: resource.text("availability_zone")?.to_owned(),
            table,
        });
    }
    Ok(subnets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(private: &str, more: &str) -> (Vec<RouteTable>, Vec<Subnet>) {
        let state = format!(
            r#"{{"version":4,"resources":[
              {{"mode":"managed","type":"aws_vpc","name":"main","instances":[{{"attributes":{{"main_route_table_id":"rtb-main"}}}}]}},
              {{"mode":"managed","type":"aws_route_table","name":"private","instances":[{{"attributes":{{"id":"rtb-1","route":{private}}}}}]}},
              {{"mode":"managed","type":"aws_subnet","name":"main","instances":[
                {{"index_key":"a","attributes":{{"id":"subnet-a","cidr_block":"10.0.1.0/24","availability_zone":"x-1a"}}}},
                {{"index_key":"b","attributes":{{"id":"subnet-b","cidr_block":"10.0.2.0/24","availability_zone":"x-1b"}}}}]}},
              {{"mode":"managed","type":"aws_route_table_association","name":"main","instances":[
                {{"attributes":{{"subnet_id":"subnet-a","route_table_id":"rtb-1"}}}}]}}{more}]}}"#
        );
        let state = State::parse(&state).unwrap();
        let tables = read_tables(&state, state.first("aws_vpc").unwrap()).unwrap();
        let subnets = read_subnets(&state, &tables).unwrap();
        (tables, subnets)
    }

    const SEPARATE: &str = r#",{"mode":"managed","type":"aws_route","name":"nat","instances":[{"attributes":
        {"route_table_id":"rtb-1","destination_cidr_block":"0.0.0.0/0","nat_gateway_id":"nat-1","gateway_id":""}}]}"#;
    const INLINE: &str = r#"[{"cidr_block":"0.0.0.0/0","nat_gateway_id":"nat-1","gateway_id":""}]"#;

    #[test]
    fn a_subnet_without_an_association_uses_the_main_table_and_has_no_way_out() {
        let (tables, subnets) = read("[]", SEPARATE);
        assert_eq!(tables[subnets[0].table].id, "rtb-1");
        assert_eq!(tables[subnets[1].table].id, "rtb-main");
        assert_eq!(tables[subnets[1].table].routes, []);
        assert_eq!(subnets[0].gateway(), Ipv4Addr::new(10, 0, 1, 1));
    }

    #[test]
    fn a_refreshed_table_that_lists_its_separate_route_too_is_not_taken_for_inline() {
        let (tables, _) = read(INLINE, SEPARATE);
        let addresses: Vec<&str> = tables[0]
            .routes
            .iter()
            .map(|route| route.address.as_str())
            .collect();
        assert_eq!(addresses, ["aws_route.nat"]);
    }

    #[test]
    fn an_inline_route_carries_the_tables_address() {
        let (tables, _) = read(INLINE, "");
        assert_eq!(tables[0].routes[0].address, "aws_route_table.private");
        assert_eq!(tables[0].routes[0].exit, Exit::Nat("nat-1".to_owned()));
    }
}
