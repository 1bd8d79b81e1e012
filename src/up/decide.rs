//! What bringing a deployment up takes: decided from what was seen, without touching anything.

use crate::nat::gate::Waiting;
use crate::nat::position::{FILE, Position};
use crate::nat::window::Window;
use crate::terraform::PlannedChange;

/// Terraform address of the host that runs the API.
pub const BACKEND: &str = "aws_instance.backend";
/// Terraform address of the host that runs Postgres.
pub const DATABASE: &str = "aws_instance.database";

/// More than this many resources that are only made are counted, not listed.
const LISTED: usize = 20;

/// What is looked at before anything is planned.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Whether this is a CI job, whose disk goes with it.
    pub is_ci: bool,
    /// Terraform's backend: `local` keeps the state on this machine's disk.
    pub backend: String,
    /// The position file.
    pub position: Position,
    /// What the three places say of the window; `None` while no apply has come to its end.
    pub window: Option<Window>,
}

/// Why nothing is done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The next job would make everything once more.
    #[error(
        "the state is on this disk, which a CI job loses: keep it in a bucket (terraform/backend_override.tf, README 'Sharing the state') and run `terraform init`; nothing was changed"
    )]
    StateIsLost,
    /// What a job writes into the file is not committed, so what is committed has to be true before and after it.
    #[error(
        "{FILE} says open, and a CI job opens the window for itself: close what stands (`scripts/destroy-nat.sh`) and commit {{\"nat_gateway\": false}}; nothing was changed"
    )]
    PositionIsOpen,
    /// Without a terminal somebody has to have agreed before.
    #[error(
        "there is no terminal to ask on: look at the plan above, and run `drawbridge up --yes` to go on unasked; nothing of it was done"
    )]
    NobodyToAsk,
    /// Somebody said no.
    #[error("not agreed to, nothing of it was done: `drawbridge up` shows it again")]
    Declined,
}

/// How to plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// One apply with the window in it: nothing stands yet, or a window stands that is to be gone on in.
    Within,
    /// Clear what the last window has left, then [`Way::AsFiles`].
    ClearFirst,
    /// As the files say, with the window closed.
    AsFiles,
}

impl Seen {
    /// How to plan.
    ///
    /// # Errors
    /// [`Refusal::StateIsLost`], [`Refusal::PositionIsOpen`]
    pub fn way(&self) -> Result<Way, Refusal> {
        if self.is_ci && self.backend == "local" {
            return Err(Refusal::StateIsLost);
        }
        if self.is_ci && self.position.is_open() {
            return Err(Refusal::PositionIsOpen);
        }
        Ok(match &self.window {
            None | Some(Window::Open { .. }) => Way::Within,
            Some(Window::Closed) if !self.position.is_open() => Way::AsFiles,
            Some(_) => Way::ClearFirst,
        })
    }
}

/// What to do with a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Course {
    /// Everything is as it should be.
    Nothing,
    /// Apply it; no private host needs a way out for it.
    Apply,
    /// Open the window for it, wait for the private hosts, close.
    Lease {
        /// The private hosts that it makes.
        made: Vec<&'static str>,
    },
    /// Apply it with the window that is in it, wait for the private hosts, close.
    Within,
}

/// What to do with the plan of `changes` (`is_empty`: not even an output differs) that was made this way. `waiting` are
/// the private hosts that run and have not completed their bootstrap.
#[must_use]
pub fn course(way: Way, changes: &[PlannedChange], is_empty: bool, waiting: &[Waiting]) -> Course {
    if way == Way::Within {
        return Course::Within;
    }
    let made = made(changes);
    if !made.is_empty() || !waiting.is_empty() {
        return Course::Lease { made };
    }
    if is_empty {
        Course::Nothing
    } else {
        Course::Apply
    }
}

/// The private hosts that these changes make or make anew.
fn made(changes: &[PlannedChange]) -> Vec<&'static str> {
    let is_made = |host: &&'static str| {
        changes.iter().any(|change| {
            change.address == *host && ["create", "replace"].contains(&change.action.as_str())
        })
    };
    [BACKEND, DATABASE].into_iter().filter(is_made).collect()
}

/// What has to be made anew beside these changes: a database that is made anew makes a new password, and a backend that
/// has one already does not ask for another.
#[must_use]
pub fn also_replace(changes: &[PlannedChange]) -> Option<&'static str> {
    (made(changes) == [DATABASE]).then_some(BACKEND)
}

/// The plan for people: what is made anew, changed or removed one a line, then the sums.
#[must_use]
pub fn summary(changes: &[PlannedChange]) -> Vec<String> {
    let of = |action: &str| {
        changes
            .iter()
            .filter(|change| change.action == action)
            .count()
    };
    let mut lines: Vec<_> = changes
        .iter()
        .filter(|change| change.action != "create" || of("create") <= LISTED)
        .map(|change| format!("  {} {}", change.action, change.address))
        .collect();
    let known = ["create", "update", "replace", "delete"];
    let mut sums: Vec<_> = known
        .iter()
        .filter(|action| of(action) > 0)
        .map(|action| format!("{action} {}", of(action)))
        .collect();
    let others = changes.len() - known.iter().map(|action| of(action)).sum::<usize>();
    if others > 0 {
        sums.push(format!("in the state alone {others}"));
    }
    lines.push(if sums.is_empty() {
        "the plan changes no resource".to_owned()
    } else {
        format!("the plan: {}", sums.join(", "))
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::appliance::Role;
    use crate::terraform::tests::change;

    fn seen(position: Position, window: Option<Window>) -> Seen {
        Seen {
            is_ci: false,
            backend: "local".into(),
            position,
            window,
        }
    }

    fn leased() -> Position {
        Position::Leased {
            until: time::macros::datetime!(2026-11-20 12:40 UTC),
        }
    }

    fn open() -> Window {
        Window::Open {
            gateway: "nat-1".into(),
        }
    }

    #[test]
    fn a_ci_job_needs_a_shared_state_and_a_committed_closed_position() {
        for window in [None, Some(Window::Closed), Some(open())] {
            for position in [Position::Open, leased(), Position::Closed] {
                let mut seen = seen(position, window.clone());
                assert!(seen.way().is_ok(), "{seen:?}");
                seen.is_ci = true;
                assert_eq!(seen.way(), Err(Refusal::StateIsLost), "{seen:?}");
                seen.backend = "s3".into();
                let is_refused = seen.way() == Err(Refusal::PositionIsOpen);
                assert_eq!(is_refused, position.is_open(), "{seen:?}");
            }
        }
        let said = Refusal::PositionIsOpen.to_string();
        assert!(said.contains(r#"commit {"nat_gateway": false}"#), "{said}");
    }

    #[test]
    fn an_interrupted_run_is_gone_on_with_by_what_stands() {
        // Killed in the middle of the first apply: whatever it wrote, no output tells of a deployment.
        for position in [Position::Open, leased(), Position::Closed] {
            assert_eq!(seen(position, None).way(), Ok(Way::Within));
        }
        // Killed while the hosts boot, or by hand: the window stands.
        for position in [Position::Open, leased(), Position::Closed] {
            assert_eq!(seen(position, Some(open())).way(), Ok(Way::Within));
        }
        // Killed in the middle of the close, or too late.
        let gone = Window::Expired {
            gateway: "nat-1".into(),
        };
        let left = Window::Leftover {
            what: "eipalloc-1".into(),
        };
        for window in [gone, left] {
            for position in [Position::Open, leased(), Position::Closed] {
                let way = seen(position, Some(window.clone())).way();
                assert_eq!(way, Ok(Way::ClearFirst));
            }
        }
        // The file alone says open: an apply would build the gateway.
        let way = seen(leased(), Some(Window::Closed)).way();
        assert_eq!(way, Ok(Way::ClearFirst));
        let way = seen(Position::Closed, Some(Window::Closed)).way();
        assert_eq!(way, Ok(Way::AsFiles));
    }

    #[test]
    fn a_window_is_opened_for_private_hosts_that_need_it_and_for_nothing_else() {
        let plain = [
            change("aws_instance.bastion", "replace"),
            change("aws_lb_listener.http", "create"),
            change(BACKEND, "update"),
            change("module.x.aws_instance.backend", "create"),
        ];
        assert_eq!(course(Way::AsFiles, &plain, false, &[]), Course::Apply);
        assert_eq!(course(Way::AsFiles, &[], false, &[]), Course::Apply);
        assert_eq!(course(Way::AsFiles, &[], true, &[]), Course::Nothing);
        for (host, action) in [(BACKEND, "replace"), (DATABASE, "create")] {
            let course = course(Way::ClearFirst, &[change(host, action)], false, &[]);
            assert_eq!(course, Course::Lease { made: vec![host] });
        }
        // Cut off while it booted, with the window closed under it: there is nothing to apply, and it still needs a way out.
        let waiting = Waiting {
            host: Role::Backend,
            instance_id: "i-1".into(),
            step: None,
            reason: "has not reported yet".into(),
        };
        let lease = Course::Lease { made: vec![] };
        assert_eq!(course(Way::AsFiles, &[], true, &[waiting]), lease);
        assert_eq!(course(Way::Within, &[], true, &[]), Course::Within);
    }

    #[test]
    fn a_database_made_anew_takes_the_backend_along() {
        let database = change(DATABASE, "replace");
        let also = also_replace(std::slice::from_ref(&database));
        assert_eq!(also, Some(BACKEND));
        let both = [database, change(BACKEND, "create")];
        assert_eq!(also_replace(&both), None);
        assert_eq!(also_replace(&[change(BACKEND, "replace")]), None);
        assert_eq!(also_replace(&[change(DATABASE, "update")]), None);
    }

    #[test]
    fn what_goes_or_is_made_anew_is_always_listed() {
        let mut changes: Vec<_> = (0..60)
            .map(|number| change(&format!("aws_x.y{number}"), "create"))
            .collect();
        changes.push(change(DATABASE, "replace"));
        changes.push(change("aws_eip.nat[0]", "delete"));
        assert_eq!(
            summary(&changes),
            [
                "  replace aws_instance.database",
                "  delete aws_eip.nat[0]",
                "the plan: create 60, replace 1, delete 1"
            ]
        );
        assert_eq!(summary(&[]), ["the plan changes no resource"]);
        let few = summary(&[change("aws_x.y", "create"), change("aws_x.z", "import")]);
        assert_eq!(
            few,
            [
                "  create aws_x.y",
                "  import aws_x.z",
                "the plan: create 1, in the state alone 1"
            ]
        );
    }
}
