//! `/docs`, a page that needs nothing but this server, made from `/openapi.json`.

use poem::{Endpoint, IntoResponse, Response, endpoint::make_sync, http::header, web::Html};
use serde_json::Value;

/// Where the page is.
pub const PATH: &str = "/docs";
/// Where the document is.
pub const DOCUMENT_PATH: &str = "/openapi.json";

/// Swagger UI is one page with its scripts and styles inside, so `unsafe-inline` is what it needs; it may talk to this
/// server and to nobody else.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                      img-src 'self' data:; font-src data:; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

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
