//! Rules for schemas: what a request may hold, and what may be null.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{children, elements, operations, referenced};

/// Says of a schema, and does not narrow it.
const ANNOTATIONS: &[&str] = &[
    "deprecated",
    "description",
    "example",
    "nullable",
    "readOnly",
    "title",
    "writeOnly",
];

pub(super) fn complete(document: &mut Value) {
    // The framework says again, beside a reference, what it says of the field that holds it.
    for schema in children(&mut document["components"]["schemas"]) {
        if let Some(properties) = schema.get_mut("properties") {
            children(properties).for_each(unwrap_annotations);
        }
    }
    let requests = requested(document, |_| true);
    let patches = requested(document, |method| method == "patch");
    let Some(schemas) = document["components"]["schemas"].as_object_mut() else {
        return;
    };
    for (name, schema) in schemas {
        if requests.contains(name) {
            forbid_unknown_fields(schema);
        }
        // There null and absent differ, so the fields say themselves which of the two they take.
        if !patches.contains(name) {
            allow_null_for_optional_fields(schema);
        }
    }
}

/// The schemas that request bodies of such methods are made of.
fn requested(document: &mut Value, of_method: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let bodies: Vec<Value> = operations(document)
        .filter(|operation| of_method(operation.method))
        .map(|operation| operation.body["requestBody"].clone())
        .collect();
    let mut found = BTreeSet::new();
    let mut open: Vec<&Value> = bodies.iter().collect();
    while let Some(value) = open.pop() {
        match value {
            Value::Array(list) => open.extend(list),
            Value::Object(object) => {
                open.extend(object.values());
                if let Some(name) = referenced(value)
                    && found.insert(name.to_owned())
                {
                    open.push(&document["components"]["schemas"][name]);
                }
            }
            _ => {}
        }
    }
    found
}

/// The handlers refuse fields they do not know (`deny_unknown_fields`); the framework does not say so.
fn forbid_unknown_fields(schema: &mut Value) {
    if schema.get("properties").is_some() {
        schema["additionalProperties"] = Value::Bool(false);
    }
}

/// An optional field may be absent or null; the framework says only the former, and answers with the latter.
fn allow_null_for_optional_fields(schema: &mut Value) {
    let required = schema["required"].clone();
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else {
        return;
    };
    for (name, property) in properties {
        if elements(&required).any(|entry| entry == name.as_str()) {
            continue;
        }
        if property.get("$ref").is_some() {
            // Nothing may stand beside a reference.
            *property = json!({"allOf": [property.take()]});
        }
        property["nullable"] = Value::Bool(true);
    }
}

/// `allOf: [REFERENCE, {description}]` becomes `allOf: [REFERENCE]`; the description stands beside it already.
fn unwrap_annotations(property: &mut Value) {
    let says_nothing =
        |part: &Map<String, Value>| part.keys().all(|key| ANNOTATIONS.contains(&key.as_str()));
    if let Some(parts) = property.get_mut("allOf").and_then(Value::as_array_mut) {
        parts.retain(|part| !part.as_object().is_some_and(says_nothing));
    }
}
