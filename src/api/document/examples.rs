//! Rules for examples. A resource gives one for each of its objects (`#[oai(example)]` and `impl Example`, so that the
//! compiler checks it) and for parameters that no rule can guess; from these come the bodies, lists and problems.

use poem::http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{operations, referenced};
use crate::api::{
    Problem,
    fields::{FieldError, Place},
    problem,
};

/// The id in every example.
pub const ID: Uuid = uuid::uuid!("0193a5c8-5e4d-7cc0-b1b8-3c4a6a1de0d2");

/// The id of every example's request.
pub(super) const REQUEST_ID: &str = "0193a5c8-6f1b-7a52-9c0e-8d2f4b7a9e31";

pub(super) fn complete(document: &mut Value) {
    let schemas = document["components"]["schemas"].clone();
    for operation in operations(document) {
        let body = operation.body;
        for parameter in list(body, "parameters") {
            if parameter.get("example").is_none()
                && let Some(example) = of_parameter(parameter)
            {
                parameter["example"] = example;
            }
        }
        if let Some(content) = body
            .get_mut("requestBody")
            .and_then(|body| body.get_mut("content"))
        {
            complete_content(content, &schemas);
        }
        let responses = body["responses"].as_object_mut().into_iter().flatten();
        for (status, response) in responses {
            let description = response["description"].as_str().unwrap_or_default();
            let description = description.to_owned();
            let Some(content) = response.get_mut("content") else {
                continue;
            };
            if let Some(problems) = content.get_mut(problem::CONTENT_TYPE)
                && let Ok(status) = StatusCode::from_bytes(status.as_bytes())
            {
                problems["example"] = problem(status, &description);
            }
            complete_content(content, &schemas);
        }
    }
}

/// A problem with this status, whose answer the document describes as `description`.
pub(super) fn problem(status: StatusCode, description: &str) -> Value {
    let problem = match status {
        StatusCode::BAD_REQUEST => {
            let error = FieldError::new("name", "must have at least 1 character");
            let detail = format!("{} {}.", Place::Body.subject(&error.field), error.detail);
            Problem::new(status, detail).with_errors(vec![error])
        }
        StatusCode::REQUEST_TIMEOUT
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::TOO_MANY_REQUESTS => Problem::of_status(status),
        status if status.is_server_error() => Problem::of_status(status),
        _ => Problem::new(status, description),
    };
    let mut problem = json!(problem);
    problem["request_id"] = REQUEST_ID.into();
    problem
}

fn list<'a>(value: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> {
    value
        .get_mut(key)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

/// Its own, or what it is when nobody says, or an id.
fn of_parameter(parameter: &Value) -> Option<Value> {
    let schema = &parameter["schema"];
    let id = || (schema["format"] == "uuid").then(|| json!(ID));
    ["example", "default"]
        .into_iter()
        .find_map(|key| schema.get(key).cloned())
        .or_else(id)
}

fn complete_content(content: &mut Value, schemas: &Value) {
    for media in super::children(content) {
        if media.get("example").is_none()
            && let Some(example) = of_schema(&media["schema"], schemas)
        {
            media["example"] = example;
        }
    }
}

fn of_schema(schema: &Value, schemas: &Value) -> Option<Value> {
    if let Some(example) = schema.get("example") {
        return Some(example.clone());
    }
    if let Some(name) = referenced(schema) {
        return of_schema(&schemas[name], schemas);
    }
    if schema["type"] == "array" {
        return of_schema(&schema["items"], schemas).map(|one| json!([one]));
    }
    None
}
