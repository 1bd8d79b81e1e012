//! What one client can take from the others: time, connections, requests. And who it is said to be.

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    thread,
    time::{Duration, Instant},
};

use tokio::runtime::Handle;

use crate::support::{
    postgres, repository,
    server::{TestServer, wait_for},
};

const LIMIT: Duration = Duration::from_secs(120);
const GET: &[u8] = b"GET /health HTTP/1.1\r\nHost: t\r\n\r\n";

/// A server with no database: what is tested here comes before it.
fn server(http: &str) -> TestServer {
    let none = "[database]\nhost = \"127.0.0.1\"\nport = 1\n";
    TestServer::start_unready(&format!("{none}[http]\n{http}"))
}

fn connect(server: &TestServer) -> TcpStream {
    let stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// Sends one request and reads its answer, and keeps the connection.
fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(GET).unwrap();
    let mut answer = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        assert_ne!(
            answer.read_line(&mut line).unwrap(),
            0,
            "closed after {head:?}"
        );
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
        head += &line;
    }
    answer.read_exact(&mut vec![0; length]).unwrap();
    head
}

/// Waits for the server to close the connection, and says how many bytes came before.
fn end_of(stream: &mut TcpStream) -> usize {
    let (mut total, mut buffer) = (0, vec![0; 1 << 16]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return total,
            Ok(count) => total += count,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return total,
            Err(error) => panic!("after {total} bytes: {error}"),
        }
    }
}

#[test]
fn a_head_that_trickles_in_is_cut_and_an_idle_connection_is_not() {
    let server = server("header_timeout_seconds = 1\n");
    let mut idle = connect(&server);
    ask(&mut idle);
    let mut unused = connect(&server);
    let mut slow = connect(&server);
    let started = Instant::now();
    slow.write_all(b"GET /health HTTP/1.1\r\nHost: t\r\nX: ")
        .unwrap();
    let mut trickle = slow.try_clone().unwrap();
    let trickling = thread::spawn(move || {
        while started.elapsed() < LIMIT && trickle.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(100));
        }
    });
    assert_eq!(end_of(&mut slow), 0);
    assert!(started.elapsed() >= Duration::from_secs(1));
    drop(slow);
    trickling.join().unwrap();
    assert!(started.elapsed() < LIMIT, "it was never cut");
    ask(&mut idle);
    ask(&mut unused);
}

#[test]
fn a_connection_is_kept_between_requests_and_closed_after_being_idle() {
    let server = server("keep_alive_seconds = 1\n");
    let mut kept = connect(&server);
    for _ in 0..3 {
        let head = ask(&mut kept);
        assert!(!head.to_lowercase().contains("connection: close"), "{head}");
    }
    assert_eq!(end_of(&mut kept), 0);
    let mut unused = connect(&server);
    assert_eq!(end_of(&mut unused), 0);
}

/// The load balancer may send a request on any connection it has, up to the end of its own idle timeout.
#[test]
fn connections_are_kept_longer_than_the_load_balancer_keeps_them() {
    let kept = drawbridge::config::HttpSettings::default().keep_alive_seconds;
    let mut seen = 0;
    for entry in std::fs::read_dir(repository().join("terraform")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|kind| kind == "tf") {
            let text = std::fs::read_to_string(path).unwrap();
            for line in text
                .lines()
                .filter(|line| line.trim().starts_with("idle_timeout"))
            {
                let seconds: u64 = line.split('=').nth(1).unwrap().trim().parse().unwrap();
                assert!(seconds < kept, "{line}: {kept} s are not longer");
                seen += 1;
            }
        }
    }
    assert_eq!(
        seen, 1,
        "terraform/ says how long the load balancer keeps a connection"
    );
}

#[test]
fn a_client_that_does_not_take_its_answers_is_cut() {
    const REQUESTS: usize = 40;
    let server = server("write_timeout_seconds = 1\n[log]\nfilter = \"drawbridge=debug\"\n");
    let page = server.get("/docs").body.len();
    let mut stream = connect(&server);
    let requests = b"GET /docs HTTP/1.1\r\nHost: t\r\n\r\n".repeat(REQUESTS);
    stream.write_all(&requests).unwrap();
    wait_for("the end of the connection", || {
        server
            .log()
            .contains("its answer was not taken")
            .then_some(())
    });
    let taken = end_of(&mut stream);
    assert!(
        taken < REQUESTS * page,
        "{taken}: everything fit into the buffers"
    );
}

#[tokio::test]
async fn connections_beyond_the_limit_are_answered_503_and_told_how_the_server_is() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&format!(
        "{}[http]\nmax_connections = 2\n",
        database.config()
    ));
    let keep = || {
        let mut stream = connect(&server);
        // Those before it may not have ended yet.
        (!ask(&mut stream).contains("close")).then_some(stream)
    };
    let mut kept: Vec<_> = (0..2).map(|_| wait_for("a place", keep)).collect();
    let refused = server.send("GET /docs HTTP/1.1\r\nHost: t\r\n\r\n");
    assert!(refused.problem(503).contains("connections"), "{refused:?}");
    assert_eq!(refused.header("connection"), Some("close"));
    assert!(refused.header("retry-after").is_some());
    for path in ["/health", "/ready"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    kept.iter_mut().for_each(|stream| drop(ask(stream)));
    kept.pop();
    wait_for("a place", || {
        (server.get("/docs").status == 200).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_limit_are_answered_503_at_once_and_the_server_stays_ready() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&format!("{}[http]\nmax_requests = 2\n", database.config()));
    let (holder, watch) = (database.session().await, database.session().await);
    holder
        .batch_execute("BEGIN; LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let post = || server.post("/items", r#"{"name":"held up"}"#).status;
    let (statuses, shed) = thread::scope(|scope| {
        let requests = [(); 2].map(|()| scope.spawn(post));
        tokio::task::block_in_place(|| {
            let runtime = Handle::current();
            wait_for("both requests to wait for the table", || {
                let waiting =
                    "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'items'::regclass";
                (runtime.block_on(watch.query(waiting, &[])).unwrap().len() == 2).then_some(())
            });
            let shed = [(); 3].map(|()| server.post("/items", r#"{"name":"one too many"}"#));
            for path in ["/health", "/ready"] {
                assert_eq!(server.get(path).status, 200, "{path}");
            }
            runtime.block_on(holder.batch_execute("COMMIT")).unwrap();
            (requests.map(|request| request.join().unwrap()), shed)
        })
    });
    assert_eq!(statuses, [201, 201]);
    for answer in shed {
        assert!(answer.problem(503).contains("requests"), "{answer:?}");
        assert!(answer.header("retry-after").is_some());
    }
    assert_eq!(post(), 201, "a place was not given back");
}

#[test]
fn the_client_is_whom_the_trusted_proxy_saw_and_not_who_it_says_it_is() {
    for (trusted, expected) in [(0, "127.0.0.1"), (1, "203.0.113.7")] {
        let server = server(&format!("trusted_proxies = {trusted}\n"));
        let spoofed = "X-Forwarded-For: 198.51.100.66\r\nX-Real-IP: 198.51.100.66\r\n\
                       Forwarded: for=198.51.100.66\r\nX-Forwarded-For: 198.51.100.67, 203.0.113.7\r\n";
        let answer = server.send(format!(
            "GET /nothing HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{spoofed}\r\n"
        ));
        let id = answer.header("x-request-id").unwrap();
        let line = wait_for("the access line", || {
            let events = server.events().into_iter();
            events.rev().find(|event| event["span"]["request_id"] == id)
        });
        assert_eq!(line["client"], expected, "{line}");
    }
}

#[tokio::test]
async fn who_ends_the_sending_direction_is_answered_all_the_same() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    for path in ["/health", "/items"] {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer:?}");
    }
}
