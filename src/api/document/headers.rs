//! Rules for headers: which every answer has, and what each is called and means.

use serde_json::{Map, Value, json};

use crate::api::request_id;

/// A header of answers that means the same wherever it stands.
struct Known {
    name: &'static str,
    description: &'static str,
    example: &'static str,
    always: Always,
}

/// Which answers have a header, whatever their handler says.
#[derive(Debug, PartialEq, Eq)]
enum Always {
    Never,
    At(&'static [&'static str]),
    Everywhere,
}

impl Known {
    fn is_always_at(&self, status: &str) -> bool {
        match self.always {
            Always::Never => false,
            Always::At(statuses) => statuses.contains(&status),
            Always::Everywhere => true,
        }
    }
}

const KNOWN: &[Known] = &[
    Known {
        name: "Cache-Control",
        description: "Whether the answer may be kept.",
        example: "no-store",
        always: Always::Never,
    },
    Known {
        name: "ETag",
        description: "Names this version; send it as `If-None-Match` or `If-Match`.",
        example: "\"1\"",
        always: Always::Never,
    },
    Known {
        name: "Idempotent-Replayed",
        description: "`true`: this is the answer to an earlier request with this `Idempotency-Key`; nothing was done again.",
        example: "true",
        always: Always::Never,
    },
    Known {
        name: "Link",
        description: "The next page, as `rel=\"next\"`; absent on the last one.",
        example: "</items?limit=50&after=bmV4dA>; rel=\"next\"",
        always: Always::Never,
    },
    Known {
        name: "Location",
        description: "The path of what was made.",
        example: "/items/0193a5c8-5e4d-7cc0-b1b8-3c4a6a1de0d2",
        always: Always::Never,
    },
    Known {
        name: "Retry-After",
        description: "Seconds to wait before the next try.",
        example: "2",
        always: Always::At(&["429", "503"]),
    },
    Known {
        name: "WWW-Authenticate",
        description: "How to sign in: with a bearer token.",
        example: "Bearer",
        always: Always::At(&["401"]),
    },
    Known {
        name: "X-Cache",
        description: "Whether the answer was kept ready: `hit`, `miss`, or `bypass` while the cache cannot be used.",
        example: "hit",
        always: Always::Never,
    },
    Known {
        name: request_id::HEADER,
        description: "Names this request in the server's log.",
        example: super::examples::REQUEST_ID,
        always: Always::Everywhere,
    },
];

/// The headers of one answer with this status: their names as they are written elsewhere, with meaning and example.
pub(super) fn complete(status: &str, response: &mut Value) {
    let Some(response) = response.as_object_mut() else {
        return;
    };
    let mut headers = Map::new();
    let found = response.remove("headers").unwrap_or_default();
    for (name, mut header) in found.as_object().cloned().into_iter().flatten() {
        // The framework shouts them.
        let known = KNOWN
            .iter()
            .find(|known| known.name.eq_ignore_ascii_case(&name));
        let Some(known) = known else {
            headers.insert(name, header);
            continue;
        };
        for (field, text) in [
            ("description", known.description),
            ("example", known.example),
        ] {
            if header.get(field).is_none() {
                header[field] = text.into();
            }
        }
        headers.insert(known.name.to_owned(), header);
    }
    for known in KNOWN.iter().filter(|known| known.is_always_at(status)) {
        headers.insert(
            known.name.to_owned(),
            json!({"$ref": format!("#/components/headers/{}", known.name)}),
        );
    }
    response.insert("headers".to_owned(), Value::Object(headers));
}

/// What the references of [`complete`] refer to.
pub(super) fn components() -> Value {
    let shared = KNOWN.iter().filter(|known| known.always != Always::Never);
    let header = |known: &Known| {
        json!({
            "description": known.description,
            "required": true,
            "schema": {"type": "string"},
            "example": known.example,
        })
    };
    Value::Object(
        shared
            .map(|known| (known.name.to_owned(), header(known)))
            .collect(),
    )
}
