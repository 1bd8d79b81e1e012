//! Request headers that are parsed strictly: the framework's own `Header` passes over values it cannot read, and takes
//! the first of several.

use poem::{Request, RequestBody, Result};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    error::ParseParamError,
    registry::{MetaParamIn, MetaSchema, MetaSchemaRef},
};

/// What a header's value is parsed into.
pub trait FromHeader: Sized + Send {
    /// Its shape, for the document.
    fn schema() -> MetaSchema;

    /// Parses it, or says what is wrong with it: "it ...".
    ///
    /// # Errors
    /// For a person to read.
    fn parse(text: &str) -> Result<Self, String>;
}

/// An optional request header. Several of one name are one with commas between them (RFC 9110, 5.3).
pub struct Header<T>(pub Option<T>);

impl<'a, T: FromHeader> ApiExtractor<'a> for Header<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];
    const PARAM_IS_REQUIRED: bool = false;

    type ParamType = String;
    type ParamRawType = String;

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Header)
    }

    fn param_schema_ref() -> Option<MetaSchemaRef> {
        Some(MetaSchemaRef::Inline(Box::new(T::schema())))
    }

    async fn from_request(
        request: &'a Request,
        _: &mut RequestBody,
        options: ExtractParamOptions<Self::ParamType>,
    ) -> Result<Self> {
        let values: Vec<_> = request
            .headers()
            .get_all(options.name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        if values.is_empty() {
            return Ok(Self(None));
        }
        let parsed = T::parse(&values.join(", ")).map_err(|reason| ParseParamError {
            name: options.name,
            reason,
        })?;
        Ok(Self(Some(parsed)))
    }
}
