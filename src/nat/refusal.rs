//! Why nothing was done: every refusal names what stands in the way and the command that settles it.

use std::collections::BTreeMap;

use serde_json::Value;
use time::OffsetDateTime;

use super::position::instant_text;
use super::window::{RESOURCES, Window};
use crate::terraform::{Deployment, PlannedChange};

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A gateway in the VPC that is not the window's.
    #[error(
        "the NAT gateway {gateway} stands in this VPC but is not the window's: it is never touched, and as long as it stands the window is neither opened nor closed; `aws ec2 delete-nat-gateway --nat-gateway-id {gateway}` removes it"
    )]
    ForeignGateway {
        /// `nat-…`
        gateway: String,
    },
    /// The plan is about more than the window.
    #[error(
        "the plan would change more than the window: {}; settle that first (`terraform plan` shows it){}, nothing was changed",
        list(changes),
        if *is_closing { ", or `drawbridge nat close --leave-rest` closes the window and leaves the rest as it is" } else { "" }
    )]
    PlanWantsMore {
        /// What else it wants.
        changes: Vec<PlannedChange>,
        /// Whether the window was to be closed.
        is_closing: bool,
    },
    /// The configuration is about another deployment than the state.
    #[error(
        "the state is about the deployment whose {variable} is `{applied}`, but the configuration says `{planned}`: set {variable} back (terraform.tfvars, TF_VAR_{variable}), or keep another deployment in a folder of its own; nothing was changed"
    )]
    OtherDeployment {
        /// `name` or `region`
        variable: &'static str,
        /// The state's.
        applied: String,
        /// The configuration's.
        planned: String,
    },
    /// There is a window already.
    #[error(
        "the window is open already: {gateway}{}, {}; `drawbridge nat close` ends it",
        since.map(|since| format!(" since {}", instant_text(since))).unwrap_or_default(),
        deadline.map_or_else(|| "without a known deadline".to_owned(), |at| format!("AWS deletes it at {}", instant_text(at)))
    )]
    IsOpen {
        /// `nat-…`
        gateway: String,
        /// When it was made.
        since: Option<OffsetDateTime>,
        /// When AWS deletes it.
        deadline: Option<OffsetDateTime>,
    },
    /// Something of the last window is left.
    #[error("the last window is {window}: `drawbridge nat close` clears it, then open again")]
    NotClear {
        /// What it is.
        window: Window,
    },
}

/// Sees that a plan deletes the window's resources and does nothing else.
///
/// # Errors
/// [`Refusal::PlanWantsMore`] with everything else it wants.
pub fn judge_closing(changes: &[PlannedChange]) -> Result<(), Refusal> {
    judge(changes, true, |change| change.action == "delete")
}

/// Sees that a plan makes the window and does nothing else. Nothing of it stands, so what is not made anew was forgotten
/// half-way by somebody, and may go.
///
/// # Errors
/// [`Refusal::PlanWantsMore`] with everything else it wants.
pub fn judge_opening(changes: &[PlannedChange]) -> Result<(), Refusal> {
    let known = ["create", "update", "replace", "delete"];
    judge(changes, false, |change| {
        known.contains(&change.action.as_str())
    })
}

fn judge(
    changes: &[PlannedChange],
    is_closing: bool,
    may: impl Fn(&PlannedChange) -> bool,
) -> Result<(), Refusal> {
    let is_window =
        |change: &PlannedChange| may(change) && RESOURCES.contains(&change.address.as_str());
    let others: Vec<_> = changes
        .iter()
        .filter(|change| !is_window(change))
        .cloned()
        .collect();
    if others.is_empty() {
        Ok(())
    } else {
        Err(Refusal::PlanWantsMore {
            changes: others,
            is_closing,
        })
    }
}

/// Whether the plan was made for another deployment: then its changes are a consequence, and this is the reason.
#[must_use]
pub fn other_deployment(
    deployment: &Deployment,
    variables: &BTreeMap<String, Value>,
) -> Option<Refusal> {
    let applied = [("region", &deployment.region), ("name", &deployment.name)];
    applied.into_iter().find_map(|(variable, applied)| {
        let planned = variables.get(variable)?.as_str()?;
        (planned != applied).then(|| Refusal::OtherDeployment {
            variable,
            applied: applied.clone(),
            planned: planned.to_owned(),
        })
    })
}

/// More than this many changes on one line help nobody; `terraform plan` shows all.
const SHOWN: usize = 8;

fn list(changes: &[PlannedChange]) -> String {
    let mut shown: Vec<_> = changes
        .iter()
        .take(SHOWN)
        .map(|change| format!("{} {}", change.action, change.address))
        .collect();
    if changes.len() > SHOWN {
        shown.push(format!("and {} more", changes.len() - SHOWN));
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::terraform::tests::{change, sample};

    fn window(action: &str) -> Vec<PlannedChange> {
        let changes = RESOURCES.iter().map(|address| change(address, action));
        changes.collect()
    }

    #[test]
    fn closing_may_delete_the_window_and_nothing_else() {
        let window = window("delete");
        assert_eq!(judge_closing(&window), Ok(()));
        assert_eq!(judge_closing(&[]), Ok(()));
        for other in [
            change("aws_eip.bastion", "delete"),
            change("aws_nat_gateway.main[0]", "replace"),
            change("aws_instance.backend", "replace"),
            change("aws_route.public_internet", "delete"),
            change("module.x.aws_eip.nat[0]", "delete"),
        ] {
            let refusal = judge_closing(&[window[0].clone(), other.clone()]).unwrap_err();
            let text = refusal.to_string();
            assert!(
                text.contains(&format!("{} {}", other.action, other.address)),
                "{text}"
            );
            assert!(!text.contains(RESOURCES[0]), "{text}");
        }
    }

    #[test]
    fn opening_may_touch_the_window_and_nothing_else() {
        for action in ["create", "replace", "update", "delete"] {
            assert_eq!(judge_opening(&window(action)), Ok(()), "{action}");
            let other = change("aws_instance.backend", action);
            assert!(judge_opening(&[other]).is_err(), "{action}");
        }
        assert!(judge_opening(&window("import")).is_err());
    }

    #[test]
    fn a_long_list_is_cut() {
        let many: Vec<_> = (0..60)
            .map(|number| change(&format!("aws_x.y{number}"), "create"))
            .collect();
        let text = judge_closing(&many).unwrap_err().to_string();
        assert!(text.contains("create aws_x.y7, and 52 more;"), "{text}");
    }

    #[test]
    fn another_name_or_region_is_the_reason() {
        let read = |variables: Value| {
            other_deployment(&sample(), &serde_json::from_value(variables).unwrap())
        };
        assert_eq!(
            read(json!({"name": "drawbridge", "region": "ap-south-1"})),
            None
        );
        assert_eq!(read(json!({})), None);
        let text = read(json!({"name": "shop", "region": "ap-south-1"})).unwrap();
        let text = text.to_string();
        assert!(
            text.contains("name is `drawbridge`") && text.contains("says `shop`"),
            "{text}"
        );
        assert!(read(json!({"region": "us-east-1"})).is_some());
    }
}
