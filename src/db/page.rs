//! Lists that are read page by page, newest first.

use time::OffsetDateTime;
use uuid::Uuid;

/// A row's place in a list that is ordered by time and, for equal times, by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The row's `created_at`, microseconds.
    pub created_at: OffsetDateTime,
    /// The row's `id`.
    pub id: Uuid,
}

/// Which rows of a list are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// How many at most.
    pub limit: u16,
    /// Only those behind this place, which need not be a row's any more.
    pub after: Option<Position>,
}
