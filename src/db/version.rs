//! Rows that count their changes, and changes that are made only to the row somebody has seen.

/// Which versions of a row may be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Versions {
    /// Whichever there is.
    Any,
    /// One of these; of none of them if it is empty.
    OneOf(Vec<i64>),
}

impl Versions {
    /// Whether the version does not matter.
    pub fn is_any(&self) -> bool {
        *self == Self::Any
    }

    /// Those that are named.
    pub fn listed(&self) -> &[i64] {
        match self {
            Self::Any => &[],
            Self::OneOf(versions) => versions,
        }
    }
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It was made.
    Done(T),
    /// There is no such row; nothing was changed.
    Missing,
    /// The row has a version that may not be changed; nothing was.
    OtherVersion,
}
