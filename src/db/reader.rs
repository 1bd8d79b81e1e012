//! Connections for reads, by how long the reads may take.

use std::sync::Arc;

use diesel_async::AsyncPgConnection;

use super::{Connection, DbError, Pool, lanes::Lanes, link::Link, session::Session};
use crate::config::DatabaseSettings;

/// How long a read takes, which decides whom it may hold up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// One row by its key.
    Point,
    /// A page of rows in the order of an index.
    Page,
    /// Whatever else: as long as `database.statement_timeout_seconds` at worst.
    Search,
}

/// The reads' connections to one server. Points and pages are answered in the order they were asked in, each kind on
/// connections of its own, so that a point waits for points only. A search has a connection to itself, and there are
/// few of those, apart from the ones that writes use: searches wait for searches.
pub(super) struct Readers {
    link: Arc<Link>,
    points: Lanes,
    pages: Lanes,
    searches: Pool,
}

impl Readers {
    pub(super) fn new(link: Arc<Link>, settings: &DatabaseSettings) -> Self {
        let lanes = || Lanes::new(&link, settings.read_connections, settings.connect_timeout());
        Self {
            points: lanes(),
            pages: lanes(),
            searches: Pool::new(&link, settings.pool_size.div_ceil(2), settings),
            link,
        }
    }

    /// `host:port/name`, for messages.
    pub(super) fn address(&self) -> &str {
        self.link.connector().address()
    }

    pub(super) async fn get(&self, length: Length) -> Result<Reader, DbError> {
        let held = match length {
            Length::Point => Held::Shared(self.points.get().await?),
            Length::Page => Held::Shared(self.pages.get().await?),
            Length::Search => Held::Alone(Box::new(self.searches.get().await?)),
        };
        Ok(Reader(held))
    }
}

/// A connection to read with: one statement after the other or several at once, no transactions. A read that is given up
/// runs to its end unseen and disturbs nobody.
pub struct Reader(Held);

enum Held {
    Shared(Arc<Session>),
    Alone(Box<Connection>),
}

impl Reader {
    /// For diesel: `query.first(&mut reader.connection())`.
    pub fn connection(&self) -> &AsyncPgConnection {
        match &self.0 {
            Held::Shared(session) => session.shared(),
            Held::Alone(connection) => connection,
        }
    }
}
