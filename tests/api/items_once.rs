//! `Idempotency-Key`: a POST that is sent again, at once, later, and after everything that can happen in between.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{
    cache::{PATIENT, names},
    configuration,
};
use crate::support::{
    postgres::{self, PASSWORD, TestDatabase},
    server::{Answer, TestServer, host, wait_for},
};

fn post(server: &TestServer, key: &str, body: &Value) -> Answer {
    server.ask("POST", "/items", &[("Idempotency-Key", key)], Some(body))
}

/// What a replay must have in common with the first answer.
fn told(answer: &Answer) -> (u16, Vec<Option<String>>, String) {
    let headers = ["location", "etag", "content-type"];
    let headers = headers.map(|name| answer.header(name).map(str::to_owned));
    (answer.status, headers.to_vec(), answer.body.clone())
}

fn is_replay(answer: &Answer) -> bool {
    answer.header("idempotent-replayed") == Some("true")
}

#[tokio::test]
async fn a_repeated_key_gets_the_first_answer_and_stores_nothing() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    let body = json!({"name": "once"});
    let first = post(&server, "key-1", &body);
    assert_eq!(first.status, 201, "{first:?}");
    assert_eq!(first.header("idempotent-replayed"), None);
    let location = first.header("location").unwrap();
    // The same thing in other words, and after the item has changed and gone.
    let again = |body: Value| {
        let answer = post(&server, "key-1", &body);
        assert!(is_replay(&answer), "{answer:?}");
        assert_eq!(told(&answer), told(&first));
    };
    again(json!({"description": null, "name": "once"}));
    server.ask("PATCH", location, &[], Some(&json!({"name": "changed"})));
    again(body.clone());
    assert_eq!(names(&server.get("/items")), ["changed"]);
    assert_eq!(server.method("DELETE", location).status, 204);
    again(body.clone());
    assert_eq!(names(&server.get("/items")).len(), 0);

    for other in [
        json!({"name": "Once"}),
        json!({"name": "once", "description": ""}),
    ] {
        let detail = post(&server, "key-1", &other).problem(422);
        assert!(detail.contains("Idempotency-Key"), "{detail}");
    }
    // What was refused took no key.
    post(&server, "key-2", &json!({"name": ""})).problem(400);
    for key in ["key-2", "KEY-1"] {
        let answer = post(&server, key, &body);
        assert_eq!((answer.status, is_replay(&answer)), (201, false), "{key}");
    }
    assert_eq!(names(&server.get("/items")), ["once", "once"]);
}

#[tokio::test]
async fn what_is_no_key_is_refused_by_name() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    let body = json!({"name": "n"});
    for bad in ["", "a b", "ü", "a, b", &"k".repeat(201)] {
        let detail = post(&server, bad, &body).problem(400);
        assert!(detail.contains("Idempotency-Key"), "{bad}: {detail}");
    }
    let twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")];
    server
        .ask("POST", "/items", &twice, Some(&body))
        .problem(400);
    assert_eq!(post(&server, &"~".repeat(200), &body).status, 201);
    assert_eq!(names(&server.get("/items")), ["n"]);
}

#[tokio::test]
async fn of_20_at_once_with_one_key_one_stores_and_all_are_answered_alike() {
    let database = postgres::shared().database().await;
    let config = database.config() + "connect_timeout_seconds = 60\n" + PATIENT;
    let server = TestServer::start(&config);
    let body = json!({"name": "once"});
    let answers: Vec<Answer> = thread::scope(|scope| {
        let posts: Vec<_> = (0..20)
            .map(|_| scope.spawn(|| post(&server, "k", &body)))
            .collect();
        posts.into_iter().map(|post| post.join().unwrap()).collect()
    });
    for answer in &answers {
        assert_eq!(answer.status, 201, "{answer:?}");
        assert_eq!(told(answer), told(&answers[0]));
    }
    assert_eq!(
        answers.iter().filter(|answer| is_replay(answer)).count(),
        19
    );
    assert_eq!(names(&server.get("/items")), ["once"]);
}

#[tokio::test]
async fn an_expired_key_is_new_and_the_expired_are_swept_away() {
    let database = postgres::shared().database().await;
    let (_folder, path) = configuration::file(&database.config());
    assert!(
        host(&path)
            .arg("migrate")
            .output()
            .unwrap()
            .status
            .success()
    );
    let session = database.session().await;
    // More than one batch.
    session
        .batch_execute(
            "INSERT INTO idempotency_keys (caller, route, key, request_digest, expires_at)
             SELECT gen_random_uuid(), 'POST /items', 'k', decode(repeat('00', 32), 'hex'),
                    now() + (CASE WHEN n > 2500 THEN 1 ELSE -1 END) * interval '1 hour'
             FROM generate_series(1, 2503) n",
        )
        .await
        .unwrap();
    let server = TestServer::start(&database.config());
    let count = "SELECT count(*) FROM idempotency_keys";
    let mut left = 0;
    for _ in 0..600 {
        left = session.query_one(count, &[]).await.unwrap().get(0);
        if left == 3_i64 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(left, 3, "those that have not expired stay");

    let body = json!({"name": "n"});
    let first = post(&server, "k", &body);
    let kept = "SELECT count(*) FROM idempotency_keys WHERE location IS NOT NULL \
                AND expires_at - now() BETWEEN interval '23 hours' AND interval '24 hours'";
    let kept: i64 = session.query_one(kept, &[]).await.unwrap().get(0);
    assert_eq!(kept, 1, "a key is not kept for 24 hours");
    let expire = "UPDATE idempotency_keys SET expires_at = now() WHERE location IS NOT NULL";
    session.batch_execute(expire).await.unwrap();
    let other = json!({"name": "other"});
    let second = post(&server, "k", &other);
    assert_eq!(
        (second.status, is_replay(&second)),
        (201, false),
        "{second:?}"
    );
    assert_ne!(first.header("location"), second.header("location"));
    assert_eq!(told(&post(&server, "k", &other)), told(&second));
}

/// Holds up everybody who stores an item, right after the statement or at the commit.
async fn held_up(database: &TestDatabase<'_>, at: &str) -> tokio_postgres::Client {
    let session = database.session().await;
    let timing = match at {
        "statement" => "TRIGGER hold AFTER INSERT ON items",
        _ => "CONSTRAINT TRIGGER hold AFTER INSERT ON items DEFERRABLE INITIALLY DEFERRED",
    };
    session
        .batch_execute(&format!(
            "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN NULL; END';
             CREATE {} FOR EACH ROW EXECUTE FUNCTION hold();
             SELECT pg_advisory_lock(7);",
            timing
        ))
        .await
        .unwrap();
    session
}

/// Waits for a statement that is held up, and ends its session if asked to.
async fn held(session: &tokio_postgres::Client, end: bool) {
    let action = if end {
        "pg_terminate_backend(pid)"
    } else {
        "true"
    };
    let query = format!(
        "SELECT {action} FROM pg_stat_activity WHERE datname = current_database() \
         AND wait_event_type = 'Lock' AND wait_event = 'advisory'"
    );
    for _ in 0..600 {
        if session.query_opt(&query, &[]).await.unwrap().is_some() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("nobody was held up");
}

#[tokio::test]
async fn after_postgres_ended_the_connection_in_the_middle_the_same_key_stores_one_item() {
    for at in ["statement", "commit"] {
        let database = postgres::shared().database().await;
        let server = TestServer::start(&(database.config() + PATIENT));
        let session = held_up(&database, at).await;
        let body = json!({"name": "once"});
        let server = Arc::new(server);
        let asked = thread::spawn({
            let (server, body) = (server.clone(), body.clone());
            move || post(&server, "k", &body)
        });
        held(&session, true).await;
        let answer = asked.join().unwrap();
        answer.problem(503);
        assert!(answer.header("retry-after").is_some());
        session
            .batch_execute("SELECT pg_advisory_unlock(7)")
            .await
            .unwrap();
        let retried = post(&server, "k", &body);
        assert_eq!(
            (retried.status, is_replay(&retried)),
            (201, false),
            "{at}: {retried:?}"
        );
        assert!(is_replay(&post(&server, "k", &body)));
        assert_eq!(names(&server.get("/items")), ["once"], "{at}");
    }
}

#[tokio::test]
async fn after_the_server_was_killed_in_the_middle_the_same_key_stores_one_item() {
    let database = postgres::shared().database().await;
    let server = Arc::new(TestServer::start(&(database.config() + PATIENT)));
    let session = held_up(&database, "commit").await;
    let body = json!({"name": "once"});
    let asked = thread::spawn({
        let (server, body) = (server.clone(), body.clone());
        move || std::panic::catch_unwind(|| post(&server, "k", &body)).is_err()
    });
    held(&session, false).await;
    server.signal(Signal::SIGKILL);
    assert!(asked.join().unwrap(), "answered after all");
    drop(server);
    session
        .batch_execute("SELECT pg_advisory_unlock(7)")
        .await
        .unwrap();
    let server = TestServer::start(&database.config());
    // Whether the commit that was under way succeeded is Postgres' choice; either way there is one item.
    let retried = post(&server, "k", &body);
    assert_eq!(retried.status, 201, "{retried:?}");
    assert_eq!(names(&server.get("/items")), ["once"]);
}

/// Passes a connection on to Postgres until `cut`; from then on a commit is passed on, and nothing comes back any more.
fn relay(to: u16, cut: Arc<AtomicBool>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)) else {
                continue;
            };
            let cut = cut.clone();
            let mut there = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let mut back = (server, client);
            let is_lost = Arc::new(AtomicBool::new(false));
            let lost = is_lost.clone();
            thread::spawn(move || {
                let mut bytes = [0; 8192];
                while let Ok(count @ 1..) = there.0.read(&mut bytes) {
                    let is_commit = bytes[..count].windows(6).any(|six| six == b"COMMIT");
                    // Once: the retry comes through.
                    if is_commit && cut.swap(false, Ordering::SeqCst) {
                        lost.store(true, Ordering::SeqCst);
                    }
                    if there.1.write_all(&bytes[..count]).is_err() {
                        break;
                    }
                }
                let _ = there.1.shutdown(Shutdown::Both);
            });
            thread::spawn(move || {
                let mut bytes = [0; 8192];
                while let Ok(count @ 1..) = back.0.read(&mut bytes) {
                    if is_lost.load(Ordering::SeqCst) || back.1.write_all(&bytes[..count]).is_err()
                    {
                        break;
                    }
                }
                let _ = back.1.shutdown(Shutdown::Both);
            });
        }
    });
    port
}

#[tokio::test]
async fn when_the_answer_to_the_commit_was_lost_the_same_key_gets_it_again() {
    let postgres = postgres::shared();
    let database = postgres.database().await;
    let cut = Arc::new(AtomicBool::new(false));
    let port = relay(postgres.port(), cut.clone());
    let direct = format!("port = {}\n", postgres.port());
    let config = database.config_over_tcp(PASSWORD);
    assert!(config.contains(&direct));
    let server = TestServer::start(&config.replace(&direct, &format!("port = {port}\n")));
    let body = json!({"name": "once"});
    cut.store(true, Ordering::SeqCst);
    let lost = post(&server, "k", &body);
    lost.problem(503);
    assert!(!cut.load(Ordering::SeqCst), "no commit was seen");
    assert_eq!(
        names(&server.get("/items")),
        ["once"],
        "the commit was lost too"
    );
    let retried = wait_for("the answer", || {
        let answer = post(&server, "k", &body);
        (answer.status != 503).then_some(answer)
    });
    assert_eq!(
        (retried.status, is_replay(&retried)),
        (201, true),
        "{retried:?}"
    );
    assert_eq!(names(&server.get("/items")), ["once"]);
}
