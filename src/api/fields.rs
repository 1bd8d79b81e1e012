//! Which fields of a refused request are wrong, and how: all of them, by the published document.
//!
//! The framework stops at the first one, and names none where a type is wrong. So what it refuses is looked at once
//! more, against the schemas that clients see; what it accepts never comes here.

use std::str::FromStr as _;

use bytes::Bytes;
use poem::{
    Request,
    http::{HeaderMap, HeaderName, Uri},
};
use poem_openapi::Object;
use serde::Serialize;
use serde_json::Value;

use super::schema::Schemas;

/// A body can be wrong in as many places as it has bytes.
const LIMIT: usize = 50;

/// One wrong field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Object, Serialize)]
pub struct FieldError {
    /// Which one: the path inside the body (`name`, `skill_ids[3]`), or the name of a parameter or header.
    pub field: String,
    /// What is wrong with it; reads well after the field's name: `must have at most 200 characters`.
    pub detail: String,
}

impl FieldError {
    /// `detail` reads well after the name of the field.
    pub fn new(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            detail: detail.into(),
        }
    }
}

/// Where a field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Part of the path.
    Path,
    /// After the `?`.
    Query,
    /// A header.
    Header,
    /// The body.
    Body,
}

impl Place {
    /// `The field name`, to begin a sentence with.
    pub fn subject(self, field: &str) -> String {
        match self {
            Self::Path => format!("The {field} in the path"),
            Self::Query => format!("The parameter {field}"),
            Self::Header => format!("The header {field}"),
            Self::Body if field.is_empty() => "The request's body".to_owned(),
            Self::Body => format!("The field {field}"),
        }
    }
}

/// What of a request can be wrong, kept while a handler has the request itself.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Path and query.
    pub uri: Uri,
    /// The headers that the operation documents.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// What is published of one operation.
#[derive(Debug, Clone, Copy)]
pub struct Operation<'a> {
    /// The path's pattern: `/items/{id}`.
    pub pattern: &'a str,
    /// The operation object.
    pub object: &'a Value,
    /// What its references lead to.
    pub schemas: Schemas<'a>,
}

impl Operation<'_> {
    /// Those of the headers `given` that it documents.
    pub fn given_headers(&self, given: &HeaderMap) -> HeaderMap {
        let mut kept = HeaderMap::new();
        let parameters = self
            .parameters()
            .filter(|(place, ..)| *place == Place::Header);
        for name in parameters.filter_map(|(_, name, _)| HeaderName::from_str(name).ok()) {
            for value in given.get_all(&name) {
                kept.append(name.clone(), value.clone());
            }
        }
        kept
    }

    /// All that is wrong with `parts`, parameters first.
    pub fn wrong_fields(&self, parts: &Parts) -> Vec<(Place, FieldError)> {
        let mut found = Vec::new();
        let query: Vec<(String, String)> = {
            let request = Request::builder().uri(parts.uri.clone()).finish();
            request.params().unwrap_or_default()
        };
        for (place, name, parameter) in self.parameters() {
            let given: Vec<&str> = match place {
                Place::Path => self.path_part(parts.uri.path(), name).into_iter().collect(),
                Place::Query => {
                    let values = query.iter().filter(|(key, _)| key == name);
                    values.map(|(_, value)| value.as_str()).collect()
                }
                Place::Header => {
                    let values = parts.headers.get_all(name).iter();
                    values.filter_map(|value| value.to_str().ok()).collect()
                }
                Place::Body => continue,
            };
            let is_missing = given.is_empty() && parameter["required"] == true;
            // A part of the path is always there; what is not looked at is what is escaped.
            if is_missing && place != Place::Path {
                found.push((place, FieldError::new(name, "is required")));
            }
            for text in given {
                let value = self.schemas.value_of(&parameter["schema"], text);
                let mut errors = Vec::new();
                self.schemas
                    .check(&parameter["schema"], &value, name, &mut errors);
                found.extend(errors.into_iter().map(|error| (place, error)));
            }
        }
        if let Some(schema) = self.body_schema()
            && let Ok(body) = serde_json::from_slice(&parts.body)
        {
            let mut errors = Vec::new();
            self.schemas.check(schema, &body, "", &mut errors);
            found.extend(errors.into_iter().map(|error| (Place::Body, error)));
        }
        found.truncate(LIMIT);
        found
    }

    fn parameters(&self) -> impl Iterator<Item = (Place, &str, &Value)> {
        let list = self.object["parameters"].as_array().into_iter().flatten();
        list.filter_map(|parameter| {
            let place = match parameter["in"].as_str()? {
                "path" => Place::Path,
                "query" => Place::Query,
                "header" => Place::Header,
                _ => return None,
            };
            Some((place, parameter["name"].as_str()?, parameter))
        })
    }

    fn body_schema(&self) -> Option<&Value> {
        let content = self.object["requestBody"]["content"].as_object()?;
        let (_, media) = content.iter().find(|(kind, _)| kind.contains("json"))?;
        media.get("schema")
    }

    /// The part of `path` where the pattern has `{name}`, unless it has escapes in it.
    fn path_part<'a>(&self, path: &'a str, name: &str) -> Option<&'a str> {
        let parts = self.pattern.split('/').zip(path.split('/'));
        parts
            .filter(|(wanted, _)| {
                wanted.strip_prefix('{').and_then(|s| s.strip_suffix('}')) == Some(name)
            })
            .map(|(_, found)| found)
            .find(|found| !found.contains('%'))
    }
}
