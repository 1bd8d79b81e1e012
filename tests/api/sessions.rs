//! Tokens: who has a good one, how it is exchanged, and how it ends.

use serde_json::Value;

use super::accounts::{PASSWORD, ask, get_as, login, sign_in, sign_up};
use crate::support::{
    postgres::{self, TestDatabase},
    server::{TestServer, wait_for},
};

const STRICT: &str = "\n[auth]\nanonymous_writes = false\n";

async fn server(database: &TestDatabase<'_>) -> TestServer {
    TestServer::start(&(database.config() + STRICT))
}

#[tokio::test]
async fn who_writes_items_has_signed_in_and_who_reads_them_need_not() {
    let database = postgres::shared().database().await;
    let server = server(&database).await;
    let item = serde_json::json!({"name": "lantern"});
    let refused = server.post("/items", item.to_string());
    refused.problem(401);
    assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    // Before anything of the body is looked at.
    server.post("/items", "{").problem(401);
    ask(&server, "db_forged", "POST", "/items", &item).problem(401);

    let (_, token) = sign_up(&server, "ada@example.org");
    let made = ask(&server, &token, "POST", "/items", &item);
    assert_eq!(made.status, 201, "{made:?}");
    let path = made.header("location").unwrap().to_owned();
    server.method("DELETE", &path).problem(401);
    assert_eq!(server.get(&path).status, 200);
    assert_eq!(
        ask(&server, &token, "DELETE", &path, &Value::Null).status,
        204
    );
}

#[tokio::test]
async fn a_bad_token_is_refused_even_where_none_is_needed() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    let item = serde_json::json!({"name": "lantern"});
    assert_eq!(server.post("/items", item.to_string()).status, 201);
    ask(&server, "db_forged", "POST", "/items", &item).problem(401);
}

#[tokio::test]
async fn an_exchanged_token_is_good_and_the_former_one_is_not() {
    let database = postgres::shared().database().await;
    let server = server(&database).await;
    let (_, former) = sign_up(&server, "ada@example.org");
    let answer = ask(&server, &former, "POST", "/auth/refresh", &Value::Null);
    assert_eq!(answer.status, 200, "{answer:?}");
    let new = answer.json()["token"].as_str().unwrap().to_owned();
    assert_ne!(former, new);
    get_as(&server, &former, "/auth/me").problem(401);
    ask(&server, &former, "POST", "/auth/refresh", &Value::Null).problem(401);
    // That somebody tried the former one ends nothing.
    assert_eq!(get_as(&server, &new, "/auth/me").status, 200);
    let sessions = get_as(&server, &new, "/auth/sessions").json();
    assert_eq!(sessions.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn sessions_are_listed_and_ended_by_their_owner_alone() {
    let database = postgres::shared().database().await;
    let server = server(&database).await;
    let (_, here) = sign_up(&server, "ada@example.org");
    let there = sign_in(&server, "ada@example.org");
    let (_, stranger) = sign_up(&server, "eve@example.org");
    let sessions = get_as(&server, &here, "/auth/sessions").json();
    let sessions = sessions.as_array().unwrap();
    assert_eq!(sessions.len(), 2);
    let other = sessions.iter().find(|one| one["current"] == false).unwrap();
    let path = format!("/auth/sessions/{}", other["id"].as_str().unwrap());
    ask(&server, &stranger, "DELETE", &path, &Value::Null).problem(404);
    assert_eq!(get_as(&server, &there, "/auth/me").status, 200);
    assert_eq!(
        ask(&server, &here, "DELETE", &path, &Value::Null).status,
        204
    );
    get_as(&server, &there, "/auth/me").problem(401);
    ask(&server, &here, "DELETE", &path, &Value::Null).problem(404);
    assert_eq!(
        ask(&server, &here, "POST", "/auth/logout", &Value::Null).status,
        204
    );
    get_as(&server, &here, "/auth/me").problem(401);
    assert_eq!(get_as(&server, &stranger, "/auth/me").status, 200);
}

#[tokio::test]
async fn sessions_end_with_time_and_are_swept() {
    let database = postgres::shared().database().await;
    let first = server(&database).await;
    let (_, token) = sign_up(&first, "ada@example.org");
    let idle = sign_in(&first, "ada@example.org");
    let kept = sign_in(&first, "ada@example.org");
    let session = database.session().await;
    let id = |token: &str| {
        let sessions = get_as(&first, token, "/auth/sessions").json();
        let sessions = sessions.as_array().unwrap().clone();
        let current = sessions.into_iter().find(|one| one["current"] == true);
        current.unwrap()["id"].as_str().unwrap().to_owned()
    };
    for (token, change) in [
        (&token, "expires_at = now()"),
        (&idle, "last_used_at = now() - interval '168 hours'"),
    ] {
        let change = format!("UPDATE sessions SET {change} WHERE id = '{}'", id(token));
        session.batch_execute(&change).await.unwrap();
        get_as(&first, token, "/auth/me").problem(401);
    }
    assert_eq!(
        get_as(&first, &kept, "/auth/sessions")
            .json()
            .as_array()
            .unwrap()
            .len(),
        1
    );
    drop(first);
    // The next server sweeps as it starts.
    let next = server(&database).await;
    wait_for("the sweep", || {
        next.log()
            .contains("expired sessions were deleted")
            .then_some(())
    });
    let left = session
        .query_one("SELECT count(*) FROM sessions", &[])
        .await;
    assert_eq!(left.unwrap().get::<_, i64>(0), 1);
    assert_eq!(get_as(&next, &kept, "/auth/me").status, 200);
}

#[tokio::test]
async fn neither_passwords_nor_tokens_are_kept_or_shown() {
    let database = postgres::shared().database().await;
    let text = database.config() + STRICT + "[log]\nfilter = \"trace\"\n";
    let server = TestServer::start(&text);
    let (_, token) = sign_up(&server, "ada@example.org");
    let wrong = "another planted password";
    let shown = [
        login(&server, "ada@example.org", wrong).body,
        login(&server, "nobody@example.org", PASSWORD).body,
        get_as(&server, &token, "/auth/me").body,
        get_as(&server, &token, "/auth/sessions").body,
        ask(
            &server,
            &token,
            "POST",
            "/items",
            &serde_json::json!({"nam": PASSWORD}),
        )
        .body,
    ]
    .concat();
    let session = database.session().await;
    let dump = session
        .query_one(
            "SELECT (SELECT string_agg(p::text, '') FROM profiles p) \
                 || (SELECT string_agg(s::text || encode(s.token_hash, 'escape'), '') FROM sessions s)",
            &[],
        )
        .await
        .unwrap()
        .get::<_, String>(0);
    let log = server.log();
    for (place, text) in [("answers", &shown), ("log", &log), ("database", &dump)] {
        for secret in [PASSWORD, wrong, &token, &token[3..]] {
            assert!(!text.contains(secret), "{place} shows a secret");
        }
    }
    // The search would find what it looks for.
    assert!(dump.contains("ada@example.org") && dump.contains("$argon2id$v=19$m=19456,t=2,p=1$"));
    assert!(shown.contains("ada@example.org"));
}
