//! Strings that are strings: the framework's own `String` also takes JSON numbers and booleans.

use poem_openapi::{
    NewType,
    types::{ParseError, ParseFromJSON, ParseResult},
};
use serde_json::Value;

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
