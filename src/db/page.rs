//! Lists that are read page by page, newest first.

use diesel::{
    dsl::AsExprOf,
    expression::AsExpression,
    pg::Pg,
    sql_types::{Record, Timestamptz, Uuid as SqlUuid},
};
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

diesel::infix_operator!(RowLess, " < ", backend: Pg);

type Place = Record<(Timestamptz, SqlUuid)>;

/// What [`behind`] makes of the columns `C` and `I`.
pub type Behind<C, I> = RowLess<AsExprOf<(C, I), Place>, AsExprOf<(OffsetDateTime, Uuid), Place>>;

/// The condition that a row stands behind `after`, given the columns that the list is ordered by. As a row, and not
/// column by column: the index then leads right to the place.
pub fn behind<C, I>(created_at: C, id: I, after: Position) -> Behind<C, I>
where
    (C, I): AsExpression<Place>,
{
    RowLess::new(
        AsExpression::<Place>::as_expression((created_at, id)),
        AsExpression::<Place>::as_expression((after.created_at, after.id)),
    )
}
