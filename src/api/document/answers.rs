//! Rules for answers: what the edge, the router, the database and the shared extractors can make of a request, whatever
//! its handler does.

use poem::http::StatusCode;
use serde_json::{Map, Value, json};

use super::{Operation, elements, examples, headers, operations};
use crate::api::{problem, session::ADMIN_SCHEME};

/// The framework's JSON; JSON has no character set to choose.
const FRAMEWORK_JSON: &str = "application/json; charset=utf-8";

/// The one path that waits for nothing: neither refused under load nor ever late.
const NEVER_WAITS: &str = "/health";

pub(super) fn complete(document: &mut Value) {
    let mut shared = Map::new();
    for operation in operations(document) {
        let mut common = common(&operation);
        if take_admin(operation.body) {
            common.push((StatusCode::FORBIDDEN, "The caller is not an admin."));
        }
        if let Some(content) = operation
            .body
            .get_mut("requestBody")
            .and_then(|body| body.get_mut("content"))
        {
            name_json(content);
        }
        let Some(responses) = operation.body["responses"].as_object_mut() else {
            continue;
        };
        for (status, response) in responses.iter_mut() {
            if let Some(content) = response.get_mut("content") {
                name_json(content);
            }
            headers::complete(status, response);
        }
        for (status, description) in common {
            let code = status.as_str();
            if responses.contains_key(code) {
                continue;
            }
            let name = component(status);
            responses.insert(
                code.to_owned(),
                json!({"$ref": format!("#/components/responses/{name}")}),
            );
            if !shared.contains_key(&name) {
                let mut answer = answer(status, description);
                headers::complete(code, &mut answer);
                shared.insert(name, answer);
            }
        }
        let mut sorted: Vec<(String, Value)> = std::mem::take(responses).into_iter().collect();
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        *responses = Map::from_iter(sorted);
    }
    shared.sort_keys();
    document["components"]["responses"] = Value::Object(shared);
    document["components"]["headers"] = headers::components();
}

/// OpenAPI has no roles: the extractor of admins calls its scheme [`ADMIN_SCHEME`], which is the one of every session, and 403.
fn take_admin(operation: &mut Value) -> bool {
    let security = operation.get_mut("security").and_then(Value::as_array_mut);
    let mut is_admin = false;
    for scheme in security.into_iter().flatten() {
        if scheme.get(ADMIN_SCHEME).is_some() {
            *scheme = json!({"bearer": []});
            is_admin = true;
        }
    }
    is_admin
}

/// Every status that follows from what an operation takes and is guarded by, unless its handler describes it.
fn common(operation: &Operation) -> Vec<(StatusCode, &'static str)> {
    let Operation { path, body, .. } = operation;
    let takes = |name: &str| {
        elements(&body["parameters"]).any(|parameter| {
            parameter["name"]
                .as_str()
                .is_some_and(|found| found.eq_ignore_ascii_case(name))
        })
    };
    let has_body = body.get("requestBody").is_some();
    let mut common = vec![(
        StatusCode::INTERNAL_SERVER_ERROR,
        "Something went wrong on the server.",
    )];
    if has_body || elements(&body["parameters"]).next().is_some() {
        common.push((
            StatusCode::BAD_REQUEST,
            "The request is not valid; `detail` says where.",
        ));
    }
    // Whoever may come without a session is not turned away for having none, but for a token that is none.
    if elements(&body["security"]).next().is_some() {
        common.push((
            StatusCode::UNAUTHORIZED,
            "There is no valid session: no token, or one that is unknown, expired or revoked.",
        ));
    }
    if path.contains('{') {
        common.push((StatusCode::NOT_FOUND, "There is nothing with this id."));
    }
    if takes("If-None-Match") {
        common.push((
            StatusCode::NOT_MODIFIED,
            "What the client has is still current.",
        ));
    }
    if takes("If-Match") {
        common.push((
            StatusCode::PRECONDITION_FAILED,
            "It was changed since the client read it.",
        ));
    }
    if takes("Idempotency-Key") {
        common.push((
            StatusCode::UNPROCESSABLE_ENTITY,
            "The key came with another request before.",
        ));
    }
    if has_body {
        common.extend([
            (
                StatusCode::REQUEST_TIMEOUT,
                "The body did not arrive in time.",
            ),
            (StatusCode::PAYLOAD_TOO_LARGE, "The body is too large."),
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body is not JSON."),
        ]);
    }
    if *path != NEVER_WAITS {
        common.extend([
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "The server has too much to do, or the database cannot be used at the moment.",
            ),
            (StatusCode::GATEWAY_TIMEOUT, "The answer took too long."),
        ]);
    }
    common
}

/// The name of a status among the components: `NotFound`.
fn component(status: StatusCode) -> String {
    let reason = status.canonical_reason().unwrap_or("Error");
    reason.chars().filter(char::is_ascii_alphabetic).collect()
}

fn answer(status: StatusCode, description: &str) -> Value {
    if status == StatusCode::NOT_MODIFIED {
        return json!({"description": description});
    }
    json!({
        "description": description,
        "content": {
            problem::CONTENT_TYPE: {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "example": examples::problem(status, description),
            },
        },
    })
}

/// Media types are looked up by tools that compare them as they are.
fn name_json(content: &mut Value) {
    if let Some(content) = content.as_object_mut() {
        let renamed =
            std::mem::take(content)
                .into_iter()
                .map(|(kind, media)| match kind.as_str() {
                    FRAMEWORK_JSON => ("application/json".to_owned(), media),
                    _ => (kind, media),
                });
        *content = renamed.collect();
    }
}
