//! HTTP: one file per resource, [`edge`] around all of them, [`problem`] the one error body.

mod about;
mod auth;
mod client_address;
mod cors;
mod cursor;
mod docs;
mod document;
mod edge;
mod email;
mod etag;
mod fields;
mod header;
mod health;
mod home;
mod idempotency;
mod items;
mod metrics;
mod patch;
mod payload;
mod problem;
mod request_header;
mod request_id;
mod routes;
mod schema;
mod session;
mod shed;
mod tags;
mod text;

pub use client_address::{ClientAddress, IsHttps};
pub use document::document;
pub use fields::FieldError;
pub use health::Lifecycle;
pub use metrics::{PATH as METRICS_PATH, page as metrics_page};
pub use problem::Problem;
pub use session::{Admin, Session, Writer, token_hash};
pub use shed::Crowded;

use poem::{Endpoint, EndpointExt, Response, Route, get, middleware::CatchPanic};
use poem_openapi::{LicenseObject, OpenApiService, ServerObject};

use crate::{
    auth::Accounts, cache::Cache, config::Config, db::Database, metrics::Metrics, version,
};

/// The documented part of the API. To add a resource: its file, its `Api` here, its queries in `db/`, its tests in
/// `tests/api/`, and the snapshot renewed.
fn service() -> OpenApiService<
    (
        about::AboutApi,
        auth::AuthApi,
        health::HealthApi,
        items::ItemsApi,
    ),
    (),
> {
    OpenApiService::new(
        (about::AboutApi, auth::AuthApi, health::HealthApi, items::ItemsApi),
        "Drawbridge",
        version::VERSION,
    )
    .description(
        "A small API in front of Postgres. Every error, from every path, is an `application/problem+json` body \
         (RFC 9457); quote its `request_id` when you report one.",
    )
    .license(LicenseObject::new(env!("CARGO_PKG_LICENSE")))
    .server(ServerObject::new("/").description("The server that this document comes from."))
}

/// What the handlers share.
#[derive(Clone)]
pub struct State {
    /// Who may sign in, and how often.
    pub accounts: Accounts,
    /// Finished answers.
    pub cache: Cache,
    /// Where the data is.
    pub database: Database,
    /// Whether the process has been asked to end.
    pub lifecycle: Lifecycle,
    /// What is counted.
    pub metrics: Metrics,
}

/// Everything the server answers, ready to be served.
pub fn app(config: &Config, state: State) -> impl Endpoint<Output = Response> + 'static {
    let document = document();
    let mut pages = vec![
        (docs::PATH, routes::READ),
        (docs::DOCUMENT_PATH, routes::READ),
        (home::PATH, home::METHODS),
        (home::STYLE_PATH, routes::READ),
    ];
    let mut app = Route::new()
        .at(docs::PATH, get(docs::page(&document)))
        .at(docs::DOCUMENT_PATH, get(docs::document(&document)))
        .at(home::STYLE_PATH, get(home::style()));
    if config.metrics.public {
        pages.push((metrics::PATH, routes::READ));
        app = app.at(metrics::PATH, get(metrics::page(state.metrics.clone())));
    }
    let routes = routes::Routes::of(&document, &pages);
    app.nest_no_strip("/", home::before(service()))
        .data(state.accounts)
        .data(state.cache)
        .data(state.database)
        .data(state.lifecycle)
        .with(CatchPanic::new().with_handler(problem::AfterPanic))
        .with(shed::Shed::new(
            config.http.max_requests,
            state.metrics.clone(),
        ))
        .with(edge::Edge::new(&config.http, routes, state.metrics))
}
