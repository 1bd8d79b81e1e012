//! Answers that several servers share in a real Valkey or Redis, which may be slow, gone, or back with old answers.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::json;

use super::cache::{Hold, PATIENT, names, outcome, store};
use crate::support::{
    postgres,
    redis::TestRedis,
    server::{TestServer, wait_for},
};

/// Asks until the answer comes from the cache, and says what it is.
fn wait_for_hit(server: &TestServer) -> Vec<String> {
    wait_for("a hit", || {
        let answer = server.get("/items");
        (outcome(&answer) == "hit").then(|| names(&answer))
    })
}

fn state_of_cache(server: &TestServer) -> (String, String) {
    let answer = server.get("/ready");
    assert_eq!(answer.status, 200, "{answer:?}");
    let text = |name: &str| answer.json()[name].as_str().unwrap().to_owned();
    (text("status"), text("cache"))
}

fn wait_for_state(server: &TestServer, wanted: (&str, &str)) {
    wait_for(&format!("/ready to say {wanted:?}"), || {
        let (status, cache) = state_of_cache(server);
        ((status.as_str(), cache.as_str()) == wanted).then_some(())
    });
}

#[tokio::test]
async fn two_servers_share_answers_and_see_each_others_writes() {
    let database = postgres::shared().database().await;
    let redis = TestRedis::start();
    let config = format!("{}{}", database.config(), redis.config());
    let servers = [TestServer::start(&config), TestServer::start(&config)];
    wait_for_state(&servers[0], ("ready", "ok"));
    store(&servers[0], "first");
    assert_eq!(wait_for_hit(&servers[0]), ["first"]);
    assert_eq!(wait_for_hit(&servers[1]), ["first"]);
    // What one of them has loaded, the other finds.
    wait_for("a hit on what the other loaded", || {
        let path = store(&servers[0], "shared");
        let loaded = servers[0].get(&path);
        let found = servers[1].get(&path);
        assert_eq!(found.body, loaded.body);
        (outcome(&loaded) == "miss" && outcome(&found) == "hit").then_some(())
    });
    for round in 0..20 {
        let (writes, reads) = (&servers[round % 2], &servers[(round + 1) % 2]);
        wait_for_hit(reads);
        let name = format!("round {round}");
        store(writes, &name);
        for server in [reads, writes] {
            assert_eq!(names(&server.get("/items"))[0], name);
        }
    }
    let keys: Vec<String> = redis.command(&["KEYS", "*"]);
    assert!(!keys.is_empty());
    for key in keys {
        let left: i64 = redis.command(&["PTTL", &key]);
        let most = if key.contains(":answer:") {
            60_000
        } else {
            3_600_000
        };
        // -2: it has gone meanwhile.
        assert!(left == -2 || (0..=most).contains(&left), "{key}: {left} ms");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_began_before_another_servers_write_is_not_kept() {
    let database = postgres::shared().database().await;
    let redis = TestRedis::start();
    let config = format!("{}{PATIENT}{}", database.config(), redis.config());
    let servers = [TestServer::start(&config), TestServer::start(&config)];
    store(&servers[0], "old");
    wait_for_state(&servers[0], ("ready", "ok"));
    let hold = Hold::prepare(&database).await;
    hold.begin();
    thread::scope(|scope| {
        let before = scope.spawn(|| servers[0].get("/items"));
        hold.wait_for_waiting(1);
        store(&servers[1], "new");
        let after = scope.spawn(|| servers[0].get("/items"));
        hold.wait_for_waiting(2);
        hold.end();
        assert_eq!(names(&before.join().unwrap()), ["old"], "it was not held");
        assert_eq!(names(&after.join().unwrap()), ["new", "old"]);
    });
    for server in &servers {
        assert_eq!(wait_for_hit(server), ["new", "old"]);
    }
}

#[tokio::test]
async fn without_valkey_everything_is_answered_and_it_is_used_once_it_is_there() {
    let database = postgres::shared().database().await;
    let mut redis = TestRedis::prepare(&[]);
    let server = TestServer::start(&format!("{}{}", database.config(), redis.config()));
    for round in 0..2 {
        assert_eq!(state_of_cache(&server), ("degraded".into(), "gone".into()));
        let name = format!("without {round}");
        store(&server, &name);
        let answer = server.get("/items");
        assert_eq!(
            (outcome(&answer), names(&answer)[0].as_str()),
            ("bypass", name.as_str())
        );

        redis.start_again();
        wait_for_state(&server, ("ready", "ok"));
        assert_eq!(wait_for_hit(&server)[0], name);
        redis.kill();
        wait_for_state(&server, ("degraded", "gone"));
    }
}

#[tokio::test]
async fn while_valkey_hangs_nothing_waits_for_it_and_afterwards_nothing_old_is_served() {
    let database = postgres::shared().database().await;
    let redis = TestRedis::start();
    let config = format!("{}{}", database.config(), redis.config());
    let servers = [TestServer::start(&config), TestServer::start(&config)];
    store(&servers[0], "first");
    for round in 0..3 {
        for server in &servers {
            wait_for_hit(server);
        }
        redis.signal(Signal::SIGSTOP);
        // The other server is not asked anything: it need not notice.
        let name = format!("meanwhile {round}");
        store(&servers[0], &name);
        if round == 0 {
            // At 100 ms each they would take 20 s.
            let started = Instant::now();
            for _ in 0..200 {
                let answer = servers[0].get("/items");
                assert_eq!(
                    (outcome(&answer), names(&answer)[0].as_str()),
                    ("bypass", name.as_str())
                );
            }
            assert!(
                started.elapsed() < Duration::from_secs(15),
                "{:?}",
                started.elapsed()
            );
        }
        redis.signal(Signal::SIGCONT);
        assert_eq!(
            names(&servers[1].get("/items"))[0],
            name,
            "an answer from before the outage"
        );
        assert_eq!(names(&servers[0].get("/items"))[0], name);
    }
}

#[tokio::test]
async fn a_valkey_that_comes_back_with_older_answers_serves_none_of_them() {
    let database = postgres::shared().database().await;
    let mut redis = TestRedis::start();
    let config = format!("{}{}", database.config(), redis.config());
    let servers = [TestServer::start(&config), TestServer::start(&config)];
    store(&servers[0], "old");
    assert_eq!(wait_for_hit(&servers[0]), ["old"]);
    let _: String = redis.command(&["SAVE"]);
    // Told, and forgotten again.
    store(&servers[0], "new");
    redis.kill();
    redis.start_again();
    for server in &servers {
        assert_eq!(names(&server.get("/items")), ["new", "old"]);
        assert_eq!(wait_for_hit(server), ["new", "old"]);
    }
    let keys: Vec<String> = redis.command(&["KEYS", "*"]);
    assert!(!keys.is_empty());
}

#[tokio::test]
async fn the_password_comes_from_a_file_and_is_in_no_log_line() {
    const SECRET: &str = "planted-valkey-password";
    let database = postgres::shared().database().await;
    let redis = TestRedis::start_with(&["--requirepass", SECRET]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    let config = format!(
        "{}{}valkey_password_file = {path:?}\n[log]\nfilter = \"trace\"\n",
        database.config(),
        redis.config()
    );
    for (secret, state) in [
        (SECRET.to_owned(), ("ready", "ok")),
        (format!("{SECRET}-wrong"), ("degraded", "gone")),
    ] {
        fs::write(&path, &secret).unwrap();
        let server = TestServer::start(&config);
        wait_for_state(&server, state);
        let answer = server.post("/items", json!({"name": "n"}).to_string());
        assert_eq!(answer.status, 201);
        server.get("/items");
        let log = server.log();
        assert!(log.contains("alkey"), "{log}");
        assert!(!log.contains(SECRET), "{log}");
    }
}
