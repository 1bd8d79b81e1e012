use crate::support::{
    postgres,
    server::{Answer, TestServer, wait_for},
};

#[tokio::test]
async fn every_refusal_is_a_problem_body_with_the_request_id() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    server.get("/nothing").problem(404);
    server.get("/items/").problem(404);
    server.get("/items/1/2").problem(404);
    server.post("/items", "{\"name\"").problem(400);
    server.post("/items", "").problem(400);
    server.post("/items", [b'"', 0xff, b'"']).problem(400);
    server.post_as("text/plain", "/items", b"{}").problem(415);
    server.method("POST", "/items").problem(415);
    server
        .post("/items", vec![b' '; 64 * 1024 + 1])
        .problem(413);
    let chunked = "POST /items HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Type: application/json\r\n\
                   Transfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("10001\r\n{}\r\n0\r\n\r\n", " ".repeat(0x10001));
    server.send(format!("{chunked}{chunk}")).problem(413);
    server
        .send(format!("{chunked}5\r\n{{\"nam\r\n0\r\n\r\n"))
        .problem(400);
}

#[tokio::test]
async fn all_wrong_fields_are_listed_by_name() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    let fields = |answer: Answer| -> Vec<String> {
        answer.problem(400);
        let body = answer.json();
        let errors = body["errors"].as_array();
        let errors = errors.unwrap_or_else(|| panic!("no errors: {body}"));
        assert!(
            errors
                .iter()
                .all(|error| error["detail"].as_str() > Some(""))
        );
        let names = errors.iter().map(|error| error["field"].as_str().unwrap());
        names.map(ToOwned::to_owned).collect()
    };
    let wrong = |body: &str| fields(server.post("/items", body));
    assert_eq!(wrong("{}"), ["name"]);
    assert_eq!(wrong(r#"{"name": 5}"#), ["name"]);
    assert_eq!(
        wrong(r#"{"name": null, "description": []}"#),
        ["name", "description"]
    );
    let long = "d".repeat(4001);
    assert_eq!(
        wrong(&format!(
            r#"{{"colour": 1, "name": "", "description": "{long}", "size": 2}}"#
        )),
        ["colour", "name", "description", "size"]
    );
    assert_eq!(fields(server.get("/items?limit=201")), ["limit"]);
    assert_eq!(fields(server.get("/items?limit=many")), ["limit"]);
    assert_eq!(fields(server.get("/items/7")), ["id"]);
    assert_eq!(fields(server.get("/items/%37")), ["id"]);
    // What is wrong as a whole is said in words only.
    for body in ["", "[]", "{", "5"] {
        let answer = server.post("/items", body);
        assert!(
            answer.problem(400).starts_with("The request's body"),
            "{answer:?}"
        );
        assert_eq!(answer.json().get("errors"), None);
    }
    let detail = server.get("/items?limit=201").problem(400);
    assert_eq!(detail, "The parameter limit must be at most 200.");
}

#[tokio::test]
async fn header_body_and_log_name_the_same_request() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    let session = database.session().await;
    session
        .batch_execute(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'planted-secret of %', current_user; END $$;
             CREATE TRIGGER fail BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION fail()",
        )
        .await
        .unwrap();
    let large = vec![b' '; 64 * 1024 + 1];
    let answers = [
        (404, server.get("/nothing")),
        (405, server.method("DELETE", "/docs")),
        (400, server.get("/items/7")),
        (400, server.post("/items", "{")),
        (413, server.post("/items", large)),
        (415, server.post_as("text/plain", "/items", b"{}")),
        (500, server.post("/items", r#"{"name":"n"}"#)),
    ];
    for (status, answer) in answers {
        answer.problem(status);
        assert!(!answer.body.contains("planted"), "{answer:?}");
        let id = answer.header("x-request-id").unwrap();
        wait_for("the access line", || {
            let mut events = server.events().into_iter();
            events.find(|event| event["span"]["request_id"] == id && event["status"] == status)
        });
    }
}

#[tokio::test]
async fn a_method_a_path_does_not_have_is_answered_405_with_the_ones_it_has() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    for (method, path, allow) in [
        ("DELETE", "/items", "GET, HEAD, POST"),
        (
            "PUT",
            "/items/00000000-0000-0000-0000-000000000000",
            "DELETE, GET, HEAD, PATCH",
        ),
        ("POST", "/docs", "GET, HEAD"),
        ("OPTIONS", "/health", "GET, HEAD"),
        ("DELETE", "/", "GET, HEAD, POST"),
    ] {
        let answer = server.method(method, path);
        answer.problem(405);
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
    }
}

#[tokio::test]
async fn a_body_that_does_not_arrive_in_time_is_answered_408() {
    let database = postgres::shared().database().await;
    let config = format!(
        "{}statement_timeout_seconds = 1\n[http]\nrequest_timeout_seconds = 2\n",
        database.config()
    );
    let server = TestServer::start(&config);
    let half = "POST /items HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Type: application/json\r\n\
                Content-Length: 20\r\n\r\n{\"na";
    server.send(half).problem(408);
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_ended_by_postgres_and_answered_503() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&format!(
        "{}statement_timeout_seconds = 1\npool_size = 1\n",
        database.config()
    ));
    let session = database.session().await;
    session
        .batch_execute("BEGIN; LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let answer = server.get("/items");
    let detail = answer.problem(503);
    assert!(
        !detail.contains("statement"),
        "the client learns the inside: {detail}"
    );
    assert!(answer.header("retry-after").is_some());
    session.batch_execute("COMMIT").await.unwrap();
    assert_eq!(
        server.get("/items").status,
        200,
        "the one connection was not usable again"
    );
}

#[tokio::test]
async fn a_bug_is_answered_500_with_nothing_internal_and_logged_under_the_request_id() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    let session = database.session().await;
    session
        .batch_execute("ALTER TABLE items RENAME COLUMN description TO words")
        .await
        .unwrap();
    let answer = server.get("/items");
    let detail = answer.problem(500);
    for inside in ["description", "column", "items", "postgres", "SELECT"] {
        assert!(!detail.contains(inside), "{detail}");
    }
    let id = answer.header("x-request-id").unwrap().to_owned();
    wait_for("the cause in the log", || {
        let events = server.events();
        events
            .iter()
            .any(|event| {
                event["span"]["request_id"] == id.as_str()
                    && event.to_string().contains("description")
            })
            .then_some(())
    });
}

#[tokio::test]
async fn a_harmless_request_id_is_kept_and_any_other_is_replaced() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    let ask = |id: &str| {
        let request = format!(
            "GET /nothing HTTP/1.1\r\nHost: t\r\nConnection: close\r\nX-Request-Id: {id}\r\n\r\n"
        );
        let answer = server.send(request);
        answer.problem(404);
        answer.header("x-request-id").unwrap().to_owned()
    };
    assert_eq!(ask("from-the_client.7"), "from-the_client.7");
    for bad in ["with space", "a\"b", "ü", &"x".repeat(65)] {
        assert_ne!(ask(bad), bad);
    }
}

#[tokio::test]
async fn each_request_is_one_log_line_with_pattern_status_and_duration_and_no_path() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    let answer = server.get("/items/00000000-0000-0000-0000-000000000000?planted=query");
    server.get("/planted-path");
    let id = answer.header("x-request-id").unwrap();
    let line = wait_for("the access line", || {
        server
            .events()
            .into_iter()
            .find(|event| event["span"]["request_id"] == id && event["status"] == 404)
    });
    assert_eq!(line["route"], "/items/{id}");
    assert_eq!(line["method"], "GET");
    assert_eq!(line["client"], "127.0.0.1");
    assert!(line["duration_ms"].as_f64().unwrap() > 0.0);
    wait_for("the second line", || {
        server.log().contains("(none)").then_some(())
    });
    let log = server.log();
    assert!(
        !log.contains("planted") && !log.contains("00000000-0000"),
        "{log}"
    );
}
