//! A session that was lost is made again: a limited number of times, more and more patiently, and only when trying again
//! can help.

use std::time::Duration;

use tokio::time::sleep;

use super::{Access, Session, SshError};
use crate::appliance::Role;

/// How often a look is taken at whether a session still stands. A peer that vanished without a word is noticed by the
/// session's own keepalive.
const LOOK: Duration = Duration::from_millis(250);

/// How long a lost session is tried for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Attempts to connect; at least one is made.
    pub attempts: u32,
    /// The pause after the first attempt that failed. It doubles from one to the next.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
}

impl Default for Patience {
    /// Four minutes of pauses: a bastion reboots in less than one, and a laptop finds another network.
    fn default() -> Self {
        Self {
            attempts: 20,
            first: Duration::from_millis(500),
            longest: Duration::from_secs(15),
        }
    }
}

impl Patience {
    /// The pause after attempt `number`, which counts from 0.
    fn pause(&self, number: u32) -> Duration {
        let factor = 2_u32.saturating_pow(number);
        self.first.saturating_mul(factor).min(self.longest)
    }
}

/// Connects to `host`, and again as long as that may help.
///
/// # Errors
/// The last [`SshError`]: the first one that does not pass by itself (a key, a refused login), or that of the last attempt.
pub async fn reconnect(
    access: &Access,
    host: Role,
    patience: Patience,
) -> Result<Session, SshError> {
    let mut number = 0;
    loop {
        match access.connect(host).await {
            Err(error) if error.is_passing() && number + 1 < patience.attempts => {
                sleep(patience.pause(number)).await;
                number += 1;
            }
            ended => return ended,
        }
    }
}

impl Session {
    /// Returns once the connection has ended, for whatever reason.
    pub async fn lost(&self) {
        while !self.handle.is_closed() {
            sleep(LOOK).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let patience = Patience {
            attempts: 9,
            first: Duration::from_millis(500),
            longest: Duration::from_secs(15),
        };
        let pauses: Vec<_> = [0, 1, 2, 4, 5, 60]
            .map(|number| patience.pause(number).as_millis())
            .into();
        assert_eq!(pauses, [500, 1000, 2000, 8000, 15_000, 15_000]);
    }
}
