//! `Idempotency-Key`: a POST that a client may send again without having its effect twice.

use poem::http::StatusCode;
use poem_openapi::{registry::MetaSchema, types::ToJSON};
use ring::digest::{SHA256, digest};
use uuid::Uuid;

use super::{problem::Problem, request_header::FromHeader};
use crate::db::idempotency::Request;

/// The header's value: 1 to 200 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The request of `caller` (nil: nobody in particular) that `route` (`POST /items`) do what `body` says.
    pub fn request(self, caller: Uuid, route: &str, body: &impl ToJSON) -> Request {
        let mut sum = [0; 32];
        sum.copy_from_slice(digest(&SHA256, body.to_json_string().as_bytes()).as_ref());
        Request {
            caller,
            route: route.to_owned(),
            key: self.0,
            digest: sum,
        }
    }
}

impl FromHeader for IdempotencyKey {
    fn schema() -> MetaSchema {
        MetaSchema {
            min_length: Some(1),
            max_length: Some(200),
            pattern: Some("^[!-~]+$".to_owned()),
            example: Some("8c4a3f0e-order-17".into()),
            ..MetaSchema::new("string")
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let is_key =
            (1..=200).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if is_key {
            Ok(Self(text.to_owned()))
        } else {
            Err("it takes 1 to 200 visible ASCII characters, such as a UUID, once".to_owned())
        }
    }
}

/// The problem of a key that was used for something else.
pub fn other_request() -> Problem {
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "This Idempotency-Key was used for another request within the last 24 hours; take a new one.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_1_to_200_visible_ascii_characters() {
        for good in ["k", "!~", "\"quoted\"", &"k".repeat(200)] {
            assert!(IdempotencyKey::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            " ",
            "a b",
            "a, b",
            "ü",
            "\u{fffd}",
            "a\u{7f}",
            &"k".repeat(201),
        ] {
            assert!(IdempotencyKey::parse(bad).is_err(), "{bad}");
        }
    }
}
