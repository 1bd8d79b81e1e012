//! Which pages in a browser may use the API: those of the origins in `http.cors_origins`. To others, and to whoever
//! sends no `Origin`, answers are as ever; their browser keeps them from reading what they were not meant to.

use std::collections::HashSet;

use poem::{
    Request, Response,
    http::{HeaderValue, Method, StatusCode, header},
};

/// What a page may send beside what it always may.
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, X-Request-Id",
);

/// What a page may read beside what it always may.
const RESPONSE_HEADERS: HeaderValue = HeaderValue::from_static(
    "ETag, Idempotent-Replayed, Link, Location, Retry-After, WWW-Authenticate, X-Cache, X-Request-Id",
);

/// For how long a browser need not ask again, seconds: the list changes with the configuration only.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// The allow-list.
#[derive(Debug, Clone, Default)]
pub struct Cors(HashSet<HeaderValue>);

/// An origin on the list, to be named in the answer.
pub struct Allowed(HeaderValue);

impl Cors {
    /// Of `origins` (`http.cors_origins`), checked by the configuration.
    pub fn new(origins: &[String]) -> Self {
        let values = origins.iter();
        Self(values.filter_map(|origin| origin.parse().ok()).collect())
    }

    /// The origin of `request`, if its pages may use the API.
    pub fn allowed(&self, request: &Request) -> Option<Allowed> {
        let origin = request.headers().get(header::ORIGIN)?;
        self.0.get(origin).cloned().map(Allowed)
    }

    /// Lets the page read this answer. Answers differ by origin, so that caches must know, also for those not allowed.
    pub fn mark(&self, allowed: Option<Allowed>, response: &mut Response) {
        if self.0.is_empty() {
            return;
        }
        let headers = response.headers_mut();
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        if let Some(Allowed(origin)) = allowed {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, RESPONSE_HEADERS);
        }
    }
}

/// Whether a browser asks beforehand what a page may do here.
pub fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to that, where the path has the methods of `allow`. No credentials: a page sends its token itself.
pub fn preflight(allow: &str) -> Response {
    let mut response = Response::builder().status(StatusCode::NO_CONTENT).finish();
    let headers = response.headers_mut();
    if let Ok(methods) = HeaderValue::from_str(allow) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    response
}
