//! How long a connection may take over what it does, each step by itself: nobody keeps one by being slow.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::config::HttpSettings;

/// Who takes less than this of an answer is cut once `http.write_timeout_seconds` are used up too: slower than the
/// slowest mobile network, and 1 MiB of answer holds a connection for 17 minutes at most.
const SLOWEST_BYTES_PER_SECOND: usize = 1024;

/// What each step may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Between two requests, and before the first: `http.keep_alive_seconds`.
    pub keep_alive: Duration,
    /// From the first byte of a request's head to its last: `http.header_timeout_seconds`.
    pub header: Duration,
    /// While the client takes nothing of an answer: `http.write_timeout_seconds`.
    pub write: Duration,
}

impl Limits {
    /// Those of `settings`.
    pub fn of(settings: &HttpSettings) -> Self {
        Self {
            keep_alive: Duration::from_secs(settings.keep_alive_seconds),
            header: Duration::from_secs(settings.header_timeout_seconds),
            write: Duration::from_secs(settings.write_timeout_seconds),
        }
    }
}

/// What a connection took too long over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slow {
    /// It sent no further request, which is no fault.
    Idle,
    /// Its request's head did not arrive.
    Head,
    /// It did not take its answer.
    Answer,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// No byte of the next request yet.
    Idle { until: Instant },
    /// Some bytes of it.
    Head { until: Instant },
    /// The request is being answered; its body and its handler have a deadline of their own.
    Request,
}

/// Where one connection is.
#[derive(Debug)]
pub struct Pace {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    step: Step,
    /// The client takes nothing more; it has until then.
    blocked_until: Option<Instant>,
}

impl Pace {
    /// Of a connection that was accepted at `now`.
    pub fn new(limits: Limits, now: Instant) -> Self {
        let until = now + limits.keep_alive;
        let step = Step::Idle { until };
        Self {
            limits,
            state: Mutex::new(State {
                step,
                blocked_until: None,
            }),
        }
    }

    /// Bytes arrived.
    pub fn has_read(&self, now: Instant) {
        let mut state = self.state();
        if let Step::Idle { .. } = state.step {
            let until = now + self.limits.header;
            state.step = Step::Head { until };
        }
    }

    /// A request's head is complete.
    pub fn has_request(&self) {
        self.state().step = Step::Request;
    }

    /// Its answer is made, and about to be written.
    pub fn has_answer(&self, now: Instant) {
        let until = now + self.limits.keep_alive;
        self.state().step = Step::Idle { until };
    }

    /// The client took `count` bytes of an answer; more may be left.
    pub fn has_written(&self, count: usize, now: Instant) {
        let mut state = self.state();
        if let Some(until) = &mut state.blocked_until {
            let earned = count as f64 / SLOWEST_BYTES_PER_SECOND as f64;
            // Never more than a whole limit from now, however much was taken at once.
            *until = (*until + Duration::from_secs_f64(earned)).min(now + self.limits.write);
        }
        if let Step::Idle { until } = &mut state.step {
            *until = now + self.limits.keep_alive;
        }
    }

    /// The client takes nothing at the moment.
    pub fn is_blocked(&self, now: Instant) {
        let until = now + self.limits.write;
        self.state().blocked_until.get_or_insert(until);
    }

    /// The client has taken all there was.
    pub fn is_flushed(&self) {
        self.state().blocked_until = None;
    }

    /// When the connection is to be cut, and for what.
    pub fn deadline(&self) -> Option<(Instant, Slow)> {
        let state = self.state();
        if let Some(until) = state.blocked_until {
            return Some((until, Slow::Answer));
        }
        match state.step {
            Step::Idle { until } => Some((until, Slow::Idle)),
            Step::Head { until } => Some((until, Slow::Head)),
            Step::Request => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        keep_alive: Duration::from_secs(75),
        header: Duration::from_secs(10),
        write: Duration::from_secs(30),
    };

    #[test]
    fn each_step_has_its_own_limit() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let pace = Pace::new(LIMITS, start);
        assert_eq!(pace.deadline(), Some((at(75), Slow::Idle)));
        pace.has_read(at(5));
        assert_eq!(pace.deadline(), Some((at(15), Slow::Head)));
        // A byte now and then wins no time.
        pace.has_read(at(14));
        assert_eq!(pace.deadline(), Some((at(15), Slow::Head)));
        pace.has_request();
        assert_eq!(pace.deadline(), None);
        pace.has_answer(at(20));
        assert_eq!(pace.deadline(), Some((at(95), Slow::Idle)));
    }

    #[test]
    fn a_reader_that_takes_a_little_now_and_then_is_cut_all_the_same() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let pace = Pace::new(LIMITS, start);
        pace.has_request();
        pace.has_answer(start);
        pace.is_blocked(start);
        assert_eq!(pace.deadline(), Some((at(30), Slow::Answer)));
        pace.has_written(2048, at(20));
        pace.is_blocked(at(20));
        assert_eq!(pace.deadline(), Some((at(32), Slow::Answer)));
        pace.has_written(1 << 20, at(31));
        pace.is_blocked(at(31));
        assert_eq!(pace.deadline(), Some((at(61), Slow::Answer)));
        pace.is_flushed();
        assert_eq!(pace.deadline(), Some((at(106), Slow::Idle)));
    }
}
