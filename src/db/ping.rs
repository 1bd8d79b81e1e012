//! The smallest question a database can be asked.

use diesel::{IntoSql, sql_types::Integer};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::DbError;

/// A round trip through parser and executor, touching no table.
pub(super) async fn ping(connection: &mut AsyncPgConnection) -> Result<(), DbError> {
    diesel::select(1_i32.into_sql::<Integer>())
        .get_result::<i32>(connection)
        .await
        .map(|_| ())
        .map_err(DbError::from)
}
