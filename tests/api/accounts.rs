//! Registering, signing in, roles, and what is kept of passwords and tokens.

use serde_json::{Value, json};

use crate::support::{
    postgres,
    server::{Answer, TestServer, host},
};

pub const PASSWORD: &str = "planted horse battery";

/// A registered profile's id and a token of it.
pub fn sign_up(server: &TestServer, email: &str) -> (String, String) {
    let answer = register(server, email);
    assert_eq!(answer.status, 201, "{answer:?}");
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    (id, sign_in(server, email))
}

pub fn register(server: &TestServer, email: &str) -> Answer {
    let body = json!({"name": "Ada", "email": email, "password": PASSWORD});
    server.post("/auth/register", body.to_string())
}

/// A new token.
pub fn sign_in(server: &TestServer, email: &str) -> String {
    let answer = login(server, email, PASSWORD);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["token"].as_str().unwrap().to_owned()
}

pub fn login(server: &TestServer, email: &str, password: &str) -> Answer {
    let body = json!({"email": email, "password": password});
    server.post("/auth/login", body.to_string())
}

/// A request with a token and a JSON body.
pub fn ask(server: &TestServer, token: &str, method: &str, path: &str, body: &Value) -> Answer {
    let body = body.to_string();
    server.send(format!(
        "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
         User-Agent: tests/1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

pub fn get_as(server: &TestServer, token: &str, path: &str) -> Answer {
    ask(server, token, "GET", path, &Value::Null)
}

#[tokio::test]
async fn who_registers_signs_in_and_is_who_they_say() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    let body = json!({"name": "Ada Lovelace", "email": " Ada@Example.org ", "password": PASSWORD});
    let answer = server.post("/auth/register", body.to_string());
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let profile = answer.json();
    let fields: Vec<_> = profile.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["id", "name", "email", "role", "created_at"]);
    assert_eq!(profile["email"], "Ada@Example.org");
    assert_eq!(profile["role"], "student");

    let answer = login(&server, "ada@EXAMPLE.org", PASSWORD);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let session = answer.json();
    for field in ["id", "name", "email", "role"] {
        assert_eq!(session[field], profile[field], "{field}");
    }
    let me = get_as(&server, session["token"].as_str().unwrap(), "/auth/me");
    assert_eq!((me.status, me.json()), (200, profile));
}

#[tokio::test]
async fn an_address_is_taken_however_it_is_capitalised() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    let answers: Vec<u16> = std::thread::scope(|scope| {
        let (one, other) = ("ada@example.org", "ADA@example.ORG");
        let server = &server;
        let at_once = [one, other, one].map(|email| scope.spawn(move || register(server, email)));
        at_once.map(|answer| answer.join().unwrap().status).into()
    });
    let stored = answers.iter().filter(|status| **status == 201).count();
    assert!(
        stored == 1 && answers.iter().all(|status| [201, 409].contains(status)),
        "{answers:?}"
    );
    register(&server, "Ada@Example.org").problem(409);
}

#[tokio::test]
async fn bad_registrations_are_refused_and_store_nothing() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    let good = json!({"name": "Ada", "email": "ada@example.org", "password": PASSWORD});
    for (field, value) in [
        ("name", json!("")),
        ("name", json!("a".repeat(201))),
        ("name", json!(7)),
        ("email", json!("ada")),
        ("email", json!("ada@example.org\n")),
        ("email", json!(format!("{}@example.org", "a".repeat(250)))),
        ("password", json!("elevenchars")),
        ("password", json!("a".repeat(129))),
        ("password", json!("a\0 of twelve or more")),
        ("role", json!("admin")),
    ] {
        let mut body = good.clone();
        body[field] = value;
        let detail = server.post("/auth/register", body.to_string()).problem(400);
        assert!(detail.contains(field), "{field}: {detail}");
    }
    let count = database
        .session()
        .await
        .query_one("SELECT count(*) FROM profiles", &[])
        .await
        .unwrap();
    assert_eq!(count.get::<_, i64>(0), 0);
}

#[tokio::test]
async fn set_role_makes_an_admin_at_once_and_refuses_whom_it_does_not_know() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    let (id, token) = sign_up(&server, "ada@example.org");
    let all = format!("/auth/profiles/{id}/sessions");
    let end_all = || ask(&server, &token, "DELETE", &all, &Value::Null);
    end_all().problem(403);

    let set_role = |email: &str, role: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), database.config()).unwrap();
        let output = host(file.path()).args(["set-role", email, role]).output();
        let output = output.unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code(), text)
    };
    let (code, text) = set_role("ADA@example.org", "admin");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("student") && text.contains("admin"), "{text}");
    assert_eq!(get_as(&server, &token, "/auth/me").json()["role"], "admin");
    let missing = "/auth/profiles/00000000-0000-0000-0000-000000000000/sessions";
    ask(&server, &token, "DELETE", missing, &Value::Null).problem(404);

    let (code, text) = set_role("nobody@example.org", "admin");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("/auth/register"), "{text}");
    assert_eq!(set_role("ada@example.org", "queen").0, Some(2));

    assert_eq!(set_role("ada@example.org", "student").0, Some(0));
    end_all().problem(403);
    assert_eq!(set_role("ada@example.org", "admin").0, Some(0));
    assert_eq!(end_all().status, 204);
    get_as(&server, &token, "/auth/me").problem(401);
}
