//! Effects that happen once, however often they are asked for: what was answered under an idempotency key.

use diesel::{
    dsl::now, prelude::*, query_dsl::methods::FilterDsl, sql_types::BigInt, upsert::excluded,
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::{DbError, schema::idempotency_keys as keys};

/// A request that is to have its effect once.
#[derive(Debug, Clone)]
pub struct Request {
    /// The caller's profile; nil: nobody in particular. One caller's keys mean nothing for another.
    pub caller: Uuid,
    /// Method and path, at most 200 characters: `POST /items`.
    pub route: String,
    /// 1 to 200 visible ASCII characters.
    pub key: String,
    /// SHA-256 of what is asked for.
    pub digest: [u8; 32],
}

/// What is answered to a request that made something; it is kept and repeated as it is.
#[derive(Debug, Clone, PartialEq, Eq, Queryable)]
pub struct Answer {
    /// The path of what was made.
    pub location: String,
    /// The ETag of what was made, in its quotes.
    pub etag: String,
    /// What was made, as JSON text.
    pub body: String,
}

/// How a request came to its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Once {
    /// It had its effect now.
    Now(Answer),
    /// It had its effect before.
    Before(Answer),
    /// The key belongs to a request for something else. Nothing was done.
    OtherRequest,
}

/// Has `effect` unless `request` had it within the last 24 hours; without a request, in any case. The effect and what is
/// kept of it are one transaction: both are there or neither. Of several at once with one key the first has the effect,
/// and the others wait for it.
///
/// # Errors
/// [`DbError`]; after [`DbError::Interrupted`] the same request will find out whether there was an effect.
pub async fn once<F>(
    connection: &mut AsyncPgConnection,
    request: Option<Request>,
    effect: F,
) -> Result<Once, DbError>
where
    F: for<'c> FnOnce(&'c mut AsyncPgConnection) -> BoxFuture<'c, Result<Answer, DbError>> + Send,
{
    let Some(request) = request else {
        return effect(connection).await.map(Once::Now);
    };
    connection
        .transaction(async move |connection| {
            if !claim(connection, &request).await? {
                return find(connection, &request).await;
            }
            let answer = effect(connection).await?;
            keep(connection, &request, &answer).await?;
            Ok(Once::Now(answer))
        })
        .await
}

/// Takes the key, if it is free or has expired. Waits for whoever is about to take it, too.
async fn claim(connection: &mut AsyncPgConnection, request: &Request) -> Result<bool, DbError> {
    let claimed = diesel::insert_into(keys::table)
        .values((
            keys::caller.eq(request.caller),
            keys::route.eq(&request.route),
            keys::key.eq(&request.key),
            keys::request_digest.eq(request.digest.as_slice()),
        ))
        .on_conflict((keys::caller, keys::route, keys::key))
        .do_update()
        .set((
            keys::request_digest.eq(excluded(keys::request_digest)),
            keys::expires_at.eq(excluded(keys::expires_at)),
        ))
        .filter(keys::expires_at.le(now))
        .execute(connection)
        .await?;
    Ok(claimed > 0)
}

async fn keep(
    connection: &mut AsyncPgConnection,
    request: &Request,
    answer: &Answer,
) -> Result<(), DbError> {
    diesel::update(keys::table.find((request.caller, &request.route, &request.key)))
        .set((
            keys::location.eq(&answer.location),
            keys::etag.eq(&answer.etag),
            keys::body.eq(&answer.body),
        ))
        .execute(connection)
        .await?;
    Ok(())
}

async fn find(connection: &mut AsyncPgConnection, request: &Request) -> Result<Once, DbError> {
    let (digest, answer): (Vec<u8>, Answer) = keys::table
        .find((request.caller, &request.route, &request.key))
        .select((
            keys::request_digest,
            (
                keys::location.assume_not_null(),
                keys::etag.assume_not_null(),
                keys::body.assume_not_null(),
            ),
        ))
        .first(connection)
        .await?;
    Ok(if digest == request.digest {
        Once::Before(answer)
    } else {
        Once::OtherRequest
    })
}

/// Deletes expired keys, `batch` at most, and returns how many. Those that another server deletes at the same moment are
/// left to it.
///
/// # Errors
/// [`DbError`].
pub async fn delete_expired(
    connection: &mut AsyncPgConnection,
    batch: i64,
) -> Result<usize, DbError> {
    // diesel has no DELETE with a LIMIT, as Postgres has none.
    diesel::sql_query(
        "DELETE FROM idempotency_keys WHERE (caller, route, key) IN ( \
             SELECT caller, route, key FROM idempotency_keys WHERE expires_at <= now() \
             ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)",
    )
    .bind::<BigInt, _>(batch)
    .execute(connection)
    .await
    .map_err(DbError::from)
}
