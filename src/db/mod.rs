//! Postgres: connections, schema, and one file of queries per resource. Domain types out, no HTTP.

mod ask;
mod compatibility;
mod connect;
mod database;
mod half_built;
pub mod idempotency;
pub mod items;
mod lanes;
mod link;
pub mod migrate;
mod page;
mod pattern;
mod pool;
pub mod profiles;
mod reader;
mod recent;
mod replica;
mod schema;
mod session;
pub mod sessions;
mod sweep;
mod version;

pub use connect::{ConnectError, Connector};
pub use database::Database;
pub use page::{Page, Position};
pub use pool::{Connection, Pool};
pub use reader::Reader;
pub use recent::{Lsn, Written};
pub use replica::Standing;
pub use sweep::sweep_for_ever;
pub use version::{Outcome, Versions};

use std::time::Duration;

use diesel::result::{DatabaseErrorKind, Error as DieselError};

/// Why a query has no result.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// Nothing was sent: all connections stayed in use.
    #[error("no database connection could be had within {0:?}")]
    NoConnection(Duration),
    /// Nothing was sent. The log has the cause, from the last attempt to connect.
    #[error("the database cannot be reached at the moment")]
    Unreachable,
    /// Nothing was sent.
    #[error("the database's schema is not in place yet")]
    NotMigrated,
    /// The connection ended, or the statement was ended, while it ran: a write may or may not have happened.
    #[error("the database ended the connection or the statement")]
    Interrupted(#[source] DieselError),
    /// The database refused the statement, or its result has another shape: a bug on our side.
    #[error("the database refused the statement")]
    Refused(#[source] DieselError),
}

impl DbError {
    /// Whether the same request may succeed later.
    pub fn is_temporary(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }
}

impl From<DieselError> for DbError {
    fn from(error: DieselError) -> Self {
        // 57014 and 40001.
        const CANCELLATIONS: [&str; 2] = [
            "canceling statement due to statement timeout",
            // On a replica: what it read was removed on the primary.
            "canceling statement due to conflict with recovery",
        ];
        if ends_session(&error) || says_one_of(&error, &CANCELLATIONS) {
            Self::Interrupted(error)
        } else {
            Self::Refused(error)
        }
    }
}

/// Whether the session is of no use any more after this error.
fn ends_session(error: &DieselError) -> bool {
    // 57P01, 57P02, 57P03, and 25006.
    const ENDS: [&str; 4] = [
        "terminating connection",
        "the database system is",
        // The server hands its role over, or its disk is full.
        "cannot execute",
        "the connection is closed",
    ];
    matches!(
        error,
        DieselError::DatabaseError(
            DatabaseErrorKind::UnableToSendCommand | DatabaseErrorKind::ClosedConnection,
            _,
        ) | DieselError::BrokenTransactionManager
    ) || says_one_of(error, &ENDS)
}

/// The error carries no SQLSTATE, only Postgres' message, in English.
fn says_one_of(error: &DieselError, beginnings: &[&str]) -> bool {
    let DieselError::DatabaseError(_, information) = error else {
        return false;
    };
    let message = information.message();
    beginnings.iter().any(|text| message.starts_with(text))
}
