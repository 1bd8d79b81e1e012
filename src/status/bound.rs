//! How long a look may take, and what a part that is late was doing.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::appliance::status::Known;
use crate::cloud::CloudError;
use crate::error_chain::chain;

/// The end of the whole look, and what each part says when it comes.
#[derive(Clone, Copy)]
pub(super) struct Bound {
    pub end: Instant,
    pub limit: Duration,
}

/// What a part was seen doing last.
pub(super) struct Last(Mutex<&'static str>);

impl Last {
    pub fn new(doing: &'static str) -> Self {
        Self(Mutex::new(doing))
    }

    pub fn now(&self, doing: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = doing;
    }
}

impl Bound {
    pub async fn get<T, E: std::fmt::Display>(
        self,
        last: &Last,
        work: impl Future<Output = Result<T, E>>,
    ) -> Known<T> {
        match timeout_at(self.end, work).await {
            Ok(done) => done.map_err(|error| error.to_string()).into(),
            Err(_) => Known::Unknown(self.late(last)),
        }
    }

    pub async fn ask<T>(
        self,
        doing: &'static str,
        work: impl Future<Output = Result<T, CloudError>>,
    ) -> Known<T> {
        let work = async { work.await.map_err(|error| chain(&error)) };
        self.get(&Last::new(doing), work).await
    }

    pub fn late(self, last: &Last) -> String {
        let doing = last.0.lock().unwrap_or_else(PoisonError::into_inner);
        format!(
            "no answer within {} s, last seen: {doing}",
            self.limit.as_secs()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_takes_too_long_is_unknown_with_what_was_seen_last() {
        let bound = Bound {
            end: Instant::now(),
            limit: Duration::from_secs(10),
        };
        let last = Last::new("signing in");
        last.now("running a command");
        let never = std::future::pending::<Result<(), String>>();
        let seen = bound.get(&last, never).await;
        assert_eq!(
            seen.reason(),
            Some("no answer within 10 s, last seen: running a command")
        );
    }
}
