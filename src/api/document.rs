//! The published OpenAPI document: what the framework derives, and what it leaves out. The rest follows from rules, so
//! that a new resource says only what is its own; `document/tests.rs` names what a rule could not fill in.

mod answers;
mod examples;
mod headers;
mod schemas;

use serde_json::Value;

pub use examples::ID as EXAMPLE_ID;

/// The document as it is served under `/openapi.json` and printed by `drawbridge-host openapi`.
pub fn document() -> Value {
    // The framework printed it, so it parses.
    let mut document: Value = serde_json::from_str(&super::service().spec()).unwrap_or_default();
    schemas::complete(&mut document);
    answers::complete(&mut document);
    examples::complete(&mut document);
    drop_defaults(&mut document);
    document
}

/// `deprecated: false` and the like say nothing, many times over.
fn drop_defaults(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(drop_defaults),
        Value::Object(object) => {
            object.retain(|key, value| {
                !matches!(
                    (key.as_str(), value),
                    ("deprecated", Value::Bool(false)) | ("explode", Value::Bool(true))
                )
            });
            object.values_mut().for_each(drop_defaults);
        }
        _ => {}
    }
}

/// One operation of the document.
struct Operation<'a> {
    path: &'a str,
    method: &'a str,
    body: &'a mut Value,
}

/// All operations, in the document's order.
fn operations(document: &mut Value) -> impl Iterator<Item = Operation<'_>> {
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    paths.flat_map(|(path, methods)| {
        let methods = methods.as_object_mut().into_iter().flatten();
        methods.map(|(method, body)| Operation { path, method, body })
    })
}

/// The values of an object, and of nothing else.
fn children(value: &mut Value) -> impl Iterator<Item = &mut Value> {
    value
        .as_object_mut()
        .into_iter()
        .flat_map(|object| object.values_mut())
}

/// The elements of a list, and of nothing else.
fn elements(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The name in a reference to a component: `Item` for `#/components/schemas/Item`.
fn referenced(value: &Value) -> Option<&str> {
    value["$ref"].as_str()?.rsplit('/').next()
}

#[cfg(test)]
mod tests;
