//! How often something may be tried: some attempts at once, then one after waits that double.
//!
//! In process: with several servers each counts for itself, which multiplies an attacker's attempts by their number and
//! no more.

use std::{
    borrow::Borrow,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use moka::{ops::compute::Op, sync::Cache};

/// The first wait.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait: 288 attempts a day, and an owner who is kept out by somebody else's attempts is so for minutes.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// Attempts are forgotten this long after the last one.
const MEMORY: Duration = Duration::from_secs(3600);
/// Counted at a time, about 10 MB; beyond it those asked for least are forgotten first.
const CAPACITY: u64 = 50_000;

/// Counts attempts by key.
#[derive(Clone)]
pub struct Throttle<K: Hash + Eq + Send + Sync + 'static> {
    counts: Cache<K, Count>,
    free: u32,
}

#[derive(Debug, Clone, Copy)]
struct Count {
    attempts: u32,
    /// Not before.
    next: Option<Instant>,
}

/// An attempt has to wait: try again after this long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait(pub Duration);

impl<K: Hash + Eq + Clone + Send + Sync + 'static> Throttle<K> {
    /// So many attempts are `free` before waits begin.
    pub fn new(free: u32) -> Self {
        let counts = Cache::builder()
            .max_capacity(CAPACITY)
            .time_to_idle(MEMORY)
            .build();
        Self { counts, free }
    }

    /// Counts an attempt now, before its outcome is known: a hundred at once would otherwise all find the count low.
    ///
    /// # Errors
    /// [`Wait`]; then the attempt is not counted, and must not be made.
    pub fn attempt(&self, key: K) -> Result<(), Wait> {
        self.attempt_at(key, Instant::now())
    }

    fn attempt_at(&self, key: K, now: Instant) -> Result<(), Wait> {
        let mut refused = None;
        self.counts.entry(key).and_compute_with(|entry| {
            let seen = entry.map(|entry| entry.into_value());
            let wait = seen.and_then(|count| count.next?.checked_duration_since(now));
            if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
                refused = Some(Wait(wait));
                return Op::Nop;
            }
            let attempts = seen.map_or(0, |count| count.attempts).saturating_add(1);
            let next = attempts
                .checked_sub(self.free)
                .map(|over| now + wait_after(over));
            Op::Put(Count { attempts, next })
        });
        refused.map_or(Ok(()), Err)
    }

    /// Takes back one attempt that was none: it succeeded, or came to nothing on our side.
    pub fn take_back(&self, key: K) {
        self.counts.entry(key).and_compute_with(|entry| {
            let Some(count) = entry.map(|entry| entry.into_value()) else {
                return Op::Nop;
            };
            match count.attempts.saturating_sub(1) {
                0 => Op::Remove,
                attempts => Op::Put(Count {
                    attempts,
                    next: count.next.filter(|_| attempts >= self.free),
                }),
            }
        });
    }

    /// Forgets all attempts.
    pub fn reset<Q: Hash + Eq + ?Sized>(&self, key: &Q)
    where
        K: Borrow<Q>,
    {
        self.counts.invalidate(key);
    }
}

/// The wait after so many attempts beyond the last free one.
fn wait_after(over: u32) -> Duration {
    let factor = 2_u32.checked_pow(over).unwrap_or(u32::MAX);
    FIRST_WAIT.saturating_mul(factor).min(LONGEST_WAIT)
}

/// What counts as one client: an IPv4 address, or the /64 that an IPv6 client chooses its addresses from.
pub fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_free_then_wait_twice_as_long_each_time_up_to_a_limit() {
        let throttle = Throttle::new(3);
        let mut now = Instant::now();
        for _ in 0..3 {
            assert_eq!(throttle.attempt_at("a", now), Ok(()));
        }
        for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            let wait = Duration::from_secs(seconds);
            assert_eq!(throttle.attempt_at("a", now), Err(Wait(wait)));
            // Asking too early does not prolong it.
            let almost = now + wait - Duration::from_millis(1);
            let rest = Duration::from_millis(1);
            assert_eq!(throttle.attempt_at("a", almost), Err(Wait(rest)));
            now += wait;
            assert_eq!(throttle.attempt_at("a", now), Ok(()));
        }
        assert_eq!(throttle.attempt_at("b", now), Ok(()));
        throttle.reset("a");
        assert_eq!(throttle.attempt_at("a", now), Ok(()));
    }

    #[test]
    fn what_succeeds_leaves_the_failures_of_others_counted() {
        let throttle = Throttle::new(2);
        let now = Instant::now();
        assert_eq!(throttle.attempt_at("a", now), Ok(()));
        for _ in 0..5 {
            assert_eq!(throttle.attempt_at("a", now), Ok(()));
            throttle.take_back("a");
        }
        assert_eq!(throttle.attempt_at("a", now), Ok(()));
        assert!(throttle.attempt_at("a", now).is_err());
    }

    #[test]
    fn many_at_once_do_not_all_find_the_count_low() {
        let throttle = Throttle::new(5);
        let allowed: usize = std::thread::scope(|scope| {
            let attempts: Vec<_> = (0..8)
                .map(|_| {
                    let throttle = throttle.clone();
                    scope.spawn(move || (0..50).filter(|_| throttle.attempt("a").is_ok()).count())
                })
                .collect();
            attempts.into_iter().map(|one| one.join().unwrap()).sum()
        });
        // One more for each second that this took.
        assert!((5..=8).contains(&allowed), "{allowed}");
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        let client = |text: &str| client_of(text.parse().unwrap()).to_string();
        assert_eq!(client("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(client("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(client("192.0.2.1"), "192.0.2.1");
    }
}
