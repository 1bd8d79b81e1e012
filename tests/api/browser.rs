//! What a person sees: pages in a real Chromium, driven through WebDriver as its maker's own driver speaks it.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{eventually, postgres, server::TestServer};

/// A cold Chromium on a busy machine; it usually takes two seconds.
const LIMIT: Duration = Duration::from_secs(180);

/// The name under which WebDriver hands out elements.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// One browser with one window.
struct Browser {
    driver: Child,
    agent: ureq::Agent,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    fn start() -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .spawn()
            .expect("chromedriver (Debian package chromium-driver)");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines
            .find_map(|line| {
                let line = line.unwrap();
                let port = line.strip_prefix("ChromeDriver was started successfully on port ")?;
                Some(port.trim_end_matches('.').to_owned())
            })
            .expect("chromedriver says its port");
        // It must be able to go on talking.
        std::thread::spawn(move || lines.for_each(drop));
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(LIMIT))
            .build();
        let profile = tempfile::tempdir().unwrap();
        let mut browser = Self {
            driver,
            agent: config.into(),
            session: format!("http://127.0.0.1:{port}/session"),
            _profile: profile,
        };
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            // Nothing but the page itself: browsers like to talk to their makers.
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-quic",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            &format!("--user-data-dir={}", browser._profile.path().display()),
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"},
        }}});
        let made = browser.command("", wanted);
        browser.session += &format!("/{}", made["sessionId"].as_str().unwrap());
        browser
    }

    fn command(&self, path: &str, body: Value) -> Value {
        let answer = self.agent.post(format!("{}{path}", self.session));
        Self::value(path, answer.send_json(body))
    }

    fn ask(&self, path: &str) -> Value {
        Self::value(
            path,
            self.agent.get(format!("{}{path}", self.session)).call(),
        )
    }

    fn value(what: &str, answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Value {
        let mut answer = answer.unwrap_or_else(|error| panic!("{what}: {error}"));
        let status = answer.status();
        let mut body: Value = answer
            .body_mut()
            .with_config()
            .limit(64 << 20)
            .read_json()
            .unwrap();
        assert!(status.is_success(), "{what}: {body}");
        body["value"].take()
    }

    /// A command of the browser's own protocol.
    fn devtools(&self, command: &str, parameters: Value) {
        self.command(
            "/goog/cdp/execute",
            json!({"cmd": command, "params": parameters}),
        );
    }

    fn run_scripts(&self, whether: bool) {
        self.devtools(
            "Emulation.setScriptExecutionDisabled",
            json!({"value": !whether}),
        );
    }

    fn open(&self, url: &str) {
        self.command("/url", json!({"url": url}));
    }

    fn url(&self) -> String {
        self.ask("/url").as_str().unwrap().to_owned()
    }

    fn source(&self) -> String {
        self.ask("/source").as_str().unwrap().to_owned()
    }

    /// The path of an element's commands.
    fn element(&self, selector: &str) -> String {
        let query = json!({"using": "css selector", "value": selector});
        let found = self.command("/element", query);
        format!("/element/{}", found[ELEMENT].as_str().unwrap())
    }

    fn texts(&self, selector: &str) -> Vec<String> {
        let query = json!({"using": "css selector", "value": selector});
        let found = self.command("/elements", query);
        let ids = found.as_array().unwrap().iter();
        ids.map(|id| {
            let text = self.ask(&format!("/element/{}/text", id[ELEMENT].as_str().unwrap()));
            text.as_str().unwrap().to_owned()
        })
        .collect()
    }

    fn enter(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.command(&format!("{element}/clear"), json!({}));
        self.command(&format!("{element}/value"), json!({"text": text}));
    }

    fn click(&self, selector: &str) {
        self.command(&format!("{}/click", self.element(selector)), json!({}));
    }

    /// What a script in the page makes of it.
    fn evaluate(&self, script: &str) -> Value {
        self.command("/execute/sync", json!({"script": script, "args": []}))
    }

    /// Where everything was asked for, since the last time.
    fn requested(&self) -> Vec<String> {
        let entries = self.command("/se/log", json!({"type": "performance"}));
        let entries = entries.as_array().unwrap().iter();
        entries
            .filter_map(|entry| {
                let text = entry["message"].as_str()?;
                let event: Value = serde_json::from_str(text).ok()?;
                let event = &event["message"];
                (event["method"] == "Network.requestWillBeSent").then(|| {
                    event["params"]["request"]["url"]
                        .as_str()
                        .map(ToOwned::to_owned)
                })?
            })
            .collect()
    }

    /// What the browser itself complained of, since the last time.
    fn complaints(&self) -> Vec<String> {
        let entries = self.command("/se/log", json!({"type": "browser"}));
        let entries = entries.as_array().unwrap().iter();
        entries.map(|entry| entry["message"].to_string()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends Chromium, which would outlive its driver.
        drop(self.agent.delete(&self.session).call());
        drop(self.driver.kill());
        drop(self.driver.wait());
    }
}

#[tokio::test]
async fn the_page_works_without_scripts_and_leads_to_the_documentation() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    let session = database.session().await;
    session
        .batch_execute(
            "INSERT INTO items (id, name, created_at)
             SELECT gen_random_uuid(), 'number ' || n, now() - n * interval '1 second' FROM generate_series(1, 25) n",
        )
        .await
        .unwrap();
    let home = format!("http://{}/", server.address());
    let browser = Browser::start();
    browser.run_scripts(false);

    browser.open(&home);
    assert_eq!(browser.texts(".items h3").len(), 20);
    browser.enter("#add-name", "a <b>bold</b> name");
    browser.enter("#add-description", "two\nlines");
    browser.click("form[method=post] button");
    assert_eq!(browser.url(), home, "a reload would send the form again");
    assert_eq!(browser.texts(".items h3")[0], "a <b>bold</b> name");
    assert_eq!(browser.texts(".items .description")[0], "two\nlines");

    browser.click("a[rel=next]");
    let last: Vec<_> = (20..=25).map(|n| format!("number {n}")).collect();
    assert_eq!(browser.texts(".items h3"), last);

    browser.open(&home);
    browser.enter("#q", "BOLD");
    browser.click("form[role=search] button");
    assert_eq!(browser.texts(".items h3"), ["a <b>bold</b> name"]);
    assert_eq!(browser.complaints(), [""; 0]);

    // Scripts are off indeed: this page is nothing without.
    browser.click("footer a");
    assert_eq!(browser.url(), format!("{home}docs"));
    assert!(!browser.source().contains("data-path="));
    browser.run_scripts(true);
    browser.open(&format!("{home}docs"));
    let document = server.get("/openapi.json").json();
    eventually(LIMIT, "the operations", || {
        let page = browser.source();
        let mut paths = document["paths"].as_object().unwrap().keys();
        // Swagger UI writes this attribute only when it has understood the document.
        let missing = paths.find(|path| !page.contains(&format!("data-path=\"{path}\"")));
        missing.map_or(Ok(()), |path| Err(format!("{path} is not on the page")))
    });
    let requested = browser.requested();
    // `chrome:` is the browser's own first page, which is part of it.
    let is_ours = |url: &String| {
        url.starts_with(&home) || url.starts_with("data:") || url.starts_with("chrome:")
    };
    assert!(
        requested.contains(&format!("{home}docs")) && requested.iter().all(is_ours),
        "{requested:?}"
    );

    browser.open(&home);
    let wide = json!({"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": true});
    browser.devtools("Emulation.setDeviceMetricsOverride", wide);
    let width = browser.evaluate("return document.documentElement.scrollWidth");
    assert_eq!(width, 360, "a phone has to scroll sideways");
    let mut ground = Vec::new();
    for scheme in ["light", "dark"] {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        browser.devtools("Emulation.setEmulatedMedia", features);
        ground.push(browser.evaluate("return getComputedStyle(document.body).backgroundColor"));
    }
    assert_ne!(ground[0], ground[1], "the page is as light in the dark");
}

#[tokio::test]
async fn whoever_has_to_sign_in_can_register_add_sign_out_and_sign_in_again() {
    let database = postgres::shared().database().await;
    let config = format!("{}[auth]\nanonymous_writes = false\n", database.config());
    let server = TestServer::start(&config);
    let home = format!("http://{}/", server.address());
    let browser = Browser::start();
    browser.run_scripts(false);

    browser.open(&home);
    assert_eq!(browser.texts("#add-name"), [""; 0], "nobody has signed in");
    browser.enter("#register-name", "Ada Lovelace");
    browser.enter("#register-email", "ada@example.org");
    browser.enter("#register-password", "twelve or more characters");
    browser.click("section[aria-labelledby=register-heading] button");
    assert!(browser.source().contains("Ada Lovelace"));
    browser.enter("#add-name", "a lantern");
    browser.click("section[aria-labelledby=add-heading] button");
    assert_eq!(browser.texts(".items h3"), ["a lantern"]);

    browser.click("form:has(input[value=sign-out]) button");
    assert_eq!(browser.texts("#add-name"), [""; 0], "still signed in");
    browser.enter("#sign-in-email", "ada@example.org");
    browser.enter("#sign-in-password", "another password");
    browser.click("section[aria-labelledby=sign-in-heading] button");
    assert_eq!(
        browser.texts("[role=alert]"),
        ["The e-mail address or the password is wrong."]
    );
    browser.enter("#sign-in-password", "twelve or more characters");
    browser.click("section[aria-labelledby=sign-in-heading] button");
    assert_eq!(browser.texts("#add-name"), [""]);
    // The browser says by itself that a form was refused with a 401.
    let complaints = browser.complaints();
    assert!(
        complaints.iter().all(|text| text.contains("401")),
        "{complaints:?}"
    );
}
