//! Waiting with a limit and a memory: every wait of the bootstrap goes through [`until`].

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// What one look saw.
pub enum Look<T> {
    /// The wait is over, for better or worse.
    Done(T),
    /// Not there yet; what was seen instead.
    NotYet(String),
}

/// A wait reached its limit.
#[derive(Debug, thiserror::Error)]
#[error("gave up waiting for {what} after {seconds} s; last seen: {last}", seconds = after.as_secs())]
pub struct GaveUp {
    /// The awaited thing, e.g. `"the volume vol-0ab"`.
    pub what: String,
    /// How long was waited.
    pub after: Duration,
    /// What the last look saw.
    pub last: String,
}

/// The first pause between two looks; it doubles up to the caller's longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// A wait that lasts is mentioned in the journal this often, with the last thing seen.
const MENTION_EVERY: Duration = Duration::from_secs(30);

tokio::task_local! {
    static AWAITED: Awaited;
}

/// What a piece of work is waiting for at this moment, for whoever has to cut it off from outside.
#[derive(Debug, Clone, Default)]
pub struct Awaited(Arc<Mutex<Option<String>>>);

impl Awaited {
    /// Does the work, and keeps track of what its waits see.
    pub async fn during<F: Future>(&self, work: F) -> F::Output {
        AWAITED.scope(self.clone(), work).await
    }

    /// The thing awaited and what was seen last, or nothing outside a wait.
    pub fn get(&self) -> Option<String> {
        self.0.lock().ok()?.clone()
    }

    fn note(what: Option<String>) {
        let _ = AWAITED.try_with(|awaited| {
            if let Ok(mut noted) = awaited.0.lock() {
                *noted = what;
            }
        });
    }
}

/// Asks `look` again and again until it is done, for at most `limit`, with pauses growing to `longest_pause`.
///
/// # Errors
/// [`GaveUp`] once `limit` has passed, also in the middle of a look that hangs.
pub async fn until<T>(
    what: impl Into<String>,
    limit: Duration,
    longest_pause: Duration,
    mut look: impl AsyncFnMut() -> Look<T>,
) -> Result<T, GaveUp> {
    let what = what.into();
    let start = Instant::now();
    let mut last = String::from("nothing");
    let mut pause = FIRST_PAUSE.min(longest_pause);
    let mut mentioned = start;
    Awaited::note(Some(what.clone()));
    loop {
        match timeout(limit.saturating_sub(start.elapsed()), look()).await {
            Ok(Look::Done(found)) => {
                Awaited::note(None);
                return Ok(found);
            }
            Ok(Look::NotYet(seen)) => last = seen,
            Err(_) => last = format!("no answer while looking; before that: {last}"),
        }
        Awaited::note(Some(format!("{what}; last seen: {last}")));
        if start.elapsed() + pause >= limit {
            return Err(GaveUp {
                what,
                after: start.elapsed(),
                last,
            });
        }
        if mentioned.elapsed() >= MENTION_EVERY {
            mentioned = Instant::now();
            tracing::info!(what, last, "still waiting for {what}: {last}");
        }
        sleep(pause).await;
        pause = (pause * 2).min(longest_pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_millis(10);

    #[tokio::test]
    async fn a_wait_ends_when_the_thing_is_there() {
        let mut looks = 0;
        let found = until("it", Duration::from_secs(60), PAUSE, async || {
            looks += 1;
            match looks {
                5 => Look::Done(looks),
                _ => Look::NotYet("nothing".into()),
            }
        })
        .await;
        assert_eq!(found.unwrap(), 5);
    }

    #[tokio::test]
    async fn a_wait_gives_up_with_the_last_thing_seen() {
        let mut looks = 0;
        let error = until("it", PAUSE * 20, PAUSE, async || {
            looks += 1;
            Look::<()>::NotYet(format!("look {looks}"))
        })
        .await
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("gave up waiting for it after 0 s; last seen: look {looks}")
        );
        assert!(
            looks > 2 && error.after >= PAUSE * 10,
            "{looks} {:?}",
            error.after
        );
    }

    #[tokio::test]
    async fn work_that_is_cut_off_has_left_word_of_its_wait() {
        let awaited = Awaited::default();
        let work = until("it", PAUSE * 100, PAUSE, async || {
            Look::<()>::NotYet("dust".into())
        });
        assert!(timeout(PAUSE * 3, awaited.during(work)).await.is_err());
        assert_eq!(awaited.get().as_deref(), Some("it; last seen: dust"));
        let done = until("it", PAUSE, PAUSE, async || Look::Done(()));
        awaited.during(done).await.unwrap();
        assert_eq!(awaited.get(), None);
    }

    #[tokio::test]
    async fn a_look_that_hangs_does_not_outlast_the_limit() {
        let hang = async || std::future::pending::<Look<()>>().await;
        let error = until("it", PAUSE * 5, PAUSE, hang).await.unwrap_err();
        assert!(error.last.starts_with("no answer while looking"), "{error}");
    }
}
