//! Proves `flows.json` both ways on the running network: every listed flow connects, and every other pair of hosts
//! and service ports does not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;

use super::emulator::Emulator;
use super::network::{INTERNET, OPERATOR, STRANGER, STRAY, Stray};
use super::probe::{self, Answer, Attempt};
use super::report::Current;
use super::security_groups::{Rule, Traffic};
use super::stand_ins::StandIns;
use super::topology::{Host, Topology};
use crate::flows::{End, Flow};

/// Somewhere connections are tried from.
struct Origin<'a> {
    label: String,
    namespace: &'a str,
    source: Option<Ipv4Addr>,
    end: Option<End>,
}

/// One connection of the matrix.
struct Trial<'a> {
    origin: usize,
    to: String,
    host: Option<&'a Host>,
    target: SocketAddr,
    /// The flow that lists it.
    flow: Option<&'a Flow>,
}

/// What was seen of one flow.
#[derive(Default)]
struct Seen {
    tried: usize,
    broken: Vec<String>,
}

/// Tries the whole matrix. The stray machine, which belongs to no security group and may send anything, takes part on
/// both sides: as a sender it tests each host's incoming rules alone, as a receiver the outgoing ones. A flow whose need
/// is not met has to be closed like everything that is not listed.
///
/// # Errors
/// If a namespace cannot be entered.
pub fn prove(
    step: &mut Current<'_>,
    topology: &Topology,
    stray: &Stray,
    flows: &[Flow],
    stand_ins: &StandIns,
) -> Result<()> {
    let origins = origins(topology);
    let trials = trials(&origins, topology, stray, flows);
    let answers = run(&origins, &trials)?;
    let mut others = 0;
    // Flows are TCP, and only that is tried.
    let mut leaks: Vec<String> = rules(topology)
        .filter(|rule| matches!(rule.traffic, Traffic::Udp(..)))
        .map(|rule| format!("{} lets UDP through", rule.address))
        .collect();
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    for (trial, answer) in trials.iter().zip(answers) {
        let from = &origins[trial.origin];
        let what = format!("{} → {} ({})", from.label, trial.to, trial.target);
        if let Some(flow) = trial.flow {
            let seen = seen.entry(flow.to_string()).or_default();
            seen.tried += 1;
            let wanted = if topology.has_what_it_needs(flow) {
                Answer::Connected
            } else {
                Answer::Dropped
            };
            if answer != wanted {
                let why = match wanted {
                    Answer::Dropped => culprit(topology, from, trial, stray),
                    _ => String::new(),
                };
                seen.broken.push(format!("{what} is {answer}{why}"));
            }
        } else if answer == Answer::Dropped {
            others += 1;
        } else {
            leaks.push(format!(
                "{what} is {answer}{}",
                culprit(topology, from, trial, stray)
            ));
        }
    }
    for flow in flows {
        let closed_without = flow.needs.filter(|_| !topology.has_what_it_needs(flow));
        let (claim, outcome) = match closed_without {
            None => (flow.to_string(), "connects"),
            Some(need) => (format!("{flow} is closed without a {need}"), "is dropped"),
        };
        let Seen { tried, broken } = seen.remove(&flow.to_string()).unwrap_or_default();
        if tried == 0 {
            step.prove(
                claim,
                false,
                "was not tried: no host stands for one of its ends",
            );
        } else if broken.is_empty() {
            let stand_in = stand_ins.note(flow);
            step.prove(claim, true, format!("{outcome}; tried {tried}×{stand_in}"));
        } else {
            step.prove(claim, false, broken.join(", "));
        }
    }
    let detail = if leaks.is_empty() {
        format!("{others} other connections are dropped")
    } else {
        leaks.join("; ")
    };
    step.prove(
        "nothing but flows.json gets through",
        leaks.is_empty() && others > 0,
        detail,
    );
    Ok(())
}

fn origins(topology: &Topology) -> Vec<Origin<'_>> {
    let outside = [
        ("admins", OPERATOR, End::Admins),
        ("internet", STRANGER, End::Internet),
    ]
    .map(|(label, source, end)| Origin {
        label: label.to_owned(),
        namespace: INTERNET,
        source: Some(source),
        end: Some(end),
    });
    let hosts = topology
        .hosts
        .iter()
        .filter(|host| host.end.is_some())
        .map(|host| Origin {
            label: host.name.clone(),
            namespace: &host.name,
            source: None,
            end: host.end,
        });
    let stray = Origin {
        label: "an unlisted machine in the VPC".to_owned(),
        namespace: STRAY,
        source: None,
        end: None,
    };
    outside.into_iter().chain(hosts).chain([stray]).collect()
}

/// All rules of all groups.
fn rules(topology: &Topology) -> impl Iterator<Item = &Rule> {
    topology
        .groups
        .iter()
        .flat_map(|group| group.ingress.iter().chain(&group.egress))
}

/// The ports to try: those of the flows, and those that a rule names, so that a rule which no flow asks for is noticed.
fn ports(flows: &[Flow], topology: &Topology) -> BTreeSet<u16> {
    let named = rules(topology).filter_map(|rule| rule.traffic.tcp_ports());
    flows
        .iter()
        .map(|flow| flow.port)
        .chain(named.flatten().filter(|&port| port > 0))
        .collect()
}

fn trials<'a>(
    origins: &[Origin<'_>],
    topology: &'a Topology,
    stray: &Stray,
    flows: &'a [Flow],
) -> Vec<Trial<'a>> {
    let ports = ports(flows, topology);
    // Where every instance may connect to, for the AWS API: the one way out that is no flow.
    let outward = Emulator::address().port();
    let mut trials = Vec::new();
    for (origin, from) in origins.iter().enumerate() {
        let is_outside = from.end.is_some_and(End::is_outside);
        for &port in &ports {
            // Flows from the internet are open to everybody who may send there, and nothing holds the stray machine back.
            let is_anybody = is_outside
                || from.end.is_none()
                || (port == outward && from.end != Some(End::LoadBalancer));
            for host in topology
                .hosts
                .iter()
                .filter(|host| host.name != from.namespace)
            {
                let Some(to) = host.end else { continue };
                let flow = flows.iter().find(|flow| {
                    let from_fits =
                        Some(flow.from) == from.end || (flow.from == End::Internet && is_anybody);
                    from_fits && flow.to == to && flow.port == port
                });
                // From outside only public addresses lead anywhere, from inside only private ones.
                let mut add = |address: Ipv4Addr, is_way: bool| {
                    trials.push(Trial {
                        origin,
                        to: format!("{}:{port}", host.name),
                        host: Some(host),
                        target: SocketAddr::from((address, port)),
                        flow: flow.filter(|_| is_way),
                    });
                };
                add(host.address, !is_outside);
                if let Some(public) = host.public.filter(|_| is_outside) {
                    add(public, true);
                }
            }
            if from.namespace != STRAY && !is_outside && port != outward {
                trials.push(Trial {
                    origin,
                    to: format!("an unlisted machine in the VPC:{port}"),
                    host: None,
                    target: SocketAddr::from((stray.address, port)),
                    flow: None,
                });
            }
        }
    }
    trials
}

/// All trials at once, one thread per namespace and one below it per connection; answers in the trials' order.
fn run(origins: &[Origin<'_>], trials: &[Trial<'_>]) -> Result<Vec<Answer>> {
    let mut answers = vec![Answer::Unreachable; trials.len()];
    let per_origin: Vec<Result<Vec<(usize, Answer)>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = origins
            .iter()
            .enumerate()
            .map(|(number, origin)| {
                scope.spawn(move || {
                    let mine: Vec<usize> = (0..trials.len())
                        .filter(|&i| trials[i].origin == number)
                        .collect();
                    let attempts: Vec<Attempt> = mine
                        .iter()
                        .map(|&i| Attempt {
                            source: origin.source,
                            target: trials[i].target,
                        })
                        .collect();
                    let answers = probe::connect_all(origin.namespace, &attempts)?;
                    Ok(mine.into_iter().zip(answers).collect())
                })
            })
            .collect();
        probe::join(threads)
    });
    for result in per_origin {
        for (index, answer) in result? {
            answers[index] = answer;
        }
    }
    Ok(answers)
}

/// The rule that let a connection in, for the error text.
fn culprit(topology: &Topology, from: &Origin<'_>, trial: &Trial<'_>, stray: &Stray) -> String {
    let sender = topology
        .hosts
        .iter()
        .find(|host| host.name == from.namespace)
        .map(|host| host.address);
    let (Some(source), Some(host)) = (from.source.or(sender).or(Some(stray.address)), trial.host)
    else {
        return String::new();
    };
    let port = trial.target.port();
    let members =
        |group: &str, address: Ipv4Addr| topology.members(group).any(|member| member == address);
    let groups = topology
        .groups
        .iter()
        .filter(|group| host.groups.contains(&group.id));
    let rules: Vec<&str> = groups
        .filter_map(|group| group.admits(source, port, members))
        .map(|rule| rule.address.as_str())
        .collect();
    if rules.is_empty() {
        String::new()
    } else {
        format!(", let in by {}", rules.join(", "))
    }
}
