//! PATCH, DELETE, and the tags that guard them.

use std::thread;

use serde_json::{Value, json};

use crate::support::{
    postgres,
    server::{Answer, TestServer},
};

/// The path of a new item.
fn stored(server: &TestServer) -> String {
    let body = json!({"name": "before", "description": "some words"});
    let answer = server.post("/items", body.to_string());
    answer.header("location").unwrap().to_owned()
}

fn patch(server: &TestServer, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
    server.ask("PATCH", path, headers, Some(&body))
}

#[tokio::test]
async fn patch_leaves_what_is_absent_clears_what_is_null_and_sets_the_rest() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    let path = stored(&server);
    let before = server.get(&path).json();
    for (body, name, description, etag) in [
        (json!({}), "before", json!("some words"), "\"1\""),
        (
            json!({"name": "after"}),
            "after",
            json!("some words"),
            "\"2\"",
        ),
        (json!({"description": null}), "after", json!(null), "\"3\""),
        (json!({"description": ""}), "after", json!(""), "\"4\""),
        (
            json!({"name": "x", "description": "y"}),
            "x",
            json!("y"),
            "\"5\"",
        ),
        (json!({}), "x", json!("y"), "\"5\""),
    ] {
        let answer = patch(&server, &path, &[], body.clone());
        assert_eq!(answer.status, 200, "{body}: {answer:?}");
        assert_eq!(answer.header("etag"), Some(etag), "{body}");
        let item = answer.json();
        assert_eq!(
            (&item["name"], &item["description"]),
            (&json!(name), &description),
            "{body}"
        );
        assert_eq!(
            (&item["id"], &item["created_at"]),
            (&before["id"], &before["created_at"])
        );
        let found = server.get(&path);
        assert_eq!((found.json(), found.header("etag")), (item, Some(etag)));
    }
}

#[tokio::test]
async fn patch_refuses_what_post_refuses_and_a_null_name() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    let path = stored(&server);
    for body in [
        json!({"name": null}),
        json!({"name": ""}),
        json!({"name": 1}),
        json!({"name": "n".repeat(201)}),
        json!({"name": "a\0b"}),
        json!({"description": "d".repeat(4001)}),
        json!({"description": 1}),
        json!({"colour": "red"}),
        json!({"id": "00000000-0000-0000-0000-000000000000"}),
        json!([]),
        json!(null),
    ] {
        let detail = patch(&server, &path, &[], body.clone()).problem(400);
        if let Some((field, _)) = body.as_object().and_then(|body| body.iter().next()) {
            assert!(detail.contains(field), "{detail}");
        }
    }
    assert_eq!(server.get(&path).header("etag"), Some("\"1\""));
    let id = "00000000-0000-0000-0000-000000000000";
    let detail = patch(&server, &format!("/items/{id}"), &[], json!({})).problem(404);
    assert!(detail.contains(id));
}

#[tokio::test]
async fn if_none_match_answers_304_for_what_the_client_has() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    let path = stored(&server);
    let get = |tags: &str| server.ask("GET", &path, &[("If-None-Match", tags)], None);
    for tags in ["\"1\"", "W/\"1\"", "*", "\"7\" , \"1\""] {
        let answer = get(tags);
        assert_eq!(
            (answer.status, answer.header("etag")),
            (304, Some("\"1\"")),
            "{tags}"
        );
        assert_eq!(answer.body, "", "{tags}");
    }
    for tags in ["\"2\"", "\"\"", "\"ü\""] {
        assert_eq!(get(tags).status, 200, "{tags}");
    }
    for tags in ["1", "\"1", "", "*, \"1\""] {
        assert!(get(tags).problem(400).contains("If-None-Match"), "{tags}");
    }
    // Two headers of one name are one list.
    let headers = [("If-None-Match", "\"2\""), ("if-none-match", "\"1\"")];
    assert_eq!(server.ask("GET", &path, &headers, None).status, 304);
    patch(&server, &path, &[], json!({"name": "new"}));
    assert_eq!(get("\"1\"").status, 200);
    let missing = "/items/00000000-0000-0000-0000-000000000000";
    server
        .ask("GET", missing, &[("If-None-Match", "*")], None)
        .problem(404);
}

#[tokio::test]
async fn if_match_guards_patch_and_delete() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    let path = stored(&server);
    let change = |method, tags| {
        let body = (method == "PATCH").then(|| json!({"name": "new"}));
        server.ask(method, &path, &[("If-Match", tags)], body.as_ref())
    };
    for method in ["PATCH", "DELETE"] {
        for tags in [
            "\"2\"",
            "W/\"1\"",
            "\"01\"",
            "\"x\"",
            "\"ü\"",
            "\"2\", W/\"1\"",
        ] {
            let detail = change(method, tags).problem(412);
            assert!(detail.contains("If-Match"), "{detail}");
        }
        for tags in ["1", "", "\"1\" \"2\""] {
            assert!(change(method, tags).problem(400).contains("If-Match"));
        }
    }
    assert_eq!(
        server.get(&path).header("etag"),
        Some("\"1\""),
        "something was changed"
    );
    // An empty patch is guarded too.
    let headers = [("If-Match", "\"2\"")];
    patch(&server, &path, &headers, json!({})).problem(412);
    assert_eq!(
        change("PATCH", "\"9\", \"1\"").header("etag"),
        Some("\"2\"")
    );
    assert_eq!(change("PATCH", "*").header("etag"), Some("\"3\""));
    change("DELETE", "\"2\"").problem(412);
    let gone = change("DELETE", "\"3\"");
    assert_eq!((gone.status, gone.body.as_str()), (204, ""));
    for method in ["PATCH", "DELETE"] {
        change(method, "\"3\"").problem(404);
        change(method, "*").problem(404);
    }
}

#[tokio::test]
async fn delete_item_answers_204_and_then_404() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    let (path, other) = (stored(&server), stored(&server));
    assert_eq!(server.method("DELETE", &path).status, 204);
    server.method("DELETE", &path).problem(404);
    server.get(&path).problem(404);
    assert_eq!(server.get(&other).status, 200);
}

#[tokio::test]
async fn of_100_patches_at_once_for_one_tag_exactly_one_is_made() {
    let database = postgres::shared().database().await;
    let config = database.config() + "connect_timeout_seconds = 60\n" + super::cache::PATIENT;
    let server = TestServer::start(&config);
    let path = stored(&server);
    let statuses: Vec<u16> = thread::scope(|scope| {
        let patches: Vec<_> = (0..100)
            .map(|number| {
                let (server, path) = (&server, &path);
                let body = json!({"name": number.to_string()});
                scope.spawn(move || patch(server, path, &[("If-Match", "\"1\"")], body).status)
            })
            .collect();
        patches
            .into_iter()
            .map(|patch| patch.join().unwrap())
            .collect()
    });
    let count = |status| statuses.iter().filter(|found| **found == status).count();
    assert_eq!((count(200), count(412)), (1, 99), "{statuses:?}");
    let winner = statuses.iter().position(|status| *status == 200).unwrap();
    let item = server.get(&path);
    assert_eq!(item.json()["name"], winner.to_string());
    assert_eq!(item.header("etag"), Some("\"2\""));
}
