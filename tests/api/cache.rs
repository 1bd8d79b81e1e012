//! Answers that are used again, and never when they must not be.

use std::{io::Write as _, net::TcpStream, thread};

use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::support::{
    postgres::{self, TestDatabase},
    server::{Answer, TestServer, wait_for},
};

/// Limits that nothing reaches while a load is held, and a second connection for the reads that come meanwhile.
pub const PATIENT: &str = "statement_timeout_seconds = 100\nread_connections = 2\n[http]\nrequest_timeout_seconds = 200\n";

pub fn outcome(answer: &Answer) -> &str {
    answer.header("x-cache").unwrap_or("(no x-cache)")
}

pub fn names(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let items = answer.json();
    let name = |item: &Value| item["name"].as_str().unwrap().to_owned();
    items.as_array().unwrap().iter().map(name).collect()
}

/// Stores an item; its path.
pub fn store(server: &TestServer, name: &str) -> String {
    let answer = server.post("/items", json!({ "name": name }).to_string());
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.header("location").unwrap().to_owned()
}

/// Stops every SELECT that sees a row after it has taken its snapshot: what it answers is as old as its beginning,
/// whatever is written meanwhile. It counts them too.
pub struct Hold {
    session: tokio_postgres::Client,
}

impl Hold {
    /// The database must have its tables.
    pub async fn prepare(database: &TestDatabase<'_>) -> Self {
        let session = database.session().await;
        // Row security asks the function for each row a SELECT finds.
        let script = "
            CREATE SEQUENCE loads;
            GRANT ALL ON SEQUENCE loads TO PUBLIC;
            CREATE FUNCTION hold() RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
            BEGIN
                IF current_query() ILIKE 'SELECT%' THEN
                    PERFORM nextval('loads');
                    PERFORM pg_advisory_xact_lock_shared(7);
                END IF;
                RETURN true;
            END $$;
            ALTER TABLE items ENABLE ROW LEVEL SECURITY;
            ALTER TABLE items FORCE ROW LEVEL SECURITY;
            CREATE POLICY held ON items USING (hold()) WITH CHECK (true);";
        session.batch_execute(script).await.unwrap();
        Self { session }
    }

    fn number(&self, query: &str) -> i64 {
        tokio::task::block_in_place(|| {
            let row = Handle::current().block_on(self.session.query_one(query, &[]));
            row.unwrap().get(0)
        })
    }

    fn run(&self, statement: &str) {
        tokio::task::block_in_place(|| {
            Handle::current().block_on(self.session.batch_execute(statement))
        })
        .unwrap();
    }

    pub fn begin(&self) {
        self.run("SELECT pg_advisory_lock(7)");
    }

    pub fn end(&self) {
        self.run("SELECT pg_advisory_unlock(7)");
    }

    /// How many wait now.
    fn waiting(&self) -> i64 {
        self.number("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())")
    }

    pub fn wait_for_waiting(&self, count: i64) {
        wait_for(&format!("{count} loads to wait"), || {
            (self.waiting() == count).then_some(())
        });
    }

    /// How many there have been.
    fn loads(&self) -> i64 {
        self.number("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM loads")
    }
}

#[tokio::test]
async fn an_answer_is_used_again_until_what_it_shows_is_written_and_costs_no_query() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    let session = database.session().await;
    let path = store(&server, "first");
    for path in [path.as_str(), "/items", "/items?limit=7"] {
        let loaded = server.get(path);
        assert_eq!(outcome(&loaded), "miss", "{path}");
        let again = server.get(path);
        assert_eq!(outcome(&again), "hit", "{path}");
        assert_eq!((again.status, &again.body), (200, &loaded.body));
        assert_eq!(again.header("content-type"), loaded.header("content-type"));
        assert_eq!(outcome(&server.method("HEAD", path)), "hit", "{path}");
    }
    // Nobody is asked: what changes behind the API's back is not seen.
    session
        .batch_execute("UPDATE items SET name = 'changed'")
        .await
        .unwrap();
    assert_eq!(names(&server.get("/items")), ["first"]);

    // Searches are not kept.
    for _ in 0..2 {
        assert_eq!(outcome(&server.get("/items?q=chang")), "bypass");
    }

    // The row is not written, its lists are.
    store(&server, "second");
    let lists = server.get("/items");
    assert_eq!(outcome(&lists), "miss");
    assert_eq!(names(&lists), ["second", "changed"]);
    assert_eq!(outcome(&server.get("/items?limit=7")), "miss");
    assert_eq!(outcome(&server.get(&path)), "hit");
}

#[tokio::test]
async fn a_change_a_deletion_and_a_tag_are_answered_as_if_there_were_no_cache() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    let path = store(&server, "first");
    let fill = || {
        for path in [path.as_str(), "/items"] {
            server.get(path);
            assert_eq!(outcome(&server.get(path)), "hit", "{path}");
        }
    };
    fill();
    let etag = server.get(&path).header("etag").unwrap().to_owned();
    let known = [("If-None-Match", etag.as_str())];
    let unchanged = server.ask("GET", &path, &known, None);
    assert_eq!((unchanged.status, outcome(&unchanged)), (304, "hit"));

    let patched = server.ask("PATCH", &path, &[], Some(&json!({"name": "second"})));
    assert_eq!(patched.status, 200, "{patched:?}");
    let changed = server.ask("GET", &path, &known, None);
    assert_eq!((changed.status, outcome(&changed)), (200, "miss"));
    assert_eq!(changed.header("etag"), patched.header("etag"));
    assert_eq!(names(&server.get("/items")), ["second"]);

    fill();
    assert_eq!(server.method("DELETE", &path).status, 204);
    server.get(&path).problem(404);
    assert_eq!(names(&server.get("/items")), [""; 0]);
}

#[tokio::test]
async fn what_is_not_there_is_not_kept_and_nothing_is_when_it_is_off() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    let off = TestServer::start(&format!("{}[cache]\nseconds = 0\n", database.config()));
    let session = database.session().await;
    let id = "00000000-0000-0000-0000-000000000007";
    let path = format!("/items/{id}");
    for server in [&server, &off] {
        server.get(&path).problem(404);
    }
    session
        .batch_execute(&format!(
            "INSERT INTO items (id, name) VALUES ('{id}', 'there')"
        ))
        .await
        .unwrap();
    assert_eq!(server.get(&path).json()["name"], "there");
    for _ in 0..2 {
        assert_eq!(outcome(&off.get(&path)), "bypass");
        assert_eq!(outcome(&off.get("/items")), "bypass");
    }
    session.batch_execute("DELETE FROM items").await.unwrap();
    off.get(&path).problem(404);
    assert_eq!(outcome(&server.get(&path)), "hit");
}

#[tokio::test]
async fn an_answer_ends_with_its_time() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&format!("{}[cache]\nseconds = 1\n", database.config()));
    let session = database.session().await;
    store(&server, "before");
    assert_eq!(names(&server.get("/items")), ["before"]);
    session
        .batch_execute("UPDATE items SET name = 'after'")
        .await
        .unwrap();
    wait_for("the list as it is now", || {
        (names(&server.get("/items")) == ["after"]).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_began_before_a_write_neither_stays_nor_answers_who_came_after_it() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&format!("{}{PATIENT}", database.config()));
    store(&server, "old");
    let hold = Hold::prepare(&database).await;
    hold.begin();
    thread::scope(|scope| {
        let before = scope.spawn(|| server.get("/items"));
        hold.wait_for_waiting(1);
        store(&server, "new");
        let after = scope.spawn(|| server.get("/items"));
        // A load of its own: it does not wait for the one under way.
        hold.wait_for_waiting(2);
        hold.end();
        assert_eq!(
            names(&before.join().unwrap()),
            ["old"],
            "the load was not held, so nothing is tested"
        );
        assert_eq!(names(&after.join().unwrap()), ["new", "old"]);
    });
    let kept = server.get("/items");
    assert_eq!(
        (outcome(&kept), names(&kept)),
        ("hit", vec!["new".into(), "old".into()])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_who_ask_at_once_are_one_query() {
    const CLIENTS: usize = 100;
    let database = postgres::shared().database().await;
    let server = TestServer::start(&format!("{}{PATIENT}", database.config()));
    store(&server, "one");
    let hold = Hold::prepare(&database).await;
    hold.begin();
    let answers: Vec<Answer> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let mut stream = TcpStream::connect(server.address()).unwrap();
                stream
                    .write_all(b"GET /items HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
                    .unwrap();
                scope.spawn(|| Answer::read(stream))
            })
            .collect();
        hold.wait_for_waiting(1);
        // Behind all of them in the queue of connections to accept.
        for _ in 0..20 {
            server.get("/health");
        }
        assert_eq!(hold.waiting(), 1);
        hold.end();
        clients.into_iter().map(|it| it.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| names(answer) == ["one"]));
    assert_eq!(hold.loads(), 1);
    let waited = answers.iter().filter(|it| outcome(it) == "miss").count();
    assert!(waited > 1, "nobody waited, so nothing is tested");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_fails_is_not_kept() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    store(&server, "one");
    let hold = Hold::prepare(&database).await;
    let answers = |body: &str| {
        hold.run(&format!(
            "CREATE OR REPLACE FUNCTION hold() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN {body}; END $$"
        ));
    };
    answers("RAISE 'planted'");
    server.get("/items").problem(500);
    answers("RETURN true");
    assert_eq!(names(&server.get("/items")), ["one"]);
    assert_eq!(outcome(&server.get("/items")), "hit");
}
