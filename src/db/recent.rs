//! Who wrote what lately, so that nobody reads from a replica what is older than what they wrote.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use uuid::Uuid;

/// At 56 bytes each well below a megabyte; a replica that keeps up has a few hundred.
const CAPACITY: usize = 10_000;

/// A position in Postgres' log: everything up to it has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lsn(pub(super) u64);

impl Lsn {
    /// After everything: no replica has it.
    pub(crate) const UNKNOWN: Self = Self(u64::MAX);
}

/// What a write is remembered under, and what a read asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Written {
    /// By the session whose token has this hash.
    By([u8; 32]),
    /// The row with this id.
    Row(Uuid),
    /// The list of this resource, such as `items`.
    List(&'static str),
}

/// The position of the newest write per key. When there are too many keys, they are replaced by one position that
/// holds for everybody: never wrong, and at worst the replica has a pause.
#[derive(Debug, Default)]
pub(super) struct RecentWrites {
    positions: Mutex<HashMap<Written, Lsn>>,
    /// Every read needs this at least; 0: nothing.
    floor: AtomicU64,
}

impl RecentWrites {
    pub fn note(&self, keys: &[Written], at: Lsn) {
        let mut positions = self.lock();
        for key in keys {
            let position = positions.entry(*key).or_insert(at);
            *position = at.max(*position);
        }
        if positions.len() > CAPACITY {
            let newest = positions.values().max().map_or(0, |position| position.0);
            self.floor.fetch_max(newest, Ordering::AcqRel);
            positions.clear();
        }
    }

    /// Something was written, and nobody knows where it is in the log: no replica serves anybody until [`Self::learn`].
    pub fn note_unknown(&self) {
        self.floor.store(Lsn::UNKNOWN.0, Ordering::Release);
    }

    /// Whether [`Self::learn`] is waited for.
    pub fn is_unknown(&self) -> bool {
        self.floor.load(Ordering::Acquire) == Lsn::UNKNOWN.0
    }

    /// The log had come to `at` after [`Self::is_unknown`] was asked and said yes.
    pub fn learn(&self, at: Lsn) {
        // Failing means that it is known already.
        let _ =
            self.floor
                .compare_exchange(Lsn::UNKNOWN.0, at.0, Ordering::AcqRel, Ordering::Acquire);
    }

    /// What a read must have seen that asks for any of `keys`.
    pub fn newest(&self, keys: &[Written]) -> Option<Lsn> {
        let floor = Lsn(self.floor.load(Ordering::Acquire));
        let positions = self.lock();
        let newest = keys.iter().filter_map(|key| positions.get(key)).max();
        newest
            .copied()
            .into_iter()
            .chain([floor])
            .max()
            .filter(|newest| newest.0 > 0)
    }

    /// Forgets what a replica that is at `replayed` has seen.
    pub fn forget(&self, replayed: Lsn) {
        let mut positions = self.lock();
        positions.retain(|_, position| *position > replayed);
        if positions.is_empty() {
            positions.shrink_to_fit();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Written, Lsn>> {
        self.positions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINE: Written = Written::By([1; 32]);
    const OTHER: Written = Written::By([2; 32]);

    #[test]
    fn a_write_is_remembered_under_its_keys_until_the_replica_has_it() {
        let writes = RecentWrites::default();
        let row = Written::Row(Uuid::now_v7());
        writes.note(&[MINE, row], Lsn(7));
        writes.note(&[MINE], Lsn(9));
        writes.note(&[MINE], Lsn(8));
        assert_eq!(writes.newest(&[MINE]), Some(Lsn(9)));
        assert_eq!(writes.newest(&[OTHER, row]), Some(Lsn(7)));
        assert_eq!(writes.newest(&[OTHER]), None);
        writes.forget(Lsn(7));
        assert_eq!(writes.newest(&[row]), None);
        assert_eq!(writes.newest(&[MINE]), Some(Lsn(9)));
    }

    #[test]
    fn too_many_writes_take_no_more_memory_and_are_still_never_missed() {
        let writes = RecentWrites::default();
        let rows: Vec<_> = (0..=CAPACITY as u64)
            .map(|at| (Written::Row(Uuid::now_v7()), Lsn(at + 1)))
            .collect();
        for (row, at) in &rows {
            writes.note(&[*row], *at);
        }
        assert!(writes.lock().len() <= CAPACITY);
        for (row, at) in &rows {
            assert!(writes.newest(&[*row]) >= Some(*at));
        }
    }

    #[test]
    fn an_unknown_position_is_after_everything_until_the_log_has_been_looked_at() {
        let writes = RecentWrites::default();
        writes.note_unknown();
        assert!(writes.is_unknown());
        assert_eq!(writes.newest(&[]), Some(Lsn::UNKNOWN));
        writes.learn(Lsn(5));
        writes.learn(Lsn(50));
        assert_eq!(writes.newest(&[OTHER]), Some(Lsn(5)));
    }
}
