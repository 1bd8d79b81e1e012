//! What no request can bring about in the real server on demand.

use poem::{EndpointExt, Route, get, handler, middleware::CatchPanic, post, test::TestClient};
use serde_json::{Value, json};

use super::*;

#[handler]
fn panic_with_a_secret() -> &'static str {
    panic!("planted inside")
}

#[handler]
async fn never_answer() -> &'static str {
    std::future::pending().await
}

#[handler]
fn fail_in_its_own_words() -> Response {
    Response::builder()
        .status(StatusCode::BAD_GATEWAY)
        .body("planted inside")
}

#[handler]
fn fail_with_an_error() -> Result<&'static str> {
    Err(poem::Error::from_string(
        "planted inside",
        StatusCode::INTERNAL_SERVER_ERROR,
    ))
}

#[handler]
fn count(body: Vec<u8>) -> String {
    body.len().to_string()
}

fn client() -> TestClient<impl Endpoint> {
    let settings = HttpSettings {
        request_timeout_seconds: 1,
        body_limit_bytes: 1024,
        ..HttpSettings::default()
    };
    let routes = Routes::of(&json!({}), &[("/panic", "GET")]);
    let app = Route::new()
        .at("/panic", get(panic_with_a_secret))
        .at("/never", get(never_answer))
        .at("/own", get(fail_in_its_own_words))
        .at("/error", get(fail_with_an_error))
        .at("/count", post(count))
        .with(CatchPanic::new().with_handler(problem::AfterPanic))
        .with(Edge::new(&settings, routes, crate::metrics::Metrics::new()));
    TestClient::new(app)
}

#[tokio::test]
async fn panics_errors_timeouts_and_foreign_answers_become_problems_that_tell_nothing() {
    let client = client();
    for (path, status) in [
        ("/panic", 500),
        ("/error", 500),
        ("/own", 502),
        ("/never", 504),
    ] {
        let answer = client.get(path).send().await.0;
        assert_eq!(answer.status().as_u16(), status, "{path}");
        assert_eq!(answer.content_type(), Some(problem::CONTENT_TYPE), "{path}");
        let id = answer.header(request_id::HEADER).unwrap().to_owned();
        let body: Value = answer.into_body().into_json().await.unwrap();
        assert_eq!(
            (&body["status"], &body["request_id"]),
            (&json!(status), &json!(id)),
            "{path}"
        );
        assert!(!body.to_string().contains("planted"), "{path}: {body}");
    }
}

#[tokio::test]
async fn a_body_at_the_limit_passes_whole_and_one_byte_more_does_not() {
    let client = client();
    let answer = client.post("/count").body(vec![b'x'; 1024]).send().await;
    answer.assert_text("1024").await;
    let answer = client.post("/count").body(vec![b'x'; 1025]).send().await;
    answer.assert_status(StatusCode::PAYLOAD_TOO_LARGE);
}
