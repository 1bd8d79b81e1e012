//! A JSON body that is written once.
//!
//! The framework's own `Json` makes a tree of values first and then text of the tree. This one goes from the type to the
//! text through serde, or takes over text that is finished already; the document it leaves to the type, as `Json` does.

use std::marker::PhantomData;

use bytes::Bytes;
use poem::{
    IntoResponse, Response,
    http::{HeaderValue, header},
};
use poem_openapi::{
    payload::{Json, Payload},
    registry::{MetaSchemaRef, Registry},
    types::Type,
};
use serde::Serialize;

/// What the framework's own `Json` says.
const CONTENT_TYPE: &str = <Json<String> as Payload>::CONTENT_TYPE;

/// The text of a `T`.
pub struct JsonText<T> {
    bytes: Bytes,
    of: PhantomData<fn() -> T>,
}

impl<T: Serialize> JsonText<T> {
    /// Writes it.
    ///
    /// # Errors
    /// The value is one that JSON has no words for: a bug on our side.
    pub fn of(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::to_vec(value).map(|bytes| Self::finished(bytes.into()))
    }
}

impl<T> JsonText<T> {
    /// Takes over what [`Self::of`] has written before.
    pub fn finished(bytes: Bytes) -> Self {
        Self {
            bytes,
            of: PhantomData,
        }
    }

    /// The text itself.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

impl<T: Type> Payload for JsonText<T> {
    const CONTENT_TYPE: &'static str = CONTENT_TYPE;

    fn schema_ref() -> MetaSchemaRef {
        T::schema_ref()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

impl<T: Send> IntoResponse for JsonText<T> {
    fn into_response(self) -> Response {
        let mut response = Response::from(self.bytes);
        let kind = HeaderValue::from_static(CONTENT_TYPE);
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}
