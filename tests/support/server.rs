//! The real `drawbridge-host serve` as a child process, and a plain HTTP client for it.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::eventually;

const LIMIT: Duration = Duration::from_secs(300);

/// `drawbridge-host` with a clean environment and `config` as its file.
pub fn host(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drawbridge-host"));
    command
        .env_clear()
        .env("DRAWBRIDGE_CONFIG", config)
        .stdin(Stdio::null());
    command
}

/// The section that lets anybody write.
pub const ANONYMOUS_WRITES: &str = "\n[auth]\nanonymous_writes = true\n";

/// Asks until `look` answers, 30 s at most.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    eventually(LIMIT, what, || look().ok_or_else(|| "nothing".to_owned()))
}

/// A running server.
pub struct TestServer {
    child: Child,
    address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    _config: tempfile::TempDir,
}

impl TestServer {
    /// Starts `serve` on a free port with the given further configuration, and waits until it is ready.
    pub fn start(config: &str) -> Self {
        let server = Self::start_unready(config);
        wait_for("/ready", || {
            (server.get("/ready").status == 200).then_some(())
        });
        server
    }

    /// As [`Self::start`], without waiting for more than the port.
    pub fn start_unready(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path: PathBuf = folder.path().join("config.toml");
        let listen = if config.contains("[http]") {
            config.replace("[http]\n", "[http]\nlisten = \"127.0.0.1:0\"\n")
        } else {
            format!("[http]\nlisten = \"127.0.0.1:0\"\n{config}")
        };
        // Most tests are about something else than who may write.
        let auth = if config.contains("[auth]") {
            ""
        } else {
            ANONYMOUS_WRITES
        };
        fs::write(&path, listen + auth).unwrap();
        let mut child = host(&path)
            .arg("serve")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let lines = Arc::clone(&log);
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        let mut server = Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            log,
            _config: folder,
        };
        server.address = wait_for("the line with the address", || {
            let events = server.events();
            let address = events
                .iter()
                .find_map(|event| event["address"].as_str()?.parse().ok());
            assert!(
                address.is_some() || server.child.try_wait().unwrap().is_none(),
                "ended: {}",
                server.log()
            );
            address
        });
        server
    }

    /// Everything it has logged, as text.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Everything it has logged; every line must be JSON.
    pub fn events(&self) -> Vec<Value> {
        let lines = self.log.lock().unwrap().clone();
        lines
            .iter()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}")))
            .collect()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send(format!(
            "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
        ))
    }

    pub fn method(&self, method: &str, path: &str) -> Answer {
        self.send(format!(
            "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
        ))
    }

    pub fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.post_as("application/json", path, body.as_ref())
    }

    pub fn post_as(&self, content_type: &str, path: &str, body: &[u8]) -> Answer {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Type: {content_type}\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        self.send([head.as_bytes(), body].concat())
    }

    /// One request with these headers; a body is JSON.
    pub fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        let body = body.map(Value::to_string);
        if let Some(body) = &body {
            let length = body.len();
            request += &format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
        }
        self.send(request + "\r\n" + &body.unwrap_or_default())
    }

    /// Sends bytes as they are, so that a test can send what no HTTP library would.
    pub fn send(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        // A server that refuses a large body may close before all of it is sent.
        drop(stream.write_all(request.as_ref()));
        Answer::read(stream)
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Waits for the process to end by itself.
    pub fn wait(&mut self) -> ExitStatus {
        wait_for("the server's end", || self.child.try_wait().unwrap())
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if thread::panicking() {
            eprintln!("the server's log:\n{}", self.log());
        }
    }
}

/// One HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    head: String,
    pub body: String,
}

impl Answer {
    pub fn read(mut stream: TcpStream) -> Self {
        let mut bytes = Vec::new();
        // A reset after the answer loses nothing of it.
        drop(stream.read_to_end(&mut bytes));
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("not an answer: {text:?}"));
        Self {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// Checks that this is a complete problem body with this status, and returns its `detail`.
    #[track_caller]
    pub fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let body = self.json();
        assert_eq!(body["type"], "about:blank");
        assert_eq!(body["status"], status);
        assert!(!body["title"].as_str().unwrap().is_empty());
        assert_eq!(
            body["request_id"].as_str(),
            self.header("x-request-id"),
            "{self:?}"
        );
        assert!(body["request_id"].as_str().is_some_and(|id| !id.is_empty()));
        body["detail"].as_str().unwrap().to_owned()
    }
}
