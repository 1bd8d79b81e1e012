//! `/items`: the smallest resource, and the one to copy.

use poem::{Result, http::StatusCode, web::Data};
use poem_openapi::{
    ApiResponse, Object, OpenApi,
    param::{Path, Query},
    payload::Json,
    types::{Example, MaybeUndefined, ToJSON},
};
use serde::Serialize;
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

use super::{
    cursor, document,
    etag::{self, IfMatch, IfNoneMatch},
    header::HeaderText,
    idempotency::{self, IdempotencyKey},
    patch::Change,
    payload::JsonText,
    problem::{Failure, Problem},
    request_header::Header,
    session::Writer,
    tags::Tag,
    text::Text,
};
use crate::{
    cache::{Cache, Entry, Key, Scope},
    db::{
        Database, DbError, Outcome, Position, Written,
        idempotency::{Answer, Once, once},
        items,
    },
};

/// The resource's name in the cache.
pub const RESOURCE: &str = "items";

/// Where the resource is.
const PATH: &str = "/items";

/// An item as it is stored.
#[derive(Debug, Object, Serialize)]
#[oai(example)]
struct Item {
    /// Assigned by the server.
    id: Uuid,
    /// What it is called.
    name: String,
    /// What there is to say about it; null: nothing.
    description: Option<String>,
    /// When it was stored, UTC.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

impl Example for Item {
    fn example() -> Self {
        Self {
            id: document::EXAMPLE_ID,
            name: "Lantern".to_owned(),
            description: Some("Burns for nine hours.".to_owned()),
            created_at: datetime!(2026-11-21 09:30:00 UTC),
        }
    }
}

impl From<items::Item> for Item {
    fn from(stored: items::Item) -> Self {
        Self {
            id: stored.id,
            name: stored.name,
            description: stored.description,
            created_at: stored.created_at,
        }
    }
}

/// An item to be stored.
#[derive(Debug, Clone, Object)]
#[oai(deny_unknown_fields, example)]
pub struct CreateItem {
    /// What it is called: 1 to 200 characters.
    #[oai(validator(min_length = 1, max_length = 200))]
    pub name: Text,
    /// What there is to say about it: at most 4000 characters. Absent or null: nothing.
    #[oai(validator(max_length = 4000))]
    pub description: Option<Text>,
}

impl Example for CreateItem {
    fn example() -> Self {
        Self {
            name: Text("Lantern".to_owned()),
            description: Some(Text("Burns for nine hours.".to_owned())),
        }
    }
}

/// What is to be different about an item. What is absent stays as it is.
#[derive(Debug, Object)]
#[oai(deny_unknown_fields, example)]
struct PatchItem {
    /// What it is to be called: 1 to 200 characters.
    #[oai(validator(min_length = 1, max_length = 200))]
    name: Change<Text>,
    /// What there is to say about it: at most 4000 characters. Null: nothing any more.
    #[oai(nullable, validator(max_length = 4000))]
    description: MaybeUndefined<Text>,
}

impl Example for PatchItem {
    fn example() -> Self {
        Self {
            name: Change(Some(Text("Lantern, red".to_owned()))),
            description: MaybeUndefined::Null,
        }
    }
}

impl From<PatchItem> for items::Changes {
    fn from(patch: PatchItem) -> Self {
        Self {
            name: patch.name.0.map(|text| text.0),
            description: match patch.description {
                MaybeUndefined::Undefined => None,
                MaybeUndefined::Null => Some(None),
                MaybeUndefined::Value(text) => Some(Some(text.0)),
            },
        }
    }
}

#[derive(ApiResponse)]
enum CreatedItem {
    /// The item is stored.
    #[oai(status = 201)]
    Created(
        JsonText<Item>,
        #[oai(header = "Location")] String,
        #[oai(header = "ETag")] String,
        #[oai(header = "Idempotent-Replayed")] Option<String>,
    ),
    /// The Idempotency-Key was used for another request within the last 24 hours.
    #[oai(status = 422, content_type = "application/problem+json")]
    OtherRequest(Json<Problem>),
}

#[derive(ApiResponse)]
enum ListedItems {
    /// One page of the items, newest first.
    #[oai(status = 200)]
    Listed(
        JsonText<Vec<Item>>,
        #[oai(header = "Link")] Option<HeaderText>,
        #[oai(header = "X-Cache")] HeaderText,
    ),
}

#[derive(ApiResponse)]
enum FoundItem {
    /// The item.
    #[oai(status = 200)]
    Found(
        JsonText<Item>,
        #[oai(header = "ETag")] Option<HeaderText>,
        #[oai(header = "X-Cache")] HeaderText,
    ),
    /// The item has a tag that `If-None-Match` names.
    #[oai(status = 304)]
    NotModified(
        #[oai(header = "ETag")] Option<HeaderText>,
        #[oai(header = "X-Cache")] HeaderText,
    ),
    /// No item has this id.
    #[oai(status = 404, content_type = "application/problem+json")]
    Missing(Json<Problem>),
}

#[derive(ApiResponse)]
enum PatchedItem {
    /// The item as it is now.
    #[oai(status = 200)]
    Patched(JsonText<Item>, #[oai(header = "ETag")] String),
    /// No item has this id.
    #[oai(status = 404, content_type = "application/problem+json")]
    Missing(Json<Problem>),
    /// The item has no tag that `If-Match` names. Nothing was changed.
    #[oai(status = 412, content_type = "application/problem+json")]
    Differs(Json<Problem>),
}

#[derive(ApiResponse)]
enum DeletedItem {
    /// The item is gone.
    #[oai(status = 204)]
    Deleted,
    /// No item has this id.
    #[oai(status = 404, content_type = "application/problem+json")]
    Missing(Json<Problem>),
    /// The item has no tag that `If-Match` names. It is still there.
    #[oai(status = 412, content_type = "application/problem+json")]
    Differs(Json<Problem>),
}

pub struct ItemsApi;

#[OpenApi(tag = "Tag::Items")]
impl ItemsApi {
    /// Store an item
    ///
    /// With an `Idempotency-Key`, a request that is sent again within 24 hours is answered as the first one was, and
    /// stores nothing.
    #[oai(path = "/items", method = "post", operation_id = "create_item")]
    async fn create_item(
        &self,
        writer: Writer,
        database: Data<&Database>,
        cache: Data<&Cache>,
        /// Any text of your own for this one item, such as a UUID. It means nothing for other callers.
        #[oai(name = "Idempotency-Key")]
        key: Header<IdempotencyKey>,
        item: Json<CreateItem>,
    ) -> Result<CreatedItem> {
        let owner = writer.profile_id();
        let stored = store(&database, &cache, owner, key.0, item.0);
        let (answer, replayed) = match stored.await? {
            Once::Now(answer) => (answer, None),
            Once::Before(answer) => (answer, Some("true".to_owned())),
            Once::OtherRequest => {
                return Ok(CreatedItem::OtherRequest(
                    Json(idempotency::other_request()),
                ));
            }
        };
        let text = JsonText::finished(answer.body.into());
        Ok(CreatedItem::Created(
            text,
            answer.location,
            answer.etag,
            replayed,
        ))
    }

    /// List items
    ///
    /// Newest first, page by page: follow the `Link` header. Whatever is stored and deleted meanwhile, no other item
    /// appears twice or not at all.
    #[oai(path = "/items", method = "get", operation_id = "list_items")]
    async fn list_items(
        &self,
        database: Data<&Database>,
        cache: Data<&Cache>,
        /// Only items with this text in name or description, in upper or lower case.
        // Three characters are what the index of trigrams can look up.
        #[oai(example = "example_q", validator(min_length = 3, max_length = 200))]
        q: Query<Option<Text>>,
        /// How many items at most.
        #[oai(
            default = "default_limit",
            validator(minimum(value = "1"), maximum(value = "200"))
        )]
        limit: Query<u16>,
        /// Where the last page ended, from its `Link` header.
        #[oai(example = "example_after")]
        after: Query<Option<String>>,
    ) -> Result<ListedItems> {
        let (q, limit, after) = (q.0.map(|text| text.0), limit.0, after.0);
        let page = cursor::page(PATH, limit, after.as_deref())?;
        let load = async {
            let at_least = cache.at_least(database.newest_write(&[Written::List(RESOURCE)]));
            let reader = match q {
                Some(_) => database.search_reader(at_least).await?,
                None => database.page_reader(at_least).await?,
            };
            let mut found = items::list_items(&reader, page, q.as_deref()).await?;
            let parameters = [("q", q.as_deref())];
            let link = cursor::next(&mut found, limit, items::Item::position, PATH, &parameters);
            let found: Vec<_> = found.into_iter().map(Item::from).collect();
            let body = JsonText::of(&found)?.into_bytes();
            Ok::<_, Failure>(Entry {
                body,
                etag: None,
                link,
            })
        };
        // Each search is another text, and every write ends them all: to keep them costs more than it saves.
        let key = q
            .is_none()
            .then(|| Key::page(RESOURCE, format!("{limit} {after:?}")));
        let (entry, outcome) = cache.get_or_load(key, load).await?;
        let (text, link) = (JsonText::finished(entry.body), entry.link.map(HeaderText));
        Ok(ListedItems::Listed(text, link, outcome.into()))
    }

    /// Find one item
    ///
    /// By its id.
    #[oai(path = "/items/:id", method = "get", operation_id = "find_item")]
    async fn find_item(
        &self,
        database: Data<&Database>,
        cache: Data<&Cache>,
        /// The item's id.
        id: Path<Uuid>,
        /// The tags of what you have; if one is the item's, the answer is 304.
        #[oai(name = "If-None-Match")]
        if_none_match: Header<IfNoneMatch>,
    ) -> Result<FoundItem> {
        let load = async {
            let at_least = cache.at_least(database.newest_write(&[Written::Row(id.0)]));
            let reader = database.reader(at_least).await?;
            let Some(item) = items::find_item(&reader, id.0).await? else {
                return Ok(None);
            };
            let etag = etag::header(item.version);
            let body = JsonText::of(&Item::from(item))?.into_bytes();
            Ok::<_, Failure>(Some(Entry {
                body,
                etag,
                link: None,
            }))
        };
        let found = cache.get_or_find(Key::row(RESOURCE, id.0), load).await?;
        let Some((entry, outcome)) = found else {
            return Ok(FoundItem::Missing(missing(id.0)));
        };
        let is_known = etag::is_known(if_none_match.0, entry.etag.as_ref());
        let etag = entry.etag.map(HeaderText);
        Ok(match is_known {
            true => FoundItem::NotModified(etag, outcome.into()),
            false => FoundItem::Found(JsonText::finished(entry.body), etag, outcome.into()),
        })
    }

    /// Change an item
    ///
    /// Absent fields stay as they are; an empty object changes nothing, the tag included.
    #[oai(path = "/items/:id", method = "patch", operation_id = "patch_item")]
    async fn patch_item(
        &self,
        _writer: Writer,
        database: Data<&Database>,
        cache: Data<&Cache>,
        /// The item's id.
        id: Path<Uuid>,
        /// The tags of what you have seen; the item is changed only if one is its own. Absent: it is changed in any case.
        #[oai(name = "If-Match")]
        if_match: Header<IfMatch>,
        patch: Json<PatchItem>,
    ) -> Result<PatchedItem> {
        let (id, versions, changes) = (id.0, etag::versions(if_match.0), patch.0.into());
        let database = database.clone();
        let patched = cache.write(scopes(id), async move {
            let mut connection = database.connection().await?;
            let done = items::update_item(&mut connection, id, &changes, &versions).await?;
            if let Outcome::Done(_) = done {
                database.note_write(&mut connection, &written(id)).await;
            }
            Ok(done)
        });
        Ok(match patched.await? {
            Outcome::Done(item) => {
                let etag = etag::of(item.version);
                let text = JsonText::of(&Item::from(item)).map_err(Failure::from)?;
                PatchedItem::Patched(text, etag)
            }
            Outcome::Missing => PatchedItem::Missing(missing(id)),
            Outcome::OtherVersion => PatchedItem::Differs(Json(etag::differs())),
        })
    }

    /// Delete an item
    ///
    /// There is no way back.
    #[oai(path = "/items/:id", method = "delete", operation_id = "delete_item")]
    async fn delete_item(
        &self,
        _writer: Writer,
        database: Data<&Database>,
        cache: Data<&Cache>,
        /// The item's id.
        id: Path<Uuid>,
        /// The tags of what you have seen; the item is deleted only if one is its own. Absent: it is deleted in any case.
        #[oai(name = "If-Match")]
        if_match: Header<IfMatch>,
    ) -> Result<DeletedItem> {
        let (id, versions) = (id.0, etag::versions(if_match.0));
        let database = database.clone();
        let deleted = cache.write(scopes(id), async move {
            let mut connection = database.connection().await?;
            let done = items::delete_item(&mut connection, id, &versions).await?;
            if let Outcome::Done(_) = done {
                database.note_write(&mut connection, &written(id)).await;
            }
            Ok(done)
        });
        Ok(match deleted.await? {
            Outcome::Done(()) => DeletedItem::Deleted,
            Outcome::Missing => DeletedItem::Missing(missing(id)),
            Outcome::OtherVersion => DeletedItem::Differs(Json(etag::differs())),
        })
    }
}

/// What a change of this item changes.
fn scopes(id: Uuid) -> [Scope; 2] {
    [Scope::row(RESOURCE, id), Scope::lists(RESOURCE)]
}

/// What a later read of the item or of the list must have seen.
fn written(id: Uuid) -> [Written; 2] {
    [Written::Row(id), Written::List(RESOURCE)]
}

/// Stores an item for the profile `owner` (`None`: anonymous), with a `key` only once.
///
/// # Errors
/// [`DbError`].
pub async fn store(
    database: &Database,
    cache: &Cache,
    owner: Option<Uuid>,
    key: Option<IdempotencyKey>,
    item: CreateItem,
) -> Result<Once, DbError> {
    let request = key.map(|key| key.request(owner.unwrap_or_default(), "POST /items", &item));
    let database = database.clone();
    let stored = cache.write([Scope::lists(RESOURCE)], async move {
        let mut connection = database.connection().await?;
        let done = once(&mut connection, request, |connection| {
            Box::pin(async move {
                let description = item.description.as_ref().map(|text| text.0.as_str());
                let item = items::create_item(connection, &item.name.0, description);
                item.await.map(created)
            })
        })
        .await?;
        if let Once::Now(answer) = &done {
            let id = answer.location.rsplit('/').next();
            let id = id.and_then(|id| id.parse().ok()).unwrap_or_default();
            database.note_write(&mut connection, &written(id)).await;
        }
        Ok(done)
    });
    stored.await
}

fn created(item: items::Item) -> Answer {
    Answer {
        location: format!("{PATH}/{}", item.id),
        etag: etag::of(item.version),
        body: Item::from(item).to_json_string(),
    }
}

fn missing(id: Uuid) -> Json<Problem> {
    let detail = format!("No item has the id {id}.");
    Json(Problem::new(StatusCode::NOT_FOUND, detail))
}

fn default_limit() -> u16 {
    50
}

fn example_q() -> Option<Text> {
    Some(Text("lantern".to_owned()))
}

fn example_after() -> Option<String> {
    let Item { created_at, id, .. } = Item::example();
    Some(cursor::encode(PATH, Position { created_at, id }))
}
