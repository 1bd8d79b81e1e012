//! E-mail addresses in JSON bodies.

use std::borrow::Cow;

use poem_openapi::{
    registry::{MetaSchema, MetaSchemaRef},
    types::{ParseError, ParseFromJSON, ParseResult, ToJSON, Type},
};
use serde_json::Value;

use super::text::Text;
use crate::auth::Email;

/// What [`Email`] takes, as a JSON Schema can say it.
const PATTERN: &str =
    "^ *[!#-'*+/-9=?A-Z^-~-]+(\\.[!#-'*+/-9=?A-Z^-~-]+)*@[A-Za-z0-9-]+(\\.[A-Za-z0-9-]+)* *$";

// An e-mail address. (A doc comment would be published as a title.)
#[derive(Debug, Clone)]
pub struct EmailText(pub Email);

impl Type for EmailText {
    const IS_REQUIRED: bool = true;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        "string_email_address".into()
    }

    fn schema_ref() -> MetaSchemaRef {
        MetaSchemaRef::Inline(Box::new(MetaSchema {
            max_length: Some(Email::LIMIT),
            pattern: Some(PATTERN.to_owned()),
            ..MetaSchema::new("string")
        }))
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(std::iter::once(self))
    }
}

impl ParseFromJSON for EmailText {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        let Text(text) = Text::parse_from_json(value).map_err(ParseError::propagate)?;
        text.parse().map(Self).map_err(ParseError::custom)
    }
}

impl ToJSON for EmailText {
    fn to_json(&self) -> Option<Value> {
        Some(self.0.as_str().into())
    }
}
