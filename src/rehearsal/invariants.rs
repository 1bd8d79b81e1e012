//! What must be true of a topology before anything runs in it, read from the state alone.

use super::report::Current;
use super::routing::Exit;
use super::topology::Topology;
use crate::appliance::Role;

/// The instances that must not be reachable from, nor reach, the internet.
pub const PRIVATE: [Role; 2] = [Role::Backend, Role::Database];

/// What can be said of a topology before anything runs in it.
pub fn prove(step: &mut Current<'_>, topology: &Topology) {
    for role in PRIVATE {
        let Some((host, instance)) = topology.instance_host(role) else {
            step.prove(
                format!("{role} exists"),
                false,
                format!("the state holds no instance with the role {role}"),
            );
            continue;
        };
        step.prove(
            format!("{role} has no public address"),
            host.public.is_none(),
            host.public
                .map_or("only a private one".to_owned(), |public| {
                    format!("{} has {public}", instance.address)
                }),
        );
        let subnet = &topology.subnets[host.subnet];
        let table = &topology.tables[subnet.table];
        let way_out = table
            .routes
            .iter()
            .find(|route| route.exit == Exit::Internet);
        step.prove(
            format!("{role}'s subnet is private"),
            way_out.is_none(),
            match way_out {
                None => format!("{} has no route to the internet gateway", table.address),
                Some(route) => format!(
                    "{} is public: {} leads to the internet gateway",
                    subnet.address, route.address
                ),
            },
        );
        let nat = table
            .routes
            .iter()
            .find(|route| matches!(route.exit, Exit::Nat(_)));
        step.prove(
            format!("{role}'s way out is a route of its own"),
            nat.is_some_and(|route| route.address.starts_with("aws_route.")),
            match nat {
                None => format!("{} has no route to a NAT gateway", table.address),
                Some(route) if route.address.starts_with("aws_route.") => route.address.clone(),
                Some(route) => format!(
                    "the NAT route stands inline in {}, so closing the window would change the route table: make it a \
                     separate aws_route",
                    route.address
                ),
            },
        );
    }
    let open: Vec<&str> = topology
        .instances()
        .filter(|(_, i)| !i.tokens_required)
        .map(|(_, i)| i.address.as_str())
        .collect();
    step.prove(
        "instance metadata needs a session token (IMDSv2)",
        open.is_empty(),
        if open.is_empty() {
            "on every instance".to_owned()
        } else {
            format!("not on {}", open.join(", "))
        },
    );
}
