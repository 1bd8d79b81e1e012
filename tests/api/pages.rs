//! `/` with its forms, as a browser sends them, and the small paths beside it. tests/api/browser.rs has the real browser.

use std::{fs, process::Command};

use form_urlencoded::Serializer;
use serde_json::json;

use crate::support::{
    postgres,
    server::{Answer, TestServer},
};

const DEFAULT: &str = "[auth]\nanonymous_writes = false\n";

/// What a browser sends with a form of the page.
const FROM_HERE: &[(&str, &str)] = &[("Origin", "http://test")];

fn send(server: &TestServer, headers: &[(&str, &str)], fields: &[(&str, &str)]) -> Answer {
    let body = Serializer::new(String::new()).extend_pairs(fields).finish();
    let headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    server.send(format!(
        "POST / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

fn add(server: &TestServer, name: &str, description: &str) -> Answer {
    let fields = [
        ("action", "add"),
        ("name", name),
        ("description", description),
    ];
    send(server, FROM_HERE, &fields)
}

/// The body of a page with this status.
#[track_caller]
fn page(answer: Answer, status: u16) -> String {
    let kind = answer.header("content-type").map(ToOwned::to_owned);
    assert_eq!(
        (answer.status, kind.as_deref()),
        (status, Some("text/html; charset=utf-8")),
        "{answer:?}"
    );
    answer.body
}

fn names(server: &TestServer) -> Vec<String> {
    let items = server.get("/items").json();
    let items = items.as_array().unwrap().iter();
    items
        .map(|item| item["name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn hello_greets_the_world_or_whom_it_is_told_to() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    assert_eq!(
        server.get("/hello").json(),
        json!({"message": "Hello, world!"})
    );
    for (query, name) in [("Ada", "Ada"), ("%C3%9C+%3Cb%3E%22", "Ü <b>\"")] {
        let answer = server.get(&format!("/hello?name={query}"));
        assert_eq!(answer.json(), json!({"message": format!("Hello, {name}!")}));
    }
    let most = "%C3%BC".repeat(100);
    assert_eq!(server.get(&format!("/hello?name={most}")).status, 200);
    for bad in ["", &format!("{most}x")] {
        assert!(
            server
                .get(&format!("/hello?name={bad}"))
                .problem(400)
                .contains("name")
        );
    }
}

#[tokio::test]
async fn version_says_what_the_program_says_and_nothing_it_does_not_know() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    let version = server.get("/version").json();
    let build = version["build"].as_str().unwrap();
    assert_eq!(
        version,
        json!({"name": "drawbridge", "version": env!("CARGO_PKG_VERSION"), "commit": null, "build": build})
    );
    let said = |program: &std::path::Path| {
        let output = Command::new(program).arg("--version").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_drawbridge-host"));
    let expected = |commit: &str| {
        format!(
            "drawbridge-host {} (commit {commit}, {build})\n",
            env!("CARGO_PKG_VERSION")
        )
    };
    assert_eq!(said(program), expected("unknown"));

    // As nixos/stamped.nix lays it out; beside the program itself, where a link to it is always possible.
    let folder = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
    let (bin, stamp) = (
        folder.path().join("bin"),
        folder.path().join("share/drawbridge"),
    );
    fs::create_dir_all(&bin).unwrap();
    fs::create_dir_all(&stamp).unwrap();
    let stamped = bin.join("drawbridge-host");
    fs::hard_link(program, &stamped).unwrap();
    fs::write(
        stamp.join("commit"),
        "0123456789abcdef0123456789abcdef01234567-dirty\n",
    )
    .unwrap();
    assert_eq!(
        said(&stamped),
        expected("0123456789abcdef0123456789abcdef01234567-dirty")
    );
}

#[tokio::test]
async fn what_is_stored_is_shown_as_text_and_never_as_html() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    let planted = "<script>planted()</script>\"'&<b>";
    let answer = add(&server, planted, "</textarea><img src=x>");
    assert_eq!((answer.status, answer.header("location")), (303, Some("/")));
    assert_eq!(names(&server), [planted]);

    let answer = server.get("/");
    let policy = answer.header("content-security-policy").unwrap().to_owned();
    assert!(
        policy.contains("default-src 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );
    let shown = page(answer, 200);
    for path in ["/?q=%3Cscript%3E%22", "/?after=%22%3E%3Cscript%3E"] {
        let body = server.get(path).body;
        assert!(!body.contains("<script"), "{body}");
    }
    let refused = page(add(&server, "", "</textarea><script>"), 400);
    for body in [shown, refused] {
        assert!(
            body.contains("&lt;script&gt;planted()&lt;/script&gt;"),
            "{body}"
        );
        assert!(
            !body.contains("<script") && !body.contains("<img"),
            "{body}"
        );
        assert!(!body.contains("style="), "{body}");
    }
    assert_eq!(
        server.get("/style.css").header("content-type"),
        Some("text/css; charset=utf-8")
    );
}

#[tokio::test]
async fn a_form_that_another_site_sends_does_nothing() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    let fields = [("action", "add"), ("name", "planted")];
    for headers in [
        &[][..],
        &[("Origin", "http://elsewhere")],
        &[("Origin", "null")],
        &[("Origin", "http://test"), ("Sec-Fetch-Site", "cross-site")],
        &[
            ("Origin", "http://elsewhere"),
            ("Sec-Fetch-Site", "same-origin"),
        ],
    ] {
        page(send(&server, headers, &fields), 403);
    }
    assert_eq!(names(&server), [""; 0]);
    assert_eq!(
        send(&server, &[("Sec-Fetch-Site", "same-origin")], &fields).status,
        303
    );
    assert_eq!(names(&server), ["planted"]);
}

#[tokio::test]
async fn a_mistake_is_said_in_the_page_with_what_was_entered() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    let long = "n".repeat(201);
    for (name, description) in [
        ("", "kept words"),
        (long.as_str(), "kept words"),
        ("a\0b", "kept words"),
    ] {
        let body = page(add(&server, name, description), 400);
        assert!(
            body.contains("role=\"alert\"") && body.contains("kept words"),
            "{body}"
        );
        assert!(body.contains("aria-invalid=\"true\""), "{body}");
    }
    page(add(&server, "n", &"d".repeat(4001)), 400);
    page(send(&server, FROM_HERE, &[("action", "other")]), 400);
    page(server.get("/?q=ab"), 400);
    page(server.get("/?after=nowhere"), 400);
    let body = br#"{"action": "add", "name": "n"}"#;
    let head = format!(
        "POST / HTTP/1.1\r\nHost: test\r\nOrigin: http://test\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    page(server.send([head.as_bytes(), body].concat()), 415);
    assert_eq!(names(&server), [""; 0], "something refused was stored");
    let other = server.method("PUT", "/");
    other.problem(405);
    assert_eq!(other.header("allow"), Some("GET, HEAD, POST"));
}

#[tokio::test]
async fn one_form_sent_twice_is_one_item_and_with_other_words_two() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    let body = page(server.get("/"), 200);
    let (_, rest) = body.split_once("name=\"key\" value=\"").unwrap();
    let key = rest.split('"').next().unwrap();
    for name in ["once", "once", "again"] {
        let fields = [
            ("action", "add"),
            ("name", name),
            ("description", ""),
            ("key", key),
        ];
        assert_eq!(send(&server, FROM_HERE, &fields).status, 303);
    }
    assert_eq!(names(&server), ["again", "once"]);
}

#[tokio::test]
async fn who_signs_in_may_write_and_the_cookie_is_good_for_nothing_else() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&format!("{}{DEFAULT}", database.config()));
    let body = page(add(&server, "planted", "kept words"), 401);
    assert!(body.contains("kept words"), "{body}");

    let password = "correct horse battery";
    let register = |password: &str| {
        let fields = [
            ("action", "register"),
            ("name", "Ada <b>"),
            ("email", "ada@example.org"),
            ("password", password),
        ];
        send(&server, FROM_HERE, &fields)
    };
    let body = page(register("too short"), 400);
    assert!(
        body.contains("ada@example.org") && !body.contains("too short"),
        "{body}"
    );
    let registered = register(password);
    assert_eq!(
        (registered.status, registered.header("location")),
        (303, Some("/"))
    );
    let cookie = registered.header("set-cookie").unwrap();
    let (pair, flags) = cookie.split_once("; ").unwrap();
    for flag in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(flags.contains(flag), "{cookie}");
    }
    // Nobody has spoken HTTPS here.
    assert!(!flags.contains("Secure"), "{cookie}");
    page(register(password), 409);

    let signed_in = [FROM_HERE[0], ("Cookie", pair)];
    let get = |path: &str, header: &str| {
        server.send(format!(
            "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{header}\r\n"
        ))
    };
    let body = page(get("/", &format!("Cookie: other=1; {pair}\r\n")), 200);
    assert!(
        body.contains("Ada &lt;b&gt;") && body.contains("Add an item"),
        "{body}"
    );
    let fields = [("action", "add"), ("name", "hers")];
    assert_eq!(send(&server, &signed_in, &fields).status, 303);
    assert_eq!(names(&server), ["hers"]);
    page(send(&server, &[("Cookie", pair)], &fields), 403);
    get("/auth/me", &format!("Cookie: {pair}\r\n")).problem(401);

    let out = send(&server, &signed_in, &[("action", "sign-out")]);
    assert_eq!(out.status, 303);
    assert!(
        out.header("set-cookie").unwrap().contains("Max-Age=0"),
        "{out:?}"
    );
    page(send(&server, &signed_in, &fields), 401);
    assert_eq!(
        names(&server),
        ["hers"],
        "the session goes on after signing out"
    );

    let sign_in = |password: &str| {
        let fields = [
            ("action", "sign-in"),
            ("email", "ADA@example.org"),
            ("password", password),
        ];
        send(&server, FROM_HERE, &fields)
    };
    let body = page(sign_in("wrong horse battery"), 401);
    assert!(
        body.contains("ADA@example.org") && !body.contains("wrong horse"),
        "{body}"
    );
    assert_eq!(sign_in(password).status, 303);
    assert!(!server.log().contains("horse"), "a password is in the log");
}

#[tokio::test]
async fn the_cookie_is_for_https_alone_where_a_trusted_proxy_says_so() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&format!(
        "{}{DEFAULT}[http]\ntrusted_proxies = 1\n",
        database.config()
    ));
    let headers = [
        FROM_HERE[0],
        ("X-Forwarded-For", "192.0.2.1"),
        ("X-Forwarded-Proto", "https"),
    ];
    let fields = [
        ("action", "register"),
        ("name", "Ada"),
        ("email", "ada@example.org"),
        ("password", "correct horse battery"),
    ];
    let registered = send(&server, &headers, &fields);
    assert!(
        registered
            .header("set-cookie")
            .unwrap()
            .ends_with("; Secure"),
        "{registered:?}"
    );
}

#[tokio::test]
async fn without_its_database_the_page_says_so_and_nothing_internal() {
    let config = "[auth]\nanonymous_writes = true\n[database]\nhost = \"127.0.0.1\"\nport = 1\n";
    let server = TestServer::start_unready(config);
    let answer = server.get("/");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    let body = page(answer, 503);
    assert!(
        body.contains("role=\"alert\"") && !body.contains("127.0.0.1"),
        "{body}"
    );
    let body = page(add(&server, "kept words", ""), 503);
    assert!(body.contains("kept words"), "{body}");
}
