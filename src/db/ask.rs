//! What a server is asked about itself.

use diesel::{
    IntoSql,
    sql_types::{BigInt, Bool, Integer, Nullable},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{DbError, Lsn};

/// A round trip through parser and executor, touching no table.
pub(super) async fn ping(mut connection: &AsyncPgConnection) -> Result<(), DbError> {
    diesel::select(1_i32.into_sql::<Integer>())
        .get_result::<i32>(&mut connection)
        .await
        .map(|_| ())
        .map_err(DbError::from)
}

/// Where the log of a primary ends.
pub(super) async fn newest(mut connection: &AsyncPgConnection) -> Result<Lsn, DbError> {
    let position: i64 = diesel::select(diesel::dsl::sql::<BigInt>(
        "(pg_current_wal_insert_lsn() - '0/0')::bigint",
    ))
    .get_result(&mut connection)
    .await?;
    Ok(Lsn(position.cast_unsigned()))
}

/// Up to where a replica has replayed the log; `None`: it is no replica.
pub(super) async fn replayed(mut connection: &AsyncPgConnection) -> Result<Option<Lsn>, DbError> {
    let (is_replica, position): (bool, Option<i64>) = diesel::select((
        diesel::dsl::sql::<Bool>("pg_is_in_recovery()"),
        diesel::dsl::sql::<Nullable<BigInt>>("(pg_last_wal_replay_lsn() - '0/0')::bigint"),
    ))
    .get_result(&mut connection)
    .await?;
    Ok(position
        .filter(|_| is_replica)
        .map(|position| Lsn(position.cast_unsigned())))
}
