//! How often what a scope names was written.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

use super::Scope;

/// Scopes share these: two that meet in one only lose an answer now and then. 128 KiB, so that a write of one row among
/// many seldom costs another its answer.
const COUNT: usize = 16 * 1024;

/// A number for each scope that grows with each write. There are scopes without end, so it takes no memory per scope.
pub(super) struct Generations {
    numbers: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl Generations {
    pub(super) fn new() -> Self {
        Self {
            numbers: (0..COUNT).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }

    /// The scope's number now.
    pub(super) fn of(&self, scope: Scope) -> u64 {
        self.number(scope)
            .map_or(0, |number| number.load(Ordering::Acquire))
    }

    /// From now on it is another.
    pub(super) fn advance(&self, scope: Scope) {
        if let Some(number) = self.number(scope) {
            number.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn number(&self, scope: Scope) -> Option<&AtomicU64> {
        let place = self.hasher.hash_one(scope) % COUNT as u64;
        self.numbers.get(usize::try_from(place).ok()?)
    }
}
