//! The close at the end of an opening, whatever has become of what the window was opened for.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::close::{self, VARIABLE, close};
use super::error::NatError;
use super::gate::Gating;
use super::position::Position;
use super::refusal::judge_closing;
use super::report::{Outcome, Report};
use super::window::{InState, RESOURCES};
use crate::error_chain::chain;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::terraform::state::State;
use crate::terraform::{Terraform, TerraformError};

/// How often a close is tried that could not even begin, or did not finish: a network or an API may be back a little later.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(10);

/// A terraform that was started in the window may outlive whoever started it and hold the state's lock: each attempt waits
/// this long for it. Terraform's own limit for a plan, 5 min, leaves room for the plan itself.
const LOCK_WAIT: Duration = Duration::from_secs(180);

/// Closes. Hosts that were made in the window get until `end` for their bootstrap; a signal from now on ends that waiting,
/// and one more the close.
///
/// # Errors
/// [`NatError`] of the last attempt.
pub async fn close_in_any_case(
    terraform: &Terraform,
    how: &close::Options,
    end: Instant,
    progress: &Progress,
    interrupt: &Interrupt,
) -> Result<Report, NatError> {
    let terraform = terraform.clone().with_progress(progress.clone());
    let terraform = terraform.with_lock_wait(LOCK_WAIT);
    let mut attempt = 1;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let options = close::Options {
            gating: Gating::WaitThenClose(left),
            // What was cut off leaves more to do than the window; that is no reason to let it stand.
            leave_rest: true,
            ..how.clone()
        };
        let closed = close(&terraform, &options, progress, interrupt).await;
        let problem = match &closed {
            Ok(report) if report.outcome == Outcome::Refused => {
                report.refusal.clone().unwrap_or_default()
            }
            Ok(_) => return closed,
            // No pause makes a deployment of what is none.
            Err(NatError::Terraform(TerraformError::NotApplied { .. })) => return closed,
            Err(error) => chain(error),
        };
        // The first signal ends a wait only, this one as well.
        if attempt == ATTEMPTS || interrupt.count() > 1 {
            return closed;
        }
        progress.say(&format!("not closed yet, trying again: {problem}"));
        tokio::select! {
            () = sleep(PAUSE) => {}
            () = interrupt.more_than(interrupt.count()) => {}
        }
        attempt += 1;
    }
}

/// Why what a first apply has left of a window still stands.
#[derive(Debug, thiserror::Error)]
pub enum ClearError {
    /// Terraform did not get to it.
    #[error(transparent)]
    Nat(#[from] NatError),
    /// It would change more than the window.
    #[error(transparent)]
    Refused(#[from] super::refusal::Refusal),
    /// It is still in the state.
    #[error(
        "the state still holds {0}: `drawbridge up` goes on, `scripts/destroy.sh` removes everything"
    )]
    Left(String),
}

impl From<TerraformError> for ClearError {
    fn from(error: TerraformError) -> Self {
        Self::Nat(error.into())
    }
}

/// Removes the window that a first apply has made and not come to its end with: there is no output to tell of a deployment,
/// so what is seen afterwards is the state alone.
///
/// # Errors
/// [`ClearError`]
pub async fn clear_unfinished(terraform: &Terraform) -> Result<(), ClearError> {
    let terraform = terraform.clone().with_lock_wait(LOCK_WAIT);
    let held = async || match terraform.state_pull().await {
        Ok(text) => Ok(InState::of(&State::parse(&text).map_err(NatError::from)?)),
        Err(TerraformError::NotApplied { .. }) => Ok(InState::default()),
        Err(error) => Err(ClearError::from(error)),
    };
    let close_position = || {
        Position::Closed
            .write(terraform.directory())
            .map_err(NatError::from)
    };
    if !held().await?.is_empty() {
        let off = [(VARIABLE, "false")];
        let plan = terraform.plan_only(&off, &RESOURCES).await?;
        judge_closing(&plan.changes)?;
        close_position()?;
        terraform.apply(&plan).await?;
    }
    close_position()?;
    let left = held().await?;
    let parts = [left.gateway, left.address, left.route, left.schedule];
    match parts.into_iter().flatten().next() {
        None => Ok(()),
        Some(part) => Err(ClearError::Left(part)),
    }
}
