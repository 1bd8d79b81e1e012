//! Queries on `profiles`.

use diesel::{
    prelude::*,
    sql_types::{Nullable, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{DbError, schema::profiles};
use crate::auth::{Email, Role};

diesel::define_sql_function! {
    /// As the unique index on `profiles` has it.
    fn lower(text: Text) -> Text;
}

/// One stored profile, without its password's hash.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = profiles, check_for_backend(diesel::pg::Pg))]
pub struct Profile {
    /// Assigned on insertion, version 7.
    pub id: Uuid,
    /// 1 to 200 characters, none of them NUL.
    pub name: String,
    /// As it was entered, trimmed.
    pub email: String,
    /// What somebody is now; a session has the role of its profile.
    pub role: Role,
    /// Assigned by the database on insertion, microseconds.
    pub created_at: OffsetDateTime,
}

/// Stores a new profile; `None` if its e-mail address is taken.
///
/// # Errors
/// [`DbError`]; after [`DbError::Interrupted`] the profile may be stored all the same.
pub async fn create_profile(
    connection: &mut AsyncPgConnection,
    name: &str,
    email: &Email,
    password_hash: &str,
    role: Role,
) -> Result<Option<Profile>, DbError> {
    diesel::insert_into(profiles::table)
        .values((
            profiles::id.eq(Uuid::now_v7()),
            profiles::name.eq(name),
            profiles::email.eq(email.as_str()),
            profiles::password_hash.eq(password_hash),
            profiles::role.eq(role),
        ))
        .on_conflict_do_nothing()
        .returning(Profile::as_returning())
        .get_result(connection)
        .await
        .optional()
        .map_err(DbError::from)
}

/// The profile with this e-mail address and its password's hash, if there is one.
///
/// # Errors
/// [`DbError`].
pub async fn find_by_email(
    connection: &mut AsyncPgConnection,
    email: &Email,
) -> Result<Option<(Profile, String)>, DbError> {
    profiles::table
        .filter(lower(profiles::email).eq(email.key()))
        .select((Profile::as_select(), profiles::password_hash))
        .first(connection)
        .await
        .optional()
        .map_err(DbError::from)
}

/// The profile with this id, if there is one.
///
/// # Errors
/// [`DbError`].
pub async fn find_profile(
    connection: &mut AsyncPgConnection,
    id: Uuid,
) -> Result<Option<Profile>, DbError> {
    profiles::table
        .find(id)
        .select(Profile::as_select())
        .first(connection)
        .await
        .optional()
        .map_err(DbError::from)
}

/// Replaces a password's hash, unless somebody else has done so since `former` was read.
///
/// # Errors
/// [`DbError`].
pub async fn replace_password_hash(
    connection: &mut AsyncPgConnection,
    id: Uuid,
    former: &str,
    new: &str,
) -> Result<(), DbError> {
    diesel::update(profiles::table.find(id))
        .filter(profiles::password_hash.eq(former))
        .set(profiles::password_hash.eq(new))
        .execute(connection)
        .await
        .map(drop)
        .map_err(DbError::from)
}

/// Makes the profile with this e-mail address a `role`, and returns what it was before; `None` if there is no such
/// profile.
///
/// # Errors
/// [`DbError`].
pub async fn set_role(
    connection: &mut AsyncPgConnection,
    email: &Email,
    role: Role,
) -> Result<Option<Role>, DbError> {
    // One statement: the row that is read is the row that is changed.
    diesel::sql_query(
        "WITH former AS (SELECT id, role FROM profiles WHERE lower(email) = $1 FOR UPDATE) \
         UPDATE profiles SET role = $2 FROM former WHERE profiles.id = former.id \
         RETURNING former.role AS former",
    )
    .bind::<Text, _>(email.key())
    .bind::<Text, _>(role)
    .get_result::<Former>(connection)
    .await
    .optional()
    .map(|row| row.and_then(|row| row.former))
    .map_err(DbError::from)
}

#[derive(QueryableByName)]
struct Former {
    #[diesel(sql_type = Nullable<Text>)]
    former: Option<Role>,
}
