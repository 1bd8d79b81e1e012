//! Queries on `items`.

use diesel::{prelude::*, sql_types::Bool};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    DbError, Outcome, Reader, Versions,
    page::{Page, Position, behind},
    pattern::containing,
    schema::items,
};

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
    /// 1 on insertion, one more with every change.
    pub version: i64,
}

impl Item {
    /// Where it stands in the list.
    pub fn position(&self) -> Position {
        Position {
            created_at: self.created_at,
            id: self.id,
        }
    }
}

/// What is to be different about an item; `None` stays as it is.
#[derive(Debug, AsChangeset)]
#[diesel(table_name = items)]
pub struct Changes {
    /// 1 to 200 characters, none of them NUL.
    pub name: Option<String>,
    /// `Some(None)` clears it. At most 4000 characters, none of them NUL.
    pub description: Option<Option<String>>,
}

impl Changes {
    fn are_none(&self) -> bool {
        self.name.is_none() && self.description.is_none()
    }
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

/// One page of the items, newest first; with `text`, of those that have it in name or description, in whatever case.
///
/// # Errors
/// [`DbError`].
pub async fn list_items(
    reader: &Reader,
    page: Page,
    text: Option<&str>,
) -> Result<Vec<Item>, DbError> {
    let mut query = items::table
        .select(Item::as_select())
        .order((items::created_at.desc(), items::id.desc()))
        .limit(page.limit.into())
        .into_boxed();
    if let Some(after) = page.after {
        query = query.filter(behind(items::created_at, items::id, after));
    }
    if let Some(text) = text {
        let pattern = containing(text);
        query = query.filter(
            items::name
                .ilike(pattern.clone())
                .or(items::description.ilike(pattern)),
        );
    }
    let found = query.load(&mut reader.connection()).await;
    found.map_err(DbError::from)
}

/// The item with this id, if there is one.
///
/// # Errors
/// [`DbError`].
pub async fn find_item(reader: &Reader, id: Uuid) -> Result<Option<Item>, DbError> {
    find(reader.connection(), id).await
}

async fn find(mut connection: &AsyncPgConnection, id: Uuid) -> Result<Option<Item>, DbError> {
    items::table
        .find(id)
        .select(Item::as_select())
        .first(&mut connection)
        .await
        .optional()
        .map_err(DbError::from)
}

/// Changes an item that has one of these versions. Of several at once that want the same version one wins: the
/// statement that changes it looks at the version too.
///
/// # Errors
/// [`DbError`]; after [`DbError::Interrupted`] the item may be changed all the same.
pub async fn update_item(
    connection: &mut AsyncPgConnection,
    id: Uuid,
    changes: &Changes,
    versions: &Versions,
) -> Result<Outcome<Item>, DbError> {
    let step = if changes.are_none() { 0 } else { 1 };
    let updated = diesel::update(items::table.find(id))
        .filter(
            versions
                .is_any()
                .into_sql::<Bool>()
                .or(items::version.eq_any(versions.listed())),
        )
        .set((changes, items::version.eq(items::version + step)))
        .returning(Item::as_returning())
        .get_result(connection)
        .await
        .optional()?;
    outcome(connection, id, updated).await
}

/// Removes an item that has one of these versions.
///
/// # Errors
/// [`DbError`]; after [`DbError::Interrupted`] the item may be gone all the same.
pub async fn delete_item(
    connection: &mut AsyncPgConnection,
    id: Uuid,
    versions: &Versions,
) -> Result<Outcome<()>, DbError> {
    let deleted = diesel::delete(items::table.find(id))
        .filter(
            versions
                .is_any()
                .into_sql::<Bool>()
                .or(items::version.eq_any(versions.listed())),
        )
        .execute(connection)
        .await?;
    outcome(connection, id, (deleted > 0).then_some(())).await
}

/// What became of a change: when nothing was changed, whether that is for want of the item or of its version.
async fn outcome<T>(
    connection: &mut AsyncPgConnection,
    id: Uuid,
    changed: Option<T>,
) -> Result<Outcome<T>, DbError> {
    Ok(match changed {
        Some(changed) => Outcome::Done(changed),
        None if find(connection, id).await?.is_some() => Outcome::OtherVersion,
        None => Outcome::Missing,
    })
}
