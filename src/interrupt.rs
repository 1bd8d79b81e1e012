//! Ctrl-C, SIGTERM and SIGHUP, counted once for the whole process.
//!
//! Whoever waits for something also waits for [`Interrupt::requested`], so that a command ends in order: terraform is
//! told, temporary files go, the report says where things stand. The second signal is passed on as well.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// How many times the user asked this process to stop. Cheap to clone; all clones see the same count.
#[derive(Clone, Debug)]
pub struct Interrupt {
    count: watch::Receiver<u32>,
    // A watch channel without a sender answers at once; the token that never fires keeps its own.
    _sender: Option<Arc<watch::Sender<u32>>>,
}

impl Interrupt {
    /// Starts to count SIGINT, SIGTERM and SIGHUP. From now on none of them ends the process by itself: every wait of the
    /// command has to look at the returned token. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn listen() -> io::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = Hangup::listen()?;
        let (sender, count) = watch::channel(0);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    Some(()) = interrupt.recv() => {}
                    Some(()) = terminate.recv() => {}
                    () = hangup.received() => {}
                    else => break,
                }
                sender.send_modify(|count| *count += 1);
            }
        });
        Ok(Self {
            count,
            _sender: None,
        })
    }

    /// A token that never fires, for callers whose process still dies by SIGINT itself.
    #[must_use]
    pub fn never() -> Self {
        Self::manual().1
    }

    /// A token together with the sender that fires it by raising the count.
    #[must_use]
    pub fn manual() -> (Arc<watch::Sender<u32>>, Self) {
        let (sender, count) = watch::channel(0);
        let sender = Arc::new(sender);
        (
            Arc::clone(&sender),
            Self {
                count,
                _sender: Some(sender),
            },
        )
    }

    /// Signals seen so far.
    #[must_use]
    pub fn count(&self) -> u32 {
        *self.count.borrow()
    }

    /// Returns as soon as more than `seen` signals have arrived; never when none come.
    pub async fn more_than(&self, seen: u32) {
        let mut count = self.count.clone();
        if count.wait_for(|count| *count > seen).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Returns as soon as the first signal has arrived, at once when it already has.
    pub async fn requested(&self) {
        self.more_than(0).await;
    }
}

/// SIGHUP: a terminal that closes, an ssh session that drops.
pub(crate) struct Hangup(Option<Signal>);

impl Hangup {
    /// Starts to listen, unless the process was started to outlive its terminal (`nohup`): that is left as it is.
    ///
    /// # Errors
    /// When the handler cannot be installed.
    pub(crate) fn listen() -> io::Result<Self> {
        if is_ignored(std::fs::read_to_string("/proc/self/status").ok().as_deref()) {
            return Ok(Self(None));
        }
        signal(SignalKind::hangup()).map(|signal| Self(Some(signal)))
    }

    /// Answers when the signal has arrived.
    pub(crate) async fn received(&mut self) {
        match &mut self.0 {
            Some(signal) => {
                signal.recv().await;
            }
            None => std::future::pending().await,
        }
    }
}

/// Whether SIGHUP, the first signal, is in the set of ignored ones that Linux shows. Elsewhere nobody says.
fn is_ignored(status: Option<&str>) -> bool {
    let ignored =
        status.and_then(|status| status.lines().find_map(|line| line.strip_prefix("SigIgn:")));
    let signals = ignored.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    signals.is_some_and(|signals| signals & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::is_ignored;

    #[test]
    fn a_hangup_that_was_ignored_at_the_start_stays_ignored() {
        assert!(is_ignored(Some("Name:\tx\nSigIgn:\t0000000000001001\n")));
        assert!(!is_ignored(Some("Name:\tx\nSigIgn:\t0000000000001000\n")));
        assert!(!is_ignored(Some("")));
        assert!(!is_ignored(None));
    }
}
