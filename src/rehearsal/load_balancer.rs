//! The application load balancer as the state describes it, and as a configuration of haproxy, which plays it.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::state::{State, StateError};

/// The application load balancer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadBalancer {
    /// The name browsers use.
    pub dns_name: String,
    /// Seconds after which it closes an idle connection.
    pub idle_timeout: u32,
    /// Ports it listens on, each with the target group it forwards to.
    pub listeners: Vec<Listener>,
}

impl LoadBalancer {
    /// Whether a listener has one.
    pub fn has_certificate(&self) -> bool {
        false
    }
}

/// One port of the load balancer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// TCP port.
    pub port: u16,
    /// Where requests go.
    pub target_group: TargetGroup,
}

/// Where a listener forwards to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetGroup {
    /// Instance id and port of each target.
    pub targets: Vec<(String, u16)>,
    /// Path of the health check.
    pub health_path: String,
    /// HTTP statuses that count as healthy, as AWS and haproxy both write them: `200`, `200,202` or `200-299`.
    pub matcher: String,
    /// Seconds between checks.
    pub interval: u32,
    /// Seconds until a check counts as failed.
    pub timeout: u32,
    /// Checks in a row that make a target healthy.
    pub rise: u32,
    /// Failed checks in a row that make it unhealthy.
    pub fall: u32,
}

/// Reads the load balancer with its listeners and targets.
///
/// # Errors
/// [`StateError`] naming what is missing.
pub fn read(state: &State) -> Result<LoadBalancer, StateError> {
    let lb = state.first("aws_lb")?;
    let arn = lb.text("arn")?;
    let mut listeners = Vec::new();
    for listener in state
        .of_type("aws_lb_listener")
        .filter(|l| l.optional_text("load_balancer_arn") == Some(arn))
    {
        for action in listener.blocks("default_action") {
            // Redirects and fixed answers have no target.
            let Some(group_arn) = action.optional_text("target_group_arn") else {
                continue;
            };
            listeners.push(Listener {
                port: listener.number("port")?,
                target_group: target_group(state, group_arn)?,
            });
        }
    }
    if listeners.is_empty() {
        return Err(StateError::Missing(
            "aws_lb_listener that forwards to a target group",
        ));
    }
    Ok(LoadBalancer {
        dns_name: lb.text("dns_name")?.to_owned(),
        idle_timeout: lb.number("idle_timeout")?,
        listeners,
    })
}

fn target_group(state: &State, arn: &str) -> Result<TargetGroup, StateError> {
    let group = state
        .of_type("aws_lb_target_group")
        .find(|group| group.optional_text("arn") == Some(arn))
        .ok_or(StateError::Missing("aws_lb_target_group of the listener"))?;
    let mut targets = Vec::new();
    for attachment in state.of_type("aws_lb_target_group_attachment") {
        if attachment.optional_text("target_group_arn") == Some(arn) {
            let port = attachment
                .number("port")
                .or_else(|_| group.number("port"))?;
            targets.push((attachment.text("target_id")?.to_owned(), port));
        }
    }
    let checks = group.blocks("health_check");
    let check = checks
        .first()
        .ok_or(StateError::Missing("health_check of the target group"))?;
    Ok(TargetGroup {
        targets,
        health_path: check.optional_text("path").unwrap_or("/").to_owned(),
        matcher: check.optional_text("matcher").unwrap_or("200").to_owned(),
        interval: check.number("interval")?,
        timeout: check.number("timeout")?,
        rise: check.number("healthy_threshold")?,
        fall: check.number("unhealthy_threshold")?,
    })
}

/// haproxy's configuration for a node at `address`. `resolve` finds an instance's private address.
pub fn haproxy_config(
    balancer: &LoadBalancer,
    address: Ipv4Addr,
    resolve: impl Fn(&str) -> Option<Ipv4Addr>,
) -> String {
    let mut text = format!(
        "global\n  log stdout format raw local0 notice\n  maxconn 2000\ndefaults\n  mode http\n  log global\n  \
         option forwardfor\n  timeout connect 5s\n  timeout client {idle}s\n  timeout server {idle}s\n",
        idle = balancer.idle_timeout
    );
    for Listener {
        port,
        target_group: group,
    } in &balancer.listeners
    {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "frontend port{port}\n  bind {address}:{port}\n  default_backend targets{port}\n\
             backend targets{port}\n  option httpchk GET {path}\n  http-check expect status {status}\n  \
             timeout check {timeout}s\n",
            path = group.health_path,
            status = group.matcher,
            timeout = group.timeout,
        );
        for (id, target_port) in &group.targets {
            if let Some(target) = resolve(id) {
                let _ = writeln!(
                    text,
                    "  server {id} {target}:{target_port} check inter {}s rise {} fall {}",
                    group.interval, group.rise, group.fall
                );
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_checks_and_forwards_as_the_target_group_says() {
        let balancer = LoadBalancer {
            dns_name: "x.elb.amazonaws.com".to_owned(),
            idle_timeout: 60,
            listeners: vec![Listener {
                port: 80,
                target_group: TargetGroup {
                    targets: vec![("i-1".to_owned(), 8000), ("i-elsewhere".to_owned(), 8000)],
                    health_path: "/ready".to_owned(),
                    matcher: "200-299,404".to_owned(),
                    interval: 5,
                    timeout: 4,
                    rise: 2,
                    fall: 3,
                },
            }],
        };
        let config = haproxy_config(&balancer, Ipv4Addr::new(10, 0, 1, 254), |id| {
            (id == "i-1").then_some(Ipv4Addr::new(10, 0, 2, 4))
        });
        let beginning = config.find("frontend").unwrap();
        assert_eq!(
            &config[beginning..],
            "frontend port80\n  bind 10.0.1.254:80\n  default_backend targets80\n\
             backend targets80\n  option httpchk GET /ready\n  http-check expect status 200-299,404\n  \
             timeout check 4s\n  server i-1 10.0.2.4:8000 check inter 5s rise 2 fall 3\n"
        );
    }
}
