//! `[auth]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Key, Shape};

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "auth.anonymous_writes",
        shape: Shape::Flag,
        meaning: "whether `/items` is written without signing in; `drawbridge dev` says true",
    },
    Key {
        name: "auth.session_hours",
        shape: Shape::Whole("whole hours", 1, 8760),
        meaning: "how long a token is good for; `POST /auth/refresh` exchanges it for one that begins anew",
    },
    Key {
        name: "auth.idle_hours",
        shape: Shape::Whole("whole hours", 1, 8760),
        meaning: "a token that nobody used for so long ends earlier",
    },
    Key {
        name: "auth.hash_concurrency",
        shape: Shape::Whole("a number of passwords", 1, 64),
        meaning: "passwords hashed at a time, each with a core and 19 MiB; more wait for two seconds and are then answered 503",
    },
    Key {
        name: "auth.failures_per_account",
        shape: Shape::Whole("a number of attempts", 1, 1_000_000),
        meaning: "wrong passwords for one e-mail address before the next attempt has to wait: a second, and twice as long each time, up to five minutes",
    },
    Key {
        name: "auth.failures_per_address",
        shape: Shape::Whole("a number of attempts", 1, 1_000_000),
        meaning: "the same for one client address (of IPv6 its /64), whatever the e-mail address",
    },
    Key {
        name: "auth.registrations_per_address",
        shape: Shape::Whole("a number of attempts", 1, 1_000_000),
        meaning: "the same for registering; all three are forgotten after an hour without an attempt",
    },
];

/// `[auth]`: who may do what, and how they sign in.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthSettings {
    /// Whether `/items` is written without a session.
    pub anonymous_writes: bool,
    /// How long a session lives after signing in or refreshing. Hours, 1 to 8760.
    pub session_hours: u32,
    /// How long it lives unused, if that is shorter. Hours, 1 to 8760.
    pub idle_hours: u32,
    /// Passwords hashed at a time, 1 to 64.
    pub hash_concurrency: u32,
    /// Failed logins for one e-mail address before waits begin, 1 to 1000000.
    pub failures_per_account: u32,
    /// Failed logins from one client address before waits begin, 1 to 1000000.
    pub failures_per_address: u32,
    /// Registrations from one client address before waits begin, 1 to 1000000.
    pub registrations_per_address: u32,
}

impl Default for AuthSettings {
    fn default() -> Self {
        Self {
            anonymous_writes: false,
            session_hours: 30 * 24,
            idle_hours: 7 * 24,
            hash_concurrency: 2,
            failures_per_account: 5,
            // Many people can share one address, and they rarely all forget their passwords at once.
            failures_per_address: 50,
            registrations_per_address: 20,
        }
    }
}

impl AuthSettings {
    /// [`Self::session_hours`] as a duration.
    pub fn session_lifetime(&self) -> Duration {
        Duration::from_secs(u64::from(self.session_hours) * 3600)
    }
    /// [`Self::idle_hours`] as a duration.
    pub fn idle_lifetime(&self) -> Duration {
        Duration::from_secs(u64::from(self.idle_hours) * 3600)
    }
}
