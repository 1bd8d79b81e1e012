//! The one list of what may talk to what: `terraform/flows.json`.
//!
//! Terraform makes both sides' security-group rules from it, the NixOS firewalls read the same file, and the
//! rehearsal proves it both ways. This is its type on the Rust side.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::appliance::Role;

/// One end of a flow: a host of the topology, or a part of the outside world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The addresses in Terraform's `admin_cidrs`.
    Admins,
    /// Any address outside the VPC.
    Internet,
    /// Every node of the application load balancer.
    LoadBalancer,
    /// The bastion instance.
    Bastion,
    /// The backend instance.
    Backend,
    /// The database instance.
    Database,
}

impl End {
    /// Whether this end lies outside the VPC, where no security group of ours applies.
    pub fn is_outside(self) -> bool {
        matches!(self, End::Admins | End::Internet)
    }
}

impl From<Role> for End {
    fn from(role: Role) -> Self {
        match role {
            Role::Bastion => End::Bastion,
            Role::Backend => End::Backend,
            Role::Database => End::Database,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            End::Admins => "admins",
            End::Internet => "internet",
            End::LoadBalancer => "load_balancer",
            End::Bastion => "bastion",
            End::Backend => "backend",
            End::Database => "database",
        })
    }
}

/// What a flow depends on beside being listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// The load balancer has a certificate (Terraform's `certificate_arn`).
    Certificate,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Need::Certificate => "certificate",
        })
    }
}

/// `from` may open TCP connections to `to` on `port`; nothing else may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flow {
    /// Who connects.
    pub from: End,
    /// Who listens. Never outside the VPC.
    pub to: End,
    /// TCP port, 1 to 65535.
    pub port: u16,
    /// One clause for people: what the flow is for.
    pub why: String,
    /// Without what the flow does not exist. None: it always does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<Need>,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} → {}:{}", self.from, self.to, self.port)
    }
}

/// Why a flow table cannot be used. Nothing has been started when one of these is returned.
#[derive(Debug, thiserror::Error)]
pub enum FlowsError {
    /// The file cannot be read.
    #[error("cannot read the flow table {} (`git checkout -- terraform/flows.json` brings it back)", path.display())]
    Unreadable {
        /// Where it was looked for.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file is not a list of flows.
    #[error(
        "{}: {reason}. A flow is {{\"from\": …, \"to\": …, \"port\": 1-65535, \"why\": \"…\"}}, where from and to are one of \
         admins, internet, load_balancer, bastion, backend, database; \"needs\": \"certificate\" may be added",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, with line and column where the parser knows them.
        reason: String,
    },
}

/// Reads and checks a flow table.
///
/// # Errors
/// [`FlowsError`] for a file that is missing, is not JSON, names an unknown host, lists a flow twice, has a flow to
/// the outside, or uses port 0.
pub fn read(path: &Path) -> Result<Vec<Flow>, FlowsError> {
    let text = std::fs::read_to_string(path).map_err(|source| FlowsError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    parse(&text).map_err(|reason| FlowsError::Malformed {
        path: path.to_owned(),
        reason,
    })
}

fn parse(text: &str) -> Result<Vec<Flow>, String> {
    let flows: Vec<Flow> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if flows.is_empty() {
        return Err("the flow table is empty".to_owned());
    }
    for (index, flow) in flows.iter().enumerate() {
        if flow.port == 0 {
            return Err(format!("flow {index} ({flow}) uses port 0"));
        }
        if flow.to.is_outside() {
            return Err(format!("flow {index} ({flow}) leads out of the VPC"));
        }
        if flow.from == flow.to {
            return Err(format!("flow {index} ({flow}) leads from a host to itself"));
        }
        if flows[..index]
            .iter()
            .any(|f| (f.from, f.to, f.port) == (flow.from, flow.to, flow.port))
        {
            return Err(format!("flow {index} ({flow}) is listed twice"));
        }
    }
    Ok(flows)
}

/// The ports on which flows begin at `end`, each once, in rising order.
pub fn ports_from(flows: &[Flow], end: End) -> BTreeSet<u16> {
    flows
        .iter()
        .filter(|flow| flow.from == end)
        .map(|flow| flow.port)
        .collect()
}

/// The ports on which flows lead to `end`, each once, in rising order.
pub fn ports_to(flows: &[Flow], end: End) -> BTreeSet<u16> {
    flows
        .iter()
        .filter(|flow| flow.to == end)
        .map(|flow| flow.port)
        .collect()
}

/// Port of sshd on every host.
const SSH_PORT: u16 = 22;

/// The ports that `end` serves beside sshd's, each once, in rising order: what a private host's sshd forwards to.
pub fn ports_served(flows: &[Flow], end: End) -> BTreeSet<u16> {
    let mut ports = ports_to(flows, end);
    ports.remove(&SSH_PORT);
    ports
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A flow that needs nothing, for tests of other modules too.
    pub(crate) fn flow(from: End, to: End, port: u16) -> Flow {
        Flow {
            from,
            to,
            port,
            why: "x".to_owned(),
            needs: None,
        }
    }

    fn shipped() -> Vec<Flow> {
        read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("terraform/flows.json")).unwrap()
    }

    // Not all of them: whoever adds one has this table to edit and nothing else.
    #[test]
    fn the_shipped_table_holds_what_the_appliance_cannot_do_without() {
        let shown: Vec<String> = shipped().iter().map(ToString::to_string).collect();
        for flow in [
            "admins → bastion:22",
            "bastion → backend:22",
            "bastion → database:22",
            "backend → database:5432",
        ] {
            assert!(shown.iter().any(|shown| shown == flow), "{flow}: {shown:?}");
        }
    }

    #[test]
    fn the_readme_shows_the_shipped_table() {
        let heading = "| from | to | port | why |\n|---|---|---|---|\n";
        crate::readme::assert_shows(heading, &rows(&shipped()));
    }

    /// The rows of the README's table.
    fn rows(flows: &[Flow]) -> String {
        let row = |flow: &Flow| {
            let needs = flow
                .needs
                .map(|need| format!(" (with a {need})"))
                .unwrap_or_default();
            format!(
                "| {} | {} | {} | {}{needs} |\n",
                flow.from, flow.to, flow.port, flow.why
            )
        };
        flows.iter().map(row).collect()
    }

    #[test]
    fn a_row_says_what_its_flow_needs() {
        let text = r#"[{"from":"internet","to":"load_balancer","port":443,"why":"browsers, over TLS","needs":"certificate"}]"#;
        assert_eq!(
            rows(&parse(text).unwrap()),
            "| internet | load_balancer | 443 | browsers, over TLS (with a certificate) |\n"
        );
    }

    #[test]
    fn ports_are_those_of_flows_that_begin_or_end_there() {
        let flows = [
            flow(End::Bastion, End::Database, 5432),
            flow(End::Bastion, End::Backend, 22),
            flow(End::Bastion, End::Database, 22),
            flow(End::Backend, End::Database, 9187),
        ];
        assert_eq!(ports_from(&flows, End::Bastion), BTreeSet::from([22, 5432]));
        assert_eq!(ports_from(&flows, End::Database), BTreeSet::new());
        assert_eq!(
            ports_to(&flows, End::Database),
            BTreeSet::from([22, 5432, 9187])
        );
        assert_eq!(
            ports_served(&flows, End::Database),
            BTreeSet::from([5432, 9187])
        );
    }

    #[test]
    fn an_unknown_host_is_named_with_its_line() {
        let error = parse("[\n{\"from\":\"laptop\",\"to\":\"bastion\",\"port\":22,\"why\":\"x\"}]")
            .unwrap_err();
        assert!(
            error.contains("laptop") && error.contains("line 2"),
            "{error}"
        );
    }

    #[test]
    fn twice_port_zero_outward_and_empty_are_refused() {
        let flow = r#"{"from":"admins","to":"bastion","port":22,"why":"x"}"#;
        for (text, reason) in [
            (format!("[{flow},{flow}]"), "listed twice"),
            (flow.replace("22", "0").join_list(), "port 0"),
            (
                flow.replace("bastion", "internet").join_list(),
                "out of the VPC",
            ),
            ("[]".to_owned(), "empty"),
            (flow.replace("22", "70000").join_list(), "70000"),
            (flow.replace("why", "because").join_list(), "because"),
            (flow.replace('}', r#","needs":"luck"}"#).join_list(), "luck"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    trait JoinList {
        fn join_list(self) -> String;
    }
    impl JoinList for String {
        fn join_list(self) -> String {
            format!("[{self}]")
        }
    }
}
