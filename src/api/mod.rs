//! HTTP: one file per resource, [`edge`] around all of them, [`problem`] the one error body.

mod docs;
mod document;
mod edge;
mod health;
mod items;
mod problem;
mod request_id;
mod routes;
mod text;

pub use document::document;
pub use health::Lifecycle;
pub use problem::Problem;

use poem::{Endpoint, EndpointExt, Response, Route, get, middleware::CatchPanic};
use poem_openapi::OpenApiService;

use crate::{config::HttpSettings, db::Database};

/// The documented part of the API. To add a resource: its file, its `Api` here, its queries in `db/`, its tests in
/// `tests/api/`, and the snapshot renewed.
fn service() -> OpenApiService<(docs::HomeApi, health::HealthApi, items::ItemsApi), ()> {
    OpenApiService::new(
        (docs::HomeApi, health::HealthApi, items::ItemsApi),
        "Drawbridge",
        env!("CARGO_PKG_VERSION"),
    )
    .description(
        "A small API in front of Postgres. Every error, from every path, is an `application/problem+json` body \
         (RFC 9457); quote its `request_id` when you report one.",
    )
}

/// Everything the server answers, ready to be served.
pub fn app(
    settings: &HttpSettings,
    database: Database,
    lifecycle: Lifecycle,
) -> impl Endpoint<Output = Response> + 'static {
    let document = document();
    let routes = routes::Routes::of(&document, docs::PATHS);
    Route::new()
        .at("/docs", get(docs::page(&document)))
        .at("/openapi.json", get(docs::document(&document)))
        .nest_no_strip("/", service())
        .data(database)
        .data(lifecycle)
        .with(CatchPanic::new().with_handler(problem::AfterPanic))
        .with(edge::Edge::new(settings, routes))
}
