//! The published OpenAPI document: what the framework derives, and what it leaves out.

use serde_json::{Map, Value, json};

use super::request_id;

/// The document as it is served under `/openapi.json` and printed by `drawbridge-host openapi`.
pub fn document() -> Value {
    // The framework printed it, so it parses.
    let mut document: Value = serde_json::from_str(&super::service().spec()).unwrap_or_default();
    forbid_unknown_fields(&mut document);
    allow_null_for_optional_fields(&mut document);
    add_common_answers(&mut document);
    add_common_headers(&mut document);
    document
}

/// The handlers refuse fields they do not know; the framework does not say so.
fn forbid_unknown_fields(document: &mut Value) {
    let requests = ["CreateItem"];
    for name in requests {
        if let Some(schema) = document["components"]["schemas"][name].as_object_mut() {
            schema.insert("additionalProperties".to_owned(), Value::Bool(false));
        }
    }
}

/// An optional field may be absent or null; the framework says only the former, and answers with the latter.
fn allow_null_for_optional_fields(document: &mut Value) {
    for schema in children(&mut document["components"]["schemas"]) {
        let required = schema["required"].clone();
        let Some(properties) = schema["properties"].as_object_mut() else {
            continue;
        };
        for (name, property) in properties {
            let is_required = required
                .as_array()
                .is_some_and(|list| list.iter().any(|entry| entry == name.as_str()));
            if let (false, Some(property)) = (is_required, property.as_object_mut()) {
                property.insert("nullable".to_owned(), Value::Bool(true));
            }
        }
    }
}

/// What the edge, the router and the database can make of any request.
fn add_common_answers(document: &mut Value) {
    for operation in children(&mut document["paths"]).flat_map(children) {
        let has_body = operation.get("requestBody").is_some();
        let has_parameters = operation["parameters"]
            .as_array()
            .is_some_and(|list| !list.is_empty());
        let asks_database = operation["operationId"] != "check_health";
        let mut common = vec![(500, "Something went wrong on the server.")];
        if has_body || has_parameters {
            common.push((400, "The request is not valid; `detail` says where."));
        }
        if has_body {
            common.push((408, "The body did not arrive in time."));
            common.push((413, "The body is too large."));
            common.push((415, "The body is not JSON."));
        }
        if asks_database {
            common.push((503, "The database cannot be used at the moment."));
            common.push((504, "The answer took too long."));
        }
        let Some(responses) = operation["responses"].as_object_mut() else {
            continue;
        };
        for (status, description) in common {
            let status = status.to_string();
            if !responses.contains_key(&status) {
                responses.insert(status, problem(description));
            }
        }
        let mut sorted: Vec<(String, Value)> = std::mem::take(responses).into_iter().collect();
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        *responses = Map::from_iter(sorted);
    }
}

/// Every answer carries its request's id; a 503 also says when to come back.
fn add_common_headers(document: &mut Value) {
    let operations = children(&mut document["paths"]).flat_map(children);
    for responses in operations.filter_map(|operation| operation["responses"].as_object_mut()) {
        for (status, response) in responses {
            let headers = &mut response["headers"];
            headers[request_id::HEADER] = header("Names this request in the server's log.");
            if status == "503" {
                headers["Retry-After"] = header("Seconds to wait before the next try.");
            }
        }
    }
}

fn children(value: &mut Value) -> impl Iterator<Item = &mut Value> {
    value
        .as_object_mut()
        .into_iter()
        .flat_map(|object| object.values_mut())
}

fn header(description: &str) -> Value {
    json!({"description": description, "required": true, "schema": {"type": "string"}})
}

fn problem(description: &str) -> Value {
    json!({
        "description": description,
        "content": {
            super::problem::CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}},
        },
    })
}
