//! Ctrl-C, SIGTERM and SIGHUP, counted once for the whole process.
//!
//! Whoever waits for something also waits for [`Interrupt::requested`], so that a command ends in order: terraform is
//! told, temporary files go, the report says where things stand. The second signal is passed on as well.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// What has arrived since the process began to listen.
#[derive(Clone, Copy, Debug, Default)]
struct Arrived {
    /// All of them.
    signals: u32,
    /// SIGTERM and SIGHUP, which no terminal sends to a whole group of processes by a key.
    terminations: u32,
}

/// How many times the user asked this process to stop. Cheap to clone; all clones see the same count.
#[derive(Clone, Debug)]
pub struct Interrupt {
    arrived: watch::Receiver<Arrived>,
    /// What had arrived when this token began to count.
    before: Arrived,
    // A watch channel without a sender answers at once; the token that never fires keeps its own.
    _sender: Option<Arc<watch::Sender<Arrived>>>,
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
        let (sender, arrived) = watch::channel(Arrived::default());
        tokio::spawn(async move {
            loop {
                let is_termination = tokio::select! {
                    Some(()) = interrupt.recv() => false,
                    Some(()) = terminate.recv() => true,
                    () = hangup.received() => true,
                    else => break,
                };
                sender.send_modify(|arrived| {
                    arrived.signals += 1;
                    arrived.terminations += u32::from(is_termination);
                });
            }
        });
        Ok(Self {
            arrived,
            before: Arrived::default(),
            _sender: None,
        })
    }

    /// A token that never fires, for callers whose process still dies by SIGINT itself.
    #[must_use]
    pub fn never() -> Self {
        let (sender, arrived) = watch::channel(Arrived::default());
        Self {
            arrived,
            before: Arrived::default(),
            _sender: Some(Arc::new(sender)),
        }
    }

    /// A token that counts only what arrives from now on: what has to be done after a Ctrl-C is not ended by that one.
    #[must_use]
    pub fn from_now(&self) -> Self {
        Self {
            before: *self.arrived.borrow(),
            ..self.clone()
        }
    }

    /// A token that leaves the first `signals` out that this one counts: they mean something else.
    #[must_use]
    pub fn after(&self, signals: u32) -> Self {
        let mut token = self.clone();
        token.before.signals += signals;
        token
    }

    /// Signals seen so far.
    #[must_use]
    pub fn count(&self) -> u32 {
        let signals = self.arrived.borrow().signals;
        signals.saturating_sub(self.before.signals)
    }

    /// Returns as soon as more than `seen` signals have arrived; never when none come.
    pub async fn more_than(&self, seen: u32) {
        let wanted = self.before.signals.saturating_add(seen);
        self.until(|arrived| arrived.signals > wanted).await;
    }

    /// Returns as soon as the first signal has arrived, at once when it already has.
    pub async fn requested(&self) {
        self.more_than(0).await;
    }

    /// Returns as soon as more than `seen` of the signals that have arrived were SIGTERM or SIGHUP. A child in our process
    /// group gets a terminal's Ctrl-C by itself, but not these.
    pub async fn terminated(&self, seen: u32) {
        let wanted = self.before.terminations.saturating_add(seen);
        self.until(|arrived| arrived.terminations > wanted).await;
    }

    async fn until(&self, is_enough: impl FnMut(&Arrived) -> bool) {
        let mut arrived = self.arrived.clone();
        if arrived.wait_for(is_enough).await.is_err() {
            std::future::pending::<()>().await;
        }
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
    use tokio::sync::watch;

    use super::{Arrived, Interrupt, is_ignored};

    fn token() -> (watch::Sender<Arrived>, Interrupt) {
        let (sender, arrived) = watch::channel(Arrived::default());
        let token = Interrupt {
            arrived,
            before: Arrived::default(),
            _sender: None,
        };
        (sender, token)
    }

    #[tokio::test]
    async fn a_token_from_now_on_does_not_see_what_was_before() {
        let (sender, all) = token();
        let raise = || sender.send_modify(|arrived| arrived.signals += 1);
        raise();
        let (later, second) = (all.from_now(), all.from_now().after(1));
        assert_eq!((all.count(), later.count(), second.count()), (1, 0, 0));
        raise();
        assert_eq!((all.count(), later.count(), second.count()), (2, 1, 0));
        later.requested().await;
        raise();
        assert_eq!((all.count(), later.count(), second.count()), (3, 2, 1));
        second.requested().await;
    }

    #[tokio::test]
    async fn only_sigterm_and_sighup_are_terminations() {
        let (sender, token) = token();
        sender.send_modify(|arrived| arrived.signals += 1);
        let waits = tokio::time::timeout(std::time::Duration::from_millis(50), token.terminated(0));
        assert!(waits.await.is_err());
        sender.send_modify(|arrived| arrived.terminations += 1);
        token.terminated(0).await;
    }

    #[test]
    fn a_hangup_that_was_ignored_at_the_start_stays_ignored() {
        assert!(is_ignored(Some("Name:\tx\nSigIgn:\t0000000000001001\n")));
        assert!(!is_ignored(Some("Name:\tx\nSigIgn:\t0000000000001000\n")));
        assert!(!is_ignored(Some("")));
        assert!(!is_ignored(None));
    }
}
