//! Changes that somebody has seen and agreed to, made while the window is open.

use tokio::time::Instant;

use super::child::Ended;
use super::window::RESOURCES;
use crate::error_chain::chain;
use crate::exit::Exit;
use crate::progress::Progress;
use crate::terraform::{Plan, PlannedChange, Terraform, TerraformError};

/// What was agreed to. The plan itself is of no use any more: opening the window has changed the state.
#[derive(Clone, Debug, Default)]
pub struct Agreed {
    /// What the plan wanted beside the window.
    pub changes: Vec<PlannedChange>,
    /// Terraform addresses that were to be made anew whether they need it or not.
    pub replace: Vec<String>,
}

impl Agreed {
    /// What of this plan was not agreed to.
    #[must_use]
    pub fn beyond<'a>(&self, planned: &'a [PlannedChange]) -> Vec<&'a PlannedChange> {
        let is_news = |change: &&PlannedChange| {
            !RESOURCES.contains(&change.address.as_str()) && !self.changes.contains(change)
        };
        planned.iter().filter(is_news).collect()
    }

    /// Plans once more and applies, if that is what was agreed to; at `end` terraform is asked to stop.
    pub(super) async fn apply(
        &self,
        terraform: &Terraform,
        end: Instant,
        progress: &Progress,
    ) -> Ended {
        if self.changes.is_empty() {
            return Ended {
                status: Exit::Done as u8,
                said: None,
            };
        }
        progress.begin("open; planning once more");
        let applied = match self.plan(terraform).await {
            Ok(Ok(plan)) => {
                progress.begin("applying");
                let left = end.saturating_duration_since(Instant::now());
                terraform.clone().with_apply_limit(left).apply(&plan).await
            }
            Ok(Err(said)) => {
                let status = Exit::Failed as u8;
                let said = Some(said);
                return Ended { status, said };
            }
            Err(error) => Err(error),
        };
        match applied {
            Ok(()) => Ended {
                status: Exit::Done as u8,
                said: None,
            },
            Err(error) => Ended {
                status: match error {
                    TerraformError::Interrupted { .. } => Exit::Interrupted,
                    _ => Exit::Failed,
                } as u8,
                said: Some(chain(&error)),
            },
        }
    }

    async fn plan(&self, terraform: &Terraform) -> Result<Result<Plan, String>, TerraformError> {
        let replace: Vec<_> = self.replace.iter().map(String::as_str).collect();
        let plan = terraform.plan_replacing(&[], &replace).await?;
        let beyond = self.beyond(&plan.changes);
        if beyond.is_empty() {
            return Ok(Ok(plan));
        }
        let beyond = beyond
            .iter()
            .map(|change| format!("{} {}", change.action, change.address));
        Ok(Err(format!(
            "somebody has changed something meanwhile, and the plan wants what nobody agreed to ({}): it was not applied; run this again to see it",
            beyond.collect::<Vec<_>>().join(", ")
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terraform::tests::change;

    #[test]
    fn only_what_was_agreed_to_and_the_window_may_change() {
        let agreed = Agreed {
            changes: vec![
                change("aws_instance.backend", "replace"),
                change("aws_lb_listener.http", "update"),
            ],
            replace: Vec::new(),
        };
        let fewer = [
            change("aws_instance.backend", "replace"),
            change(RESOURCES[0], "update"),
        ];
        assert_eq!(agreed.beyond(&fewer), Vec::<&PlannedChange>::new());
        for other in [
            change("aws_instance.database", "replace"),
            change("aws_lb_listener.http", "delete"),
        ] {
            assert_eq!(agreed.beyond(std::slice::from_ref(&other)), [&other]);
        }
    }
}
