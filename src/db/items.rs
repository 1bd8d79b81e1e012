//! Queries on `items`.

use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{DbError, schema::items};

/// One stored item.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = items, check_for_backend(diesel::pg::Pg))]
pub struct Item {
    /// Assigned on insertion, version 7.
    pub id: Uuid,
    /// 1 to 200 characters, none of them NUL.
    pub name: String,
    /// At most 4000 characters, none of them NUL.
    pub description: Option<String>,
    /// Assigned by the database on insertion, microseconds.
    pub created_at: OffsetDateTime,
}

/// Stores a new item.
///
/// # Errors
/// [`DbError`]; after [`DbError::Interrupted`] the item may be stored all the same.
pub async fn create_item(
    connection: &mut AsyncPgConnection,
    name: &str,
    description: Option<&str>,
) -> Result<Item, DbError> {
    diesel::insert_into(items::table)
        .values((
            items::id.eq(Uuid::now_v7()),
            items::name.eq(name),
            items::description.eq(description),
        ))
        .returning(Item::as_returning())
        .get_result(connection)
        .await
        .map_err(DbError::from)
}

/// The newest `limit` items, newest first.
///
/// # Errors
/// [`DbError`].
pub async fn list_items(
    connection: &mut AsyncPgConnection,
    limit: u16,
) -> Result<Vec<Item>, DbError> {
    items::table
        .select(Item::as_select())
        .order((items::created_at.desc(), items::id.desc()))
        .limit(limit.into())
        .load(connection)
        .await
        .map_err(DbError::from)
}

/// The item with this id, if there is one.
///
/// # Errors
/// [`DbError`].
pub async fn find_item(
    connection: &mut AsyncPgConnection,
    id: Uuid,
) -> Result<Option<Item>, DbError> {
    items::table
        .find(id)
        .select(Item::as_select())
        .first(connection)
        .await
        .optional()
        .map_err(DbError::from)
}
