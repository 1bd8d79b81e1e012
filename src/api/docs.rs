//! What a browser sees: `/` leads to `/docs`, a page that needs nothing but this server, made from `/openapi.json`.

use poem::{Endpoint, IntoResponse, Response, endpoint::make_sync, http::header, web::Html};
use poem_openapi::{ApiResponse, OpenApi};
use serde_json::Value;

/// The paths of this file, which the document does not list.
pub const PATHS: &[&str] = &["/", "/docs", "/openapi.json"];

/// Swagger UI is one page with its scripts and styles inside, so `unsafe-inline` is what it needs; it may talk to this
/// server and to nobody else.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                      img-src 'self' data:; font-src data:; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// `/`, which is part of the service because the service's routes begin there.
pub struct HomeApi;

#[derive(ApiResponse)]
enum Home {
    /// The documentation.
    #[oai(status = 303)]
    Docs(#[oai(header = "Location")] String),
}

#[OpenApi]
impl HomeApi {
    #[oai(path = "/", method = "get", operation_id = "open_docs", hidden)]
    async fn open_docs(&self) -> Home {
        Home::Docs("/docs".to_owned())
    }
}

/// The page with the document inside.
pub fn page(document: &Value) -> impl Endpoint<Output = Response> + use<> {
    let service = super::service();
    // Inside a script element, so nothing in the document may end that element.
    let ours = document.to_string().replace("</", "<\\/");
    let page = service
        .swagger_ui_html()
        .replace(&service.spec(), &ours)
        .replace(
            "<html charset=\"UTF-8\">",
            "<!doctype html>\n<html lang=\"en\">",
        )
        .replace("<title>Swagger UI</title>", "<title>Drawbridge API</title>");
    make_sync(move |_| {
        Html(page.clone())
            .with_header(header::CONTENT_SECURITY_POLICY, POLICY)
            .into_response()
    })
}

/// The document itself.
pub fn document(document: &Value) -> impl Endpoint<Output = Response> + use<> {
    let text = document.to_string();
    make_sync(move |_| {
        Response::builder()
            .content_type("application/json")
            .body(text.clone())
    })
}
