//! `drawbridge doctor`: what is wrong with the operator's machine and with the deployment, each with the command that
//! mends it. Looks and judgement are apart; those of the deployment are [`crate::status`]'s.

pub mod judge;
pub mod machine;
pub mod version;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ipnet::Ipv4Net;
use serde::Serialize;
use time::OffsetDateTime;

use self::judge::{Check, Outcome, Rules};
use self::machine::About;
use crate::appliance::status::Known;
use crate::appliance::{Role, SshPublicKey, UserData};
use crate::error_chain::chain;
use crate::exit::Exit;
use crate::nat::finding::Finding;
use crate::nat::position::Position;
use crate::status::inside::WayIn;
use crate::status::look::{LookError, Looked, Way, look};
use crate::status::{Unknown, judge as deployed};
use crate::terraform::state::State;
use crate::terraform::{Terraform, TerraformError};

/// What was found. `--json` prints this.
#[derive(Clone, Debug, Serialize)]
pub struct Doctor {
    /// Name of the deployment; null when nothing tells it.
    pub deployment: Option<String>,
    /// The checks in which nothing was found, with what was seen.
    pub fine: Vec<Fine>,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// No fault, but worth knowing.
    pub notes: Vec<Finding>,
    /// What could not be checked.
    pub unknown: Vec<Unknown>,
}

/// A check that found nothing.
#[derive(Clone, Debug, Serialize)]
pub struct Fine {
    /// Which one.
    pub check: &'static str,
    /// What was seen.
    pub seen: String,
}

/// Checks machine and deployment, changes nothing. `terraform` is why there is none, where there is none.
pub async fn doctor(
    terraform: Result<Terraform, TerraformError>,
    way: &Way,
    checkip: bool,
    limit: Duration,
) -> Doctor {
    let mut doctor = Doctor {
        deployment: None,
        fine: Vec::new(),
        findings: Vec::new(),
        notes: Vec::new(),
        unknown: Vec::new(),
    };
    let looked = match &terraform {
        Ok(terraform) => look(terraform, way, limit).await.map_err(|error| {
            let reason = chain(&error);
            (not_applied(&error), reason)
        }),
        Err(error) => Err((no_terraform(error), chain(error))),
    };
    let rules = match &looked {
        Ok(looked) => Rules::of(looked),
        Err((_, reason)) => Rules::unknown(reason),
    };
    let position = terraform.as_ref().ok();
    let rules = Rules {
        position: position.and_then(|one| Position::read(one.directory()).ok()),
        ..rules
    };
    let about = About {
        terraform: terraform.as_ref().ok(),
        deployment: looked.as_ref().ok().map(|looked| &looked.deployment),
        identity: &way.identity,
        checkip,
    };
    let machine = machine::look(&about).await;
    doctor.take(judge::checks(&machine, &rules, OffsetDateTime::now_utc()));
    match looked {
        Ok(looked) => doctor.deployed(&looked),
        Err((finding, reason)) => {
            doctor.findings.extend(finding);
            doctor.unknown.push(Unknown {
                part: "deployment".to_owned(),
                reason,
            });
        }
    }
    doctor
}

fn no_terraform(error: &TerraformError) -> Option<Finding> {
    let (finding, command) = match error {
        TerraformError::NotInstalled => ("no-terraform", "nix develop"),
        TerraformError::NoDirectory { .. } => (
            "no-terraform-folder",
            "drawbridge doctor --terraform-dir DIR",
        ),
        _ => return None,
    };
    Some(Finding {
        finding,
        means: error.to_string(),
        command: command.to_owned(),
    })
}

fn not_applied(error: &LookError) -> Option<Finding> {
    let LookError::Terraform(error) = error else {
        return None;
    };
    let (finding, command) = match error {
        TerraformError::NotApplied { .. } => ("not-applied", "terraform -chdir=terraform apply"),
        TerraformError::NotInitialised { .. } => {
            ("not-initialised", "terraform -chdir=terraform init")
        }
        _ => return None,
    };
    Some(Finding {
        finding,
        means: chain(error),
        command: command.to_owned(),
    })
}

impl Rules {
    fn unknown(reason: &str) -> Self {
        let unknown = || reason.to_owned();
        Self {
            account: Known::Unknown(unknown()),
            region: None,
            admin_keys: Known::Unknown(unknown()),
            admin_cidrs: Known::Unknown(unknown()),
            pins: Known::Unknown(unknown()),
            session_files: Known::Unknown(unknown()),
            way: WayIn::Unknown(unknown()),
            position: None,
        }
    }

    fn of(looked: &Looked) -> Self {
        let way = looked.ways.get(&Role::Bastion).cloned();
        Self {
            account: looked.account.clone(),
            region: Some(looked.deployment.region.clone()),
            admin_keys: admin_keys(&looked.state).into(),
            admin_cidrs: admin_cidrs(&looked.state).into(),
            pins: looked.pins.clone(),
            session_files: looked.session_files.clone(),
            way: way.unwrap_or_else(|| WayIn::Unknown("it was not tried".to_owned())),
            position: None,
        }
    }
}

/// Who may sign in, as it is applied: from the bastion's user data.
fn admin_keys(state: &State) -> Result<Vec<SshPublicKey>, String> {
    let mut instances = state.of_type("aws_instance");
    let bastion = instances.find(|instance| instance.address == "aws_instance.bastion");
    let bastion = bastion.ok_or("the state holds no bastion")?;
    let wrong = |problem: String| format!("the bastion's user data in the state: {problem}");
    let encoded = bastion
        .text("user_data_base64")
        .map_err(|error| chain(&error))?;
    let decoded = BASE64.decode(encoded);
    let decoded = decoded.map_err(|error| wrong(error.to_string()))?;
    let text = String::from_utf8(decoded).map_err(|error| wrong(error.to_string()))?;
    let data = UserData::parse(&text).map_err(|error| wrong(error.to_string()))?;
    Ok(data.admin_keys)
}

/// From where the bastion is reached, as it is applied: from its group's rules.
fn admin_cidrs(state: &State) -> Result<Vec<Ipv4Net>, String> {
    let rules = state.of_type("aws_vpc_security_group_ingress_rule");
    let of_admins = rules.filter(|rule| rule.address.contains(".from_outside[\"admins-"));
    let cidrs = of_admins.filter_map(|rule| rule.optional_text("cidr_ipv4")?.parse().ok());
    let cidrs: Vec<_> = cidrs.collect();
    if cidrs.is_empty() {
        return Err("the state holds no rule that lets administrators in".to_owned());
    }
    Ok(cidrs)
}

impl Doctor {
    fn take(&mut self, checks: Vec<Check>) {
        for (check, outcome) in checks {
            match outcome {
                Outcome::Fine(seen) => self.fine.push(Fine { check, seen }),
                Outcome::Found(finding) => self.findings.push(finding),
                Outcome::Note(note) => self.notes.push(note),
                Outcome::Unknown(reason) => self.unknown.push(Unknown {
                    part: check.to_owned(),
                    reason,
                }),
            }
        }
    }

    fn deployed(&mut self, looked: &Looked) {
        let status = &looked.status;
        self.deployment = Some(status.deployment.clone());
        if status.findings.is_empty() && status.unknown.is_empty() {
            self.fine.push(Fine {
                check: "deployment",
                seen: "instances, images, bootstrap, API, disks, memory, connections, units, clocks and window".to_owned(),
            });
        }
        self.findings.extend(status.findings.iter().cloned());
        self.notes.extend(deployed::notes(
            status,
            &looked.deployment.load_balancer.url,
        ));
        self.unknown.extend(status.unknown.iter().cloned());
    }

    /// How the command ends.
    #[must_use]
    pub fn exit(&self) -> Exit {
        Exit::of_look(!self.findings.is_empty(), !self.unknown.is_empty())
    }

    /// For people; the text of others in it is not escaped yet.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let listed = [("found", &self.findings), ("note", &self.notes)];
        for (word, findings) in listed {
            for finding in findings {
                lines.push(format!("{word:<9} {}: {}", finding.finding, finding.means));
                lines.push(format!("          {}", finding.command));
            }
        }
        for unknown in &self.unknown {
            lines.push(format!("unknown   {}: {}", unknown.part, unknown.reason));
        }
        for fine in &self.fine {
            lines.push(format!("fine      {}: {}", fine.check, fine.seen));
        }
        lines
    }
}
