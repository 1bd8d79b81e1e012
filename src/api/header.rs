//! An answer's header that is written once and then shared.

use std::borrow::Cow;

use poem::http::HeaderValue;
use poem_openapi::{
    registry::MetaSchemaRef,
    types::{ToHeader, Type},
};

use crate::metrics::CacheUse;

/// A header's value; in the document, a string. Cloning copies nothing, unlike that of a `String`.
#[derive(Debug, Clone)]
pub struct HeaderText(pub HeaderValue);

impl From<CacheUse> for HeaderText {
    fn from(outcome: CacheUse) -> Self {
        Self(HeaderValue::from_static(outcome.as_str()))
    }
}

impl Type for HeaderText {
    const IS_REQUIRED: bool = true;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        String::name()
    }
    fn schema_ref() -> MetaSchemaRef {
        String::schema_ref()
    }
    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }
    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(std::iter::once(self))
    }
}

impl ToHeader for HeaderText {
    fn to_header(&self) -> Option<HeaderValue> {
        Some(self.0.clone())
    }
}
