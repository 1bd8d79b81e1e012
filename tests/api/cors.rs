//! What a page of another origin may do, as a browser asks it.

use crate::support::server::{Answer, TestServer};

const LISTED: &str = "https://app.example.org";
const OTHER: &str = "https://evil.example.org";

fn server(http: &str) -> TestServer {
    let none = "[database]\nhost = \"127.0.0.1\"\nport = 1\n";
    TestServer::start_unready(&format!("{none}[http]\n{http}"))
}

fn ask(server: &TestServer, method: &str, path: &str, origin: &str) -> Answer {
    let preflight = match method {
        "OPTIONS" => {
            "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\n"
        }
        _ => "",
    };
    server.send(format!(
        "{method} {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nOrigin: {origin}\r\n{preflight}\r\n"
    ))
}

fn cors_headers(answer: &Answer) -> Vec<&str> {
    let names = ["origin", "methods", "headers"].map(|name| format!("access-control-allow-{name}"));
    let expose = "access-control-expose-headers".to_owned();
    let names = names.iter().chain([&expose]);
    names.filter_map(|name| answer.header(name)).collect()
}

#[test]
fn a_listed_origin_may_read_answers_and_errors_and_an_unlisted_one_is_answered_without_permission()
{
    let server = server(&format!("cors_origins = [\"{LISTED}\"]\n"));
    for (path, status) in [
        ("/health", 200),
        ("/nothing", 404),
        ("/items/7", 400),
        ("/items", 503),
    ] {
        let answer = ask(&server, "GET", path, LISTED);
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(
            answer.header("access-control-allow-origin"),
            Some(LISTED),
            "{answer:?}"
        );
        let exposed = answer.header("access-control-expose-headers").unwrap();
        for name in [
            "ETag",
            "Link",
            "Location",
            "Retry-After",
            "X-Cache",
            "X-Request-Id",
        ] {
            assert!(exposed.contains(name), "{exposed}");
        }
        let answer = ask(&server, "GET", path, OTHER);
        assert_eq!((answer.status, cors_headers(&answer)), (status, vec![]));
        assert_eq!(answer.header("vary"), Some("Origin"), "{answer:?}");
    }
    assert_eq!(cors_headers(&server.get("/health")), [""; 0]);
}

#[test]
fn a_preflight_of_a_listed_origin_learns_what_the_path_can_do() {
    let server = server(&format!(
        "cors_origins = [\"http://other\", \"{LISTED}\"]\n"
    ));
    let answer = ask(&server, "OPTIONS", "/items", LISTED);
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    assert_eq!(answer.header("access-control-allow-origin"), Some(LISTED));
    let methods = answer.header("access-control-allow-methods").unwrap();
    assert!(
        methods.contains("POST") && methods.contains("GET"),
        "{methods}"
    );
    let headers = answer.header("access-control-allow-headers").unwrap();
    for name in [
        "Authorization",
        "Content-Type",
        "If-Match",
        "Idempotency-Key",
    ] {
        assert!(headers.contains(name), "{headers}");
    }
    let answer = ask(&server, "OPTIONS", "/items", OTHER);
    answer.problem(405);
    assert_eq!(cors_headers(&answer), [""; 0]);
}

#[test]
fn without_a_list_nobody_is_allowed_and_nobody_is_refused() {
    let server = server("");
    let answer = ask(&server, "GET", "/health", LISTED);
    assert_eq!((answer.status, cors_headers(&answer)), (200, vec![]));
    assert_eq!(answer.header("vary"), None);
}
