//! Strings that are strings: the framework's own `String` also takes JSON numbers and booleans.

use std::fmt;

use poem_openapi::{
    NewType,
    types::{ParseError, ParseFromJSON, ParseResult},
};
use serde_json::Value;

use crate::appliance::Secret;

// Text that Postgres can store: any characters but NUL. Say the length with `validator(…)` on the field, and
// `pattern = "^[^\\u0000]*$"`, so that the document says it too. (A doc comment would be published as a title.)
#[derive(Debug, Clone, PartialEq, Eq, NewType)]
#[oai(from_json = false, from_multipart = false)]
pub struct Text(pub String);

impl ParseFromJSON for Text {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        match value {
            Some(Value::String(text)) if text.contains('\0') => {
                Err(ParseError::custom("a NUL character in a string"))
            }
            Some(Value::String(text)) => Ok(Self(text)),
            Some(Value::Number(_)) => Err(ParseError::custom("a number where a string should be")),
            Some(Value::Bool(_)) => {
                Err(ParseError::custom("true or false where a string should be"))
            }
            Some(Value::Array(_)) => Err(ParseError::custom("a list where a string should be")),
            Some(Value::Object(_)) => Err(ParseError::custom("an object where a string should be")),
            Some(Value::Null) | None => Err(ParseError::custom("nothing where a string should be")),
        }
    }
}

// A password or a token: as `Text`, and never shown by `Debug`.
#[derive(NewType)]
#[oai(
    from_json = false,
    from_multipart = false,
    from_parameter = false,
    to_header = false
)]
pub struct SecretText(String);

impl SecretText {
    /// Into the form that the rest of the program takes it in.
    pub fn into_secret(self) -> Secret {
        Secret::new(self.0)
    }
}

impl From<&Secret> for SecretText {
    fn from(secret: &Secret) -> Self {
        Self(secret.expose().to_owned())
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

impl ParseFromJSON for SecretText {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        let text = Text::parse_from_json(value);
        text.map(|text| Self(text.0)).map_err(ParseError::propagate)
    }
}
