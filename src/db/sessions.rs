//! Queries on `sessions`. All times are the database's, so that several servers agree on them.

use diesel::{
    data_types::PgInterval,
    dsl::{IntervalDsl as _, count_star, now, sql},
    prelude::*,
    sql_types::{BigInt, Bool, Integer, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    DbError,
    schema::{profiles, sessions},
};
use crate::auth::{Role, TokenHash};

/// Sessions of one profile at most; a new one ends the one unused for longest. A script that signs in for every request
/// fills no table that way, and the list stays a page.
const PER_PROFILE: i64 = 100;

/// An expression cannot be given a name's type here without spelling all of it out.
macro_rules! in_hours {
    ($hours:expr) => {
        sql::<Timestamptz>("now() + make_interval(hours => ")
            .bind::<Integer, i32>($hours)
            .sql(")")
    };
}

/// Whose session it is.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// The profile.
    pub profile_id: Uuid,
    /// What the profile is now.
    pub role: Role,
    /// The session.
    pub session_id: Uuid,
}

/// One session, as its owner sees it.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = sessions, check_for_backend(diesel::pg::Pg))]
pub struct Session {
    /// Assigned when it began, version 7; a refresh keeps it.
    pub id: Uuid,
    /// When its owner signed in.
    pub created_at: OffsetDateTime,
    /// To the minute.
    pub last_used_at: OffsetDateTime,
    /// When it ends however much it is used.
    pub expires_at: OffsetDateTime,
    /// What the client called itself, 200 characters at most.
    pub user_agent: Option<String>,
}

/// How long sessions live.
#[derive(Debug, Clone, Copy)]
pub struct Lifetime {
    /// From its beginning or last refresh.
    pub hours: i32,
    /// Unused.
    pub idle_hours: i32,
}

/// Begins a session, and returns when it ends.
///
/// # Errors
/// [`DbError`]; after [`DbError::Interrupted`] it may have begun, and nobody knows its token.
pub async fn create_session(
    connection: &mut AsyncPgConnection,
    profile_id: Uuid,
    token: TokenHash,
    hours: i32,
    user_agent: Option<&str>,
) -> Result<OffsetDateTime, DbError> {
    connection
        .transaction(async |connection| {
            let expires_at = diesel::insert_into(sessions::table)
                .values((
                    sessions::id.eq(Uuid::now_v7()),
                    sessions::profile_id.eq(profile_id),
                    sessions::token_hash.eq(token.0.as_slice()),
                    sessions::expires_at.eq(in_hours!(hours)),
                    sessions::user_agent.eq(user_agent),
                ))
                .returning(sessions::expires_at)
                .get_result(connection)
                .await?;
            diesel::sql_query(
                "DELETE FROM sessions WHERE id IN (\
                     SELECT id FROM sessions WHERE profile_id = $1 \
                     ORDER BY last_used_at DESC, id DESC OFFSET $2)",
            )
            .bind::<SqlUuid, _>(profile_id)
            .bind::<BigInt, _>(PER_PROFILE)
            .execute(connection)
            .await?;
            Ok(expires_at)
        })
        .await
        .map_err(|error: diesel::result::Error| DbError::from(error))
}

/// Whose token this is, if it is still good: one read by the unique hash. The use is written down at most once a
/// minute.
///
/// # Errors
/// [`DbError`].
pub async fn find_caller(
    connection: &mut AsyncPgConnection,
    token: TokenHash,
    idle_hours: i32,
) -> Result<Option<Caller>, DbError> {
    let found = sessions::table
        .inner_join(profiles::table)
        .filter(sessions::token_hash.eq(token.0.as_slice()))
        .filter(is_good(idle_hours.hours()))
        .select((
            sessions::id,
            profiles::id,
            profiles::role,
            sql::<Bool>("sessions.last_used_at < now() - interval '1 minute'"),
        ))
        .first::<(Uuid, Uuid, Role, bool)>(connection)
        .await
        .optional()?;
    let Some((session_id, profile_id, role, is_stale)) = found else {
        return Ok(None);
    };
    if is_stale {
        // The condition again: of several requests at once one writes.
        diesel::update(sessions::table.find(session_id))
            .filter(sql::<Bool>("last_used_at < now() - interval '1 minute'"))
            .set(sessions::last_used_at.eq(now))
            .execute(connection)
            .await?;
    }
    Ok(Some(Caller {
        profile_id,
        role,
        session_id,
    }))
}

/// Exchanges a session's token for another, and begins its lifetime anew; `None` if `former` is not its token any more.
///
/// # Errors
/// [`DbError`]; after [`DbError::Interrupted`] it may have been exchanged, and its owner has to sign in.
pub async fn replace_token(
    connection: &mut AsyncPgConnection,
    former: TokenHash,
    new: TokenHash,
    lifetime: Lifetime,
) -> Result<Option<OffsetDateTime>, DbError> {
    diesel::update(sessions::table)
        .filter(sessions::token_hash.eq(former.0.as_slice()))
        .filter(is_good(lifetime.idle_hours.hours()))
        .set((
            sessions::token_hash.eq(new.0.as_slice()),
            sessions::last_used_at.eq(now),
            sessions::expires_at.eq(in_hours!(lifetime.hours)),
        ))
        .returning(sessions::expires_at)
        .get_result(connection)
        .await
        .optional()
        .map_err(DbError::from)
}

/// A profile's sessions that are still good, the last used first.
///
/// # Errors
/// [`DbError`].
pub async fn list_sessions(
    connection: &mut AsyncPgConnection,
    profile_id: Uuid,
    idle_hours: i32,
) -> Result<Vec<Session>, DbError> {
    sessions::table
        .filter(sessions::profile_id.eq(profile_id))
        .filter(is_good(idle_hours.hours()))
        .order((sessions::last_used_at.desc(), sessions::id.desc()))
        .limit(PER_PROFILE)
        .select(Session::as_select())
        .load(connection)
        .await
        .map_err(DbError::from)
}

/// Ends one session of a profile; `false` if it has no such session.
///
/// # Errors
/// [`DbError`].
pub async fn delete_session(
    connection: &mut AsyncPgConnection,
    profile_id: Uuid,
    id: Uuid,
) -> Result<bool, DbError> {
    diesel::delete(sessions::table.find(id))
        .filter(sessions::profile_id.eq(profile_id))
        .execute(connection)
        .await
        .map(|count| count > 0)
        .map_err(DbError::from)
}

/// Ends all sessions of a profile; `false` if there is no such profile.
///
/// # Errors
/// [`DbError`].
pub async fn delete_sessions(
    connection: &mut AsyncPgConnection,
    profile_id: Uuid,
) -> Result<bool, DbError> {
    let deleted = diesel::delete(sessions::table.filter(sessions::profile_id.eq(profile_id)))
        .execute(connection)
        .await?;
    if deleted > 0 {
        return Ok(true);
    }
    profiles::table
        .find(profile_id)
        .select(count_star())
        .get_result::<i64>(connection)
        .await
        .map(|count| count > 0)
        .map_err(DbError::from)
}

/// Deletes sessions that are no longer good, `batch` at most, and returns how many.
///
/// # Errors
/// [`DbError`].
pub async fn delete_expired(
    connection: &mut AsyncPgConnection,
    idle_hours: i32,
    batch: i64,
) -> Result<usize, DbError> {
    // Rows that a request or another server's sweep has locked are somebody else's business.
    diesel::sql_query(
        "DELETE FROM sessions WHERE id IN (\
             SELECT id FROM sessions \
             WHERE expires_at <= now() OR last_used_at <= now() - make_interval(hours => $1) \
             LIMIT $2 FOR UPDATE SKIP LOCKED)",
    )
    .bind::<Integer, _>(idle_hours)
    .bind::<BigInt, _>(batch)
    .execute(connection)
    .await
    .map_err(DbError::from)
}

#[diesel::dsl::auto_type]
fn is_good(idle: PgInterval) -> _ {
    let idle_until = sessions::last_used_at + idle;
    sessions::expires_at.gt(now).and(idle_until.gt(now))
}
