//! How often one may try to sign in, and how long it takes.

use std::time::{Duration, Instant};

use super::accounts::{PASSWORD, login, register, sign_up};
use crate::support::{postgres, server::TestServer};

#[tokio::test]
async fn failed_logins_for_one_account_have_to_wait_whether_it_is_there_or_not() {
    let database = postgres::shared().database().await;
    let text = database.config() + "\n[auth]\nfailures_per_account = 3\n";
    let server = TestServer::start(&text);
    sign_up(&server, "ada@example.org");
    for email in ["ada@example.org", "nobody@example.org"] {
        let answers: Vec<_> = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..12)
                .map(|_| scope.spawn(|| login(&server, email, "wrong horse battery")))
                .collect();
            tries.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let refused: Vec<_> = answers.iter().filter(|one| one.status == 429).collect();
        assert!(!refused.is_empty(), "{email}: {answers:?}");
        for answer in refused {
            answer.problem(429);
            let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=300).contains(&seconds));
        }
        assert!(answers.iter().filter(|one| one.status == 401).count() >= 3);
    }
    // Others may.
    sign_up(&server, "eve@example.org");
}

#[tokio::test]
async fn registering_from_one_address_has_to_wait_too() {
    let database = postgres::shared().database().await;
    let text = database.config() + "\n[auth]\nregistrations_per_address = 2\n";
    let server = TestServer::start(&text);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..8)
            .map(|number| {
                let server = &server;
                scope.spawn(move || register(server, &format!("a{number}@example.org")).status)
            })
            .collect();
        tries.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(
        statuses.contains(&201) && statuses.contains(&429),
        "{statuses:?}"
    );
}

#[tokio::test]
async fn an_unknown_address_is_refused_as_slowly_as_a_wrong_password() {
    let database = postgres::shared().database().await;
    let text = database.config() + "\n[auth]\nfailures_per_account = 1000\n";
    let server = TestServer::start(&text);
    sign_up(&server, "ada@example.org");
    let time = |email: &str| {
        let begin = Instant::now();
        let answer = login(&server, email, "wrong horse battery");
        (begin.elapsed(), answer.problem(401))
    };
    // The quickest of several: a busy machine makes single ones slow.
    let (mut known, mut unknown) = (Duration::MAX, Duration::MAX);
    for _ in 0..7 {
        let (took, said) = time("ada@example.org");
        known = known.min(took);
        let (took, same) = time("nobody@example.org");
        unknown = unknown.min(took);
        assert_eq!(said, same);
    }
    assert!(unknown * 3 > known, "unknown {unknown:?}, known {known:?}");
    assert_eq!(login(&server, "ada@example.org", PASSWORD).status, 200);
}
