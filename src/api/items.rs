//! `/items`: the smallest resource, and the one to copy.

use poem::{Result, http::StatusCode, web::Data};
use poem_openapi::{
    ApiResponse, Object, OpenApi,
    param::{Path, Query},
    payload::Json,
    types::Example,
};
use serde::Serialize;
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

use super::{
    document,
    header::HeaderText,
    payload::JsonText,
    problem::{Failure, Problem},
    tags::Tag,
    text::Text,
};
use crate::{
    cache::{Cache, Entry, Key, Scope},
    db::{Database, items},
};

/// The resource's name in the cache.
const RESOURCE: &str = "items";

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
#[derive(Debug, Object)]
#[oai(deny_unknown_fields, example)]
struct CreateItem {
    /// What it is called: 1 to 200 characters.
    #[oai(validator(min_length = 1, max_length = 200, pattern = "^[^\\u0000]*$"))]
    name: Text,
    /// What there is to say about it: at most 4000 characters. Absent or null: nothing.
    #[oai(validator(max_length = 4000, pattern = "^[^\\u0000]*$"))]
    description: Option<Text>,
}

impl Example for CreateItem {
    fn example() -> Self {
        Self {
            name: Text("Lantern".to_owned()),
            description: Some(Text("Burns for nine hours.".to_owned())),
        }
    }
}

#[derive(ApiResponse)]
enum CreatedItem {
    /// The item is stored.
    #[oai(status = 201)]
    Created(
        JsonText<Item>,
        /// The path of the new item.
        #[oai(header = "Location")]
        String,
    ),
}

#[derive(ApiResponse)]
enum ListedItems {
    /// The newest items, newest first.
    #[oai(status = 200)]
    Listed(
        JsonText<Vec<Item>>,
        /// `hit`, `miss` or `bypass`: whether the answer was kept from before.
        #[oai(header = "X-Cache")]
        HeaderText,
    ),
}

#[derive(ApiResponse)]
enum FoundItem {
    /// The item.
    #[oai(status = 200)]
    Found(
        JsonText<Item>,
        /// `hit`, `miss` or `bypass`: whether the answer was kept from before.
        #[oai(header = "X-Cache")]
        HeaderText,
    ),
    /// No item has this id.
    #[oai(status = 404, content_type = "application/problem+json")]
    Missing(Json<Problem>),
}

pub struct ItemsApi;

#[OpenApi(tag = "Tag::Items")]
impl ItemsApi {
    /// Store an item
    ///
    /// The answer has its id, and its path in `Location`.
    #[oai(path = "/items", method = "post", operation_id = "create_item")]
    async fn create_item(
        &self,
        database: Data<&Database>,
        cache: Data<&Cache>,
        item: Json<CreateItem>,
    ) -> Result<CreatedItem> {
        let database = database.clone();
        let stored = cache.write([Scope::lists(RESOURCE)], async move {
            let item = item.0;
            let description = item.description.as_ref().map(|text| text.0.as_str());
            let mut connection = database.connection().await?;
            items::create_item(&mut connection, &item.name.0, description).await
        });
        let item: Item = stored.await.map_err(Failure::from)?.into();
        let location = format!("/items/{}", item.id);
        let text = JsonText::of(&item).map_err(Failure::from)?;
        Ok(CreatedItem::Created(text, location))
    }

    /// List items
    ///
    /// Newest first.
    #[oai(path = "/items", method = "get", operation_id = "list_items")]
    async fn list_items(
        &self,
        database: Data<&Database>,
        cache: Data<&Cache>,
        /// How many items at most.
        #[oai(
            default = "default_limit",
            validator(minimum(value = "1"), maximum(value = "200"))
        )]
        limit: Query<u16>,
    ) -> Result<ListedItems> {
        let key = Key::page(RESOURCE, format!("limit={}", limit.0));
        let load = async {
            let mut connection = database.connection().await?;
            let found = items::list_items(&mut connection, limit.0).await?;
            let found: Vec<_> = found.into_iter().map(Item::from).collect();
            let entry = Entry {
                body: JsonText::of(&found)?.into_bytes(),
                etag: None,
                link: None,
            };
            Ok::<_, Failure>(entry)
        };
        let (entry, outcome) = cache.get_or_load(key, load).await?;
        Ok(ListedItems::Listed(
            JsonText::finished(entry.body),
            outcome.into(),
        ))
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
    ) -> Result<FoundItem> {
        let load = async {
            let mut connection = database.connection().await?;
            let Some(item) = items::find_item(&mut connection, id.0).await? else {
                return Ok(None);
            };
            let entry = Entry {
                body: JsonText::of(&Item::from(item))?.into_bytes(),
                etag: None,
                link: None,
            };
            Ok::<_, Failure>(Some(entry))
        };
        let found = cache.get_or_find(Key::row(RESOURCE, id.0), load).await?;
        Ok(match found {
            Some((entry, outcome)) => {
                FoundItem::Found(JsonText::finished(entry.body), outcome.into())
            }
            None => FoundItem::Missing(Json(Problem::new(
                StatusCode::NOT_FOUND,
                format!("No item has the id {}.", id.0),
            ))),
        })
    }
}

fn default_limit() -> u16 {
    50
}
