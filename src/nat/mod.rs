//! The NAT window: what is seen, what follows from it, and how it is opened, closed and proven closed.
//!
//! [`window`], [`refusal`] and [`finding`] decide and touch nothing; [`open`], [`close`] and [`status`] look, act and look
//! again.

pub mod agreed;
mod child;
pub mod close;
pub mod cost;
pub mod door;
pub mod error;
pub mod finding;
pub mod finish;
pub mod gate;
pub(crate) mod look;
pub mod open;
pub mod position;
pub mod proof;
pub mod refusal;
pub mod report;
pub mod status;
pub mod window;

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::interrupt::Interrupt;

/// Asks `look` every `every` until it answers `Ok`, for at most `limit`.
///
/// # Errors
/// The last thing seen, with why waiting ended.
pub(crate) async fn until<Look, Answer, Seen>(
    limit: Duration,
    every: Duration,
    interrupt: &Interrupt,
    mut look: Look,
) -> Result<Seen, String>
where
    Look: FnMut() -> Answer,
    Answer: Future<Output = Result<Seen, String>>,
{
    let end = Instant::now() + limit;
    loop {
        let seen = match look().await {
            Ok(seen) => return Ok(seen),
            Err(seen) => seen,
        };
        if Instant::now() + every > end {
            return Err(format!("{seen} (waited {} s)", limit.as_secs()));
        }
        tokio::select! {
            () = sleep(every) => {}
            () = interrupt.requested() => return Err(format!("{seen} (interrupted)")),
        }
    }
}
