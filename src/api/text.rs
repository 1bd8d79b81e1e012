//! Strings that are strings: the framework's own `String` also takes JSON numbers and booleans.

use std::{borrow::Cow, fmt};

use poem_openapi::{
    registry::{MetaSchema, MetaSchemaRef},
    types::{ParseError, ParseFromJSON, ParseFromParameter, ParseResult, ToJSON, Type},
};
use serde_json::Value;

use crate::appliance::Secret;

/// What Postgres can store, as a JSON Schema can say it. It stands in the types' own schema and is checked by their
/// parsers: the framework's `validator(pattern = …)` compiles its expression anew for every request.
const PATTERN: &str = "^[^\\u0000]*$";

// Text that Postgres can store: any characters but NUL. Say the length with `validator(…)` on the field. (A doc comment
// would be published as a title.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(pub String);

impl ParseFromJSON for Text {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        match value {
            Some(Value::String(text)) => without_nul(text).map(Self),
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

impl ParseFromParameter for Text {
    fn parse_from_parameter(value: &str) -> ParseResult<Self> {
        without_nul(value.to_owned()).map(Self)
    }
}

impl ToJSON for Text {
    fn to_json(&self) -> Option<Value> {
        Some(Value::String(self.0.clone()))
    }
}

fn without_nul<T: Type>(text: String) -> Result<String, ParseError<T>> {
    if text.contains('\0') {
        return Err(ParseError::custom("a NUL character in a string"));
    }
    Ok(text)
}

// A password or a token: as `Text`, and never shown by `Debug`.
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

impl ToJSON for SecretText {
    fn to_json(&self) -> Option<Value> {
        Some(Value::String(self.0.clone()))
    }
}

/// Both are strings to the framework, whose validators look at their characters.
macro_rules! string_type {
    ($type:ty) => {
        impl Type for $type {
            const IS_REQUIRED: bool = true;
            type RawValueType = String;
            type RawElementValueType = String;

            fn name() -> Cow<'static, str> {
                "string_text".into()
            }
            fn schema_ref() -> MetaSchemaRef {
                MetaSchemaRef::Inline(Box::new(MetaSchema {
                    pattern: Some(PATTERN.to_owned()),
                    ..MetaSchema::new("string")
                }))
            }
            fn as_raw_value(&self) -> Option<&String> {
                Some(&self.0)
            }
            fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a String> + 'a> {
                Box::new(std::iter::once(&self.0))
            }
        }
    };
}

string_type!(Text);
string_type!(SecretText);
