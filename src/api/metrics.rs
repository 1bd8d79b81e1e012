//! `/metrics`: what the server counts, for Prometheus.

use poem::{
    Endpoint, Response,
    endpoint::make_sync,
    http::{HeaderValue, header},
};

use crate::metrics::{CONTENT_TYPE, Metrics};

/// Where it is, on the listener of its own and, if `metrics.public` is set, on the API's.
pub const PATH: &str = "/metrics";

/// The page.
pub fn page(metrics: Metrics) -> impl Endpoint<Output = Response> {
    make_sync(move |_| {
        let mut response = Response::builder()
            .content_type(CONTENT_TYPE)
            .body(metrics.text());
        let no_store = HeaderValue::from_static("no-store");
        response
            .headers_mut()
            .insert(header::CACHE_CONTROL, no_store);
        response
    })
}
