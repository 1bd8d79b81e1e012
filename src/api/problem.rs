//! The one error body: RFC 9457, `application/problem+json`.

use std::{any::Any, time::Duration};

use poem::{
    IntoResponse, Response,
    error::{MethodNotAllowedError, NotFoundError, ResponseError},
    http::{HeaderValue, StatusCode, header},
    middleware::PanicHandler,
};
use poem_openapi::{
    Object,
    error::{ContentTypeError, ParseParamError, ParsePathError, ParseRequestPayloadError},
};
use serde::Serialize;

use super::{
    fields::{FieldError, Operation, Parts, Place},
    request_id,
};
use crate::db::DbError;
use crate::error_chain::chain;

/// The media type of [`Problem`].
pub const CONTENT_TYPE: &str = "application/problem+json";

/// What a client is asked to wait before it tries again where nobody knows better, seconds.
pub const RETRY_AFTER_SECONDS: &str = "2";

/// Longer texts repeat the request's own body back.
const DETAIL_LIMIT: usize = 300;

/// An error (RFC 9457).
#[derive(Debug, Clone, Object, Serialize)]
pub struct Problem {
    /// What kind of problem it is, a URI. `about:blank`: the status says it all.
    #[oai(rename = "type")]
    #[serde(rename = "type")]
    kind: String,
    /// The status in words.
    title: String,
    /// The HTTP status, repeated.
    #[oai(validator(minimum(value = "400"), maximum(value = "599")))]
    status: u16,
    /// What is wrong with this request, for a person to read.
    detail: String,
    /// Names this request in the server's log; the same as the header `x-request-id`.
    request_id: String,
    /// Which fields are wrong, and how: all that could be found. Absent: no field by itself is wrong.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<FieldError>>,
    #[oai(skip)]
    #[serde(skip)]
    retry_after_seconds: Option<u64>,
}

impl Problem {
    /// A problem of the request being handled.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let detail = shortened(detail.into());
        Self {
            kind: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail,
            request_id: request_id::current(),
            errors: None,
            retry_after_seconds: None,
        }
    }

    /// Names the wrong fields, in the order of importance.
    #[must_use]
    pub fn with_errors(mut self, mut errors: Vec<FieldError>) -> Self {
        for error in &mut errors {
            error.field = shortened(std::mem::take(&mut error.field));
            error.detail = shortened(std::mem::take(&mut error.detail));
        }
        self.errors = (!errors.is_empty()).then_some(errors);
        self
    }

    /// Says when another try makes sense, for 429 and 503: the header `Retry-After`, in whole seconds, rounded up. Only
    /// where the problem itself becomes the answer: an answer enum has to name the header by itself.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.retry_after_seconds = Some(seconds.max(1));
        self
    }

    /// The text for a status nobody said more about. What went wrong inside stays inside.
    pub fn of_status(status: StatusCode) -> Self {
        let detail = match status {
            StatusCode::NOT_FOUND => {
                "There is nothing at this path; GET /docs lists what there is."
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                "This path has no such method; the Allow header lists those it has."
            }
            StatusCode::PAYLOAD_TOO_LARGE => {
                "The request's body is larger than this server accepts."
            }
            StatusCode::TOO_MANY_REQUESTS => {
                "Too many requests; the Retry-After header says how many seconds to wait."
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                "The service cannot answer at the moment; try again shortly."
            }
            StatusCode::GATEWAY_TIMEOUT => {
                "The answer took too long and was given up; try again shortly."
            }
            StatusCode::REQUEST_TIMEOUT => "The request's body did not arrive in time.",
            _ if status.is_server_error() => {
                "Something went wrong on the server; the log has it under this request_id."
            }
            _ => "The request cannot be answered as it is.",
        };
        Self::new(status, detail)
    }

    /// The text for what the framework refused before a handler ran. `parts` are those of the request, and `operation`
    /// is what it asked for.
    pub fn of_error(error: &poem::Error, operation: Option<Operation<'_>>, parts: &Parts) -> Self {
        let status = error.status();
        if status.is_server_error()
            || error.is::<NotFoundError>()
            || error.is::<MethodNotAllowedError>()
        {
            return Self::of_status(status);
        }
        let (place, name, reason) = if let Some(error) = error.downcast_ref::<ParsePathError>() {
            let pattern = operation.map_or("", |operation| operation.pattern);
            (
                Place::Path,
                path_parameter(error.name, pattern),
                &error.reason,
            )
        } else if let Some(error) = error.downcast_ref::<ParseParamError>() {
            (Place::Query, error.name, &error.reason)
        } else if let Some(error) = error.downcast_ref::<ParseRequestPayloadError>() {
            (Place::Body, "", &error.reason)
        } else if error.is::<ContentTypeError>() {
            let detail =
                "The request's body must be JSON; send the header Content-Type: application/json.";
            return Self::new(status, detail);
        } else {
            return Self::of_status(status);
        };
        let mut found = operation.map_or_else(Vec::new, |operation| operation.wrong_fields(parts));
        // What the document does not say, the framework still does: for a body, in a text that may name a field.
        if !found.iter().any(|(at, error)| match place {
            Place::Body => *at == place,
            _ => error.field == name,
        }) {
            let (name, detail) = match place {
                Place::Body => named_field(reason).unwrap_or((name, reason)),
                _ => (name, reason.as_str()),
            };
            let detail = format!("is not valid: {}", readable(detail));
            found.insert(0, (place, FieldError::new(name, detail)));
        }
        let Some((first, others)) = found.split_first() else {
            return Self::of_status(status);
        };
        let mut detail = format!("{} {}.", first.0.subject(&first.1.field), first.1.detail);
        if !others.is_empty() {
            detail = format!("{} `errors` has {} more.", shortened(detail), others.len());
        }
        let errors = found.into_iter().map(|(_, error)| error);
        Self::new(status, detail)
            .with_errors(errors.filter(|error| !error.field.is_empty()).collect())
    }
}

/// The field that a text of the framework names (`… field `name` verification failed. …`), and the rest of the text.
fn named_field(reason: &str) -> Option<(&str, &str)> {
    let (_, rest) = reason.split_once("field `")?;
    let (name, rest) = rest.split_once('`')?;
    let rest = rest
        .trim_start_matches(" verification failed. ")
        .trim_start_matches('.');
    Some((
        name,
        if rest.is_empty() {
            "it is not known"
        } else {
            rest
        },
    ))
}

fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(DETAIL_LIMIT) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// The framework counts path parameters (`param0`) instead of naming them.
fn path_parameter<'a>(counted: &'a str, pattern: &'a str) -> &'a str {
    let name = || {
        let index = counted.strip_prefix("param")?.parse().ok()?;
        let mut names = pattern
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        names.nth(index)
    };
    name().unwrap_or(counted)
}

/// The framework's texts name its own types first (`failed to parse "string_uuid": …`).
fn readable(reason: &str) -> String {
    let mut rest = reason;
    while let Some((_, cause)) = rest
        .strip_prefix("failed to parse \"")
        .and_then(|text| text.split_once("\": "))
    {
        rest = cause;
    }
    // ` (occurred while parsing "…")` at the end names them once more.
    let end = rest.find(" (occurred while parsing").unwrap_or(rest.len());
    rest.get(..end).unwrap_or(rest).to_owned()
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // Serializing strings and a number does not fail; an empty body would still carry status and id.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = Response::builder()
            .status(status)
            .content_type(CONTENT_TYPE)
            .body(body);
        let retry_after = match (status, self.retry_after_seconds) {
            (_, Some(seconds)) => Some(HeaderValue::from(seconds)),
            (StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS, None) => {
                Some(HeaderValue::from_static(RETRY_AFTER_SECONDS))
            }
            _ => None,
        };
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

/// Lets a handler return a problem with `?`.
impl From<Problem> for poem::Error {
    fn from(problem: Problem) -> Self {
        Self::from_response(problem.into_response())
    }
}

/// What a handler returns with `?` when the database failed it: 503 where another try may succeed, 500 where it will
/// not. The cause is in the log by then; the edge writes the body, which has nothing of it.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the database failed a request")]
pub struct Failure(StatusCode);

impl ResponseError for Failure {
    fn status(&self) -> StatusCode {
        self.0
    }
}

impl From<DbError> for Failure {
    fn from(error: DbError) -> Self {
        let text = chain(&error);
        if error.is_temporary() {
            tracing::warn!("{text}");
            return Self(StatusCode::SERVICE_UNAVAILABLE);
        }
        tracing::error!("{text}");
        Self(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// Lets a handler return a failure of the database with `?`.
impl From<DbError> for poem::Error {
    fn from(error: DbError) -> Self {
        Failure::from(error).into()
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        tracing::error!("an answer cannot be written as JSON: {error}");
        Self(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// The answer after a handler's panic, which the panic hook has logged by then.
#[derive(Debug, Clone, Copy)]
pub struct AfterPanic;

impl PanicHandler for AfterPanic {
    type Response = Problem;
    fn get_response(&self, _: Box<dyn Any + Send + 'static>) -> Self::Response {
        Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR)
    }
}
