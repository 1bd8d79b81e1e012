use std::{
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixDatagram,
    process::Stdio,
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::support::{
    load::{Load, pass_listener},
    postgres,
    server::{TestServer, host, wait_for},
};

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_a_request_under_way_finish_and_exits_0() {
    let database = postgres::shared().database().await;
    let mut server = TestServer::start(&database.config());
    let session = database.session().await;
    session
        .batch_execute("BEGIN; LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let watch = database.session().await;
    let answer = thread::scope(|scope| {
        let request = scope.spawn(|| server.get("/items"));
        tokio::task::block_in_place(|| {
            let runtime = tokio::runtime::Handle::current();
            wait_for("the request to wait for the table", || {
                let waiting =
                    "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'items'::regclass";
                let rows = runtime.block_on(watch.query(waiting, &[])).unwrap();
                (!rows.is_empty()).then_some(())
            });
            server.signal(Signal::SIGTERM);
            wait_for("the line about SIGTERM", || {
                server.log().contains("stopping on SIGTERM").then_some(())
            });
            wait_for("the closed port", || {
                std::net::TcpStream::connect(server.address()).err()
            });
            runtime.block_on(session.batch_execute("COMMIT")).unwrap();
        });
        request.join().unwrap()
    });
    assert_eq!(
        answer.status, 200,
        "the request under way was cut: {answer:?}"
    );
    assert_eq!(server.wait().code(), Some(0));
}

#[tokio::test]
async fn ready_says_no_as_soon_as_sigterm_arrives_while_requests_are_still_served() {
    let database = postgres::shared().database().await;
    let mut server = TestServer::start(&format!(
        "{}[http]\nshutdown_delay_seconds = 2\n",
        database.config()
    ));
    server.signal(Signal::SIGTERM);
    wait_for("the line about SIGTERM", || {
        server.log().contains("stopping on SIGTERM").then_some(())
    });
    assert!(server.get("/ready").problem(503).contains("stop"));
    assert_eq!(server.get("/items").status, 200);
    assert_eq!(server.wait().code(), Some(0));
}

#[tokio::test]
async fn with_a_passed_listener_one_process_follows_another_and_no_request_fails() {
    let database = postgres::shared().database().await;
    let (_folder, config) = super::configuration::file(&database.config());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let program = env!("CARGO_BIN_EXE_drawbridge-host");
    let start = || {
        let mut serve = pass_listener(&[program, "serve"], &listener);
        // Not there: whoever binds by himself fails the test.
        serve.env("DRAWBRIDGE_HTTP__LISTEN", "192.0.2.1:80");
        serve.env("DRAWBRIDGE_CONFIG", &config);
        serve.stderr(Stdio::null()).spawn().unwrap()
    };
    let is_ready = || {
        let head = b"GET /ready HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(head).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.starts_with("HTTP/1.1 200")
    };
    let mut process = start();
    wait_for("the first process", || is_ready().then_some(()));
    let load = Load::start(address, "/items");
    for _ in 0..3 {
        let before = load.answered();
        wait_for("requests", || (load.answered() > before + 50).then_some(()));
        kill(Pid::from_raw(process.id() as i32), Signal::SIGTERM).unwrap();
        assert!(process.wait().unwrap().success());
        // Nobody serves now. Who connects is not refused, and waits for the next process.
        let mut early = std::net::TcpStream::connect(address).unwrap();
        let head = b"GET /health HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
        early.write_all(head).unwrap();
        process = start();
        let mut answer = String::new();
        early.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let tally = load.stop();
    process.kill().unwrap();
    process.wait().unwrap();
    assert_eq!(tally.failures, [""; 0], "{} answered", tally.answered);
}

#[tokio::test]
async fn what_is_passed_and_is_no_listener_is_refused() {
    let (_folder, config) = super::configuration::file("");
    let file = std::fs::File::open(&config).unwrap();
    let script = "exec 3<&0; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" serve";
    let output = std::process::Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_drawbridge-host")])
        .env("DRAWBRIDGE_CONFIG", &config)
        .stdin(file)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains("LISTEN_FDS") && text.contains("stream socket"),
        "{text}"
    );
}

#[tokio::test]
async fn a_request_that_does_not_finish_is_cut_after_the_grace() {
    let database = postgres::shared().database().await;
    let mut server = TestServer::start(&format!(
        "{}[http]\nshutdown_grace_seconds = 1\n",
        database.config()
    ));
    let _half = {
        let mut stream = std::net::TcpStream::connect(server.address()).unwrap();
        stream.write_all(b"GET /items HTTP/1.1\r\nHost:").unwrap();
        stream
    };
    thread::sleep(Duration::from_millis(100));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
}

#[tokio::test]
async fn serve_gives_up_on_a_database_that_never_answers_and_says_what_it_saw() {
    let config = "[database]\nhost = \"127.0.0.1\"\nport = 1\nstart_timeout_seconds = 1\n";
    let mut server = TestServer::start_unready(config);
    assert_eq!(server.wait().code(), Some(1));
    wait_for("the reason as a line of the log", || {
        let events = server.events();
        let last = events.last()?["message"].as_str()?.to_owned();
        (last.contains("gave up") && last.contains("Connection refused")).then_some(())
    });
}

#[tokio::test]
async fn migrate_waits_for_the_lock_names_its_holder_and_gives_up() {
    let database = postgres::shared().database().await;
    let session = database.session().await;
    let key = i64::from_be_bytes(*b"drawbrdg");
    session
        .query("SELECT pg_advisory_lock($1)", &[&key])
        .await
        .unwrap();
    let (_folder, config) =
        super::configuration::file(&format!("{}start_timeout_seconds = 1\n", database.config()));
    let output = host(&config).arg("migrate").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains("the migration lock is held by") && text.contains("start_timeout_seconds"),
        "{text}"
    );

    session
        .query("SELECT pg_advisory_unlock($1)", &[&key])
        .await
        .unwrap();
    for is_first in [true, false] {
        let output = host(&config).arg("migrate").output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        assert_eq!(text.contains("\"count\":0"), !is_first, "{text}");
    }
}

#[tokio::test]
async fn processes_that_migrate_together_migrate_once_and_all_succeed() {
    let database = postgres::shared().database().await;
    let (_folder, config) = super::configuration::file(&database.config());
    let started: Vec<_> = (0..6)
        .map(|_| {
            host(&config)
                .arg("migrate")
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut applied = 0;
    for process in started {
        let output = process.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        applied += usize::from(!text.contains("\"count\":0"));
    }
    assert_eq!(applied, 1);
}

#[tokio::test]
async fn systemd_learns_that_it_is_ready_alive_and_stopping() {
    let database = postgres::shared().database().await;
    let (folder, config) = super::configuration::file(&database.config());
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(120)))
        .unwrap();
    let receive = || {
        let mut buffer = [0; 256];
        loop {
            match socket.recv(&mut buffer) {
                // A limit on a receive keeps the kernel from going on by itself after a signal.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                received => {
                    return received.map(|length| {
                        String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
                    });
                }
            }
        }
    };
    let next = || receive().unwrap();
    let mut server = host(&config)
        .arg("serve")
        .env("DRAWBRIDGE_HTTP__LISTEN", "127.0.0.1:0")
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "6000000")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(server.id().cast_signed());
    assert_eq!(next(), "READY=1");
    for _ in 0..3 {
        assert_eq!(next(), "WATCHDOG=1");
    }
    // A process that does not run does not say that it lives.
    kill(pid, Signal::SIGSTOP).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(8)))
        .unwrap();
    let silence = (0..10).find_map(|_| receive().err());
    assert!(silence.is_some(), "a stopped process went on");
    socket
        .set_read_timeout(Some(Duration::from_secs(120)))
        .unwrap();
    kill(pid, Signal::SIGCONT).unwrap();
    assert_eq!(next(), "WATCHDOG=1");
    kill(pid, Signal::SIGTERM).unwrap();
    let last = (0..100).map(|_| next()).find(|said| said != "WATCHDOG=1");
    assert_eq!(last.as_deref(), Some("STOPPING=1"));
    assert!(server.wait().unwrap().success());
}
