//! `drawbridge dev` as a newcomer runs it, and after everything that can happen to it.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use drawbridge::postgres::is_alive;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::support::{free_port, server::wait_for};

fn folder() -> tempfile::TempDir {
    let mut builder = tempfile::Builder::new();
    // As root, Postgres runs as another user, which must get this far.
    builder
        .prefix("drawbridge-test-dev-")
        .permissions(fs::Permissions::from_mode(0o755));
    builder.tempdir().unwrap()
}

fn dev(folder: &Path, port: u16) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drawbridge"));
    command
        .args(["dev", "--port", &port.to_string(), "--data-dir"])
        .arg(folder.join("dev"));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // What is set here would lead the server astray.
    command
        .env("DRAWBRIDGE_IDENTITY", "/nowhere/id_ed25519")
        .env("DRAWBRIDGE_HTTP__LISTEN", "127.0.0.1:1")
        .env("DRAWBRIDGE_DATABASE__PORT", "1");
    command
}

struct Dev {
    child: Child,
    port: u16,
}

impl Dev {
    fn start(folder: &Path) -> Self {
        let port = free_port();
        let mut child = dev(folder, port).stderr(Stdio::inherit()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, format!("http://127.0.0.1:{port}/docs\n"));
        Self { child, port }
    }

    fn agent() -> ureq::Agent {
        ureq::Agent::config_builder()
            .http_status_as_error(false)
            .build()
            .into()
    }

    fn names(&self) -> Vec<String> {
        let mut answer = Self::agent()
            .get(format!("http://127.0.0.1:{}/items", self.port))
            .call()
            .unwrap();
        let items: serde_json::Value = answer.body_mut().read_json().unwrap();
        items
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect()
    }

    fn store(&self, name: &str) {
        let request = Self::agent().post(format!("http://127.0.0.1:{}/items", self.port));
        assert_eq!(
            request
                .send_json(serde_json::json!({"name": name}))
                .unwrap()
                .status(),
            201
        );
    }

    fn end(&mut self, signal: Signal) -> ExitStatus {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
        wait_for("the end of `drawbridge dev`", || {
            self.child.try_wait().unwrap()
        })
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.end(Signal::SIGTERM);
        }
    }
}

/// The server and the database of a run.
fn processes(folder: &Path) -> Vec<Pid> {
    ["dev/serve.pid", "dev/postgresql/data/postmaster.pid"]
        .iter()
        .filter_map(|name| {
            fs::read_to_string(folder.join(name))
                .ok()?
                .lines()
                .next()?
                .trim()
                .parse()
                .ok()
        })
        .map(Pid::from_raw)
        .collect()
}

fn refusal(command: &mut Command) -> String {
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while child.try_wait().unwrap().is_none() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    // One that should have refused and runs instead is asked to end, with all it started.
    let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(output.stdout.is_empty());
    assert_eq!(
        text.lines()
            .filter(|line| line.starts_with("drawbridge: "))
            .count(),
        1,
        "{text}"
    );
    text
}

#[test]
fn a_second_start_keeps_the_data_and_nothing_is_left_running() {
    let folder = folder();
    for (signal, before) in [(Signal::SIGTERM, 0), (Signal::SIGINT, 1)] {
        let mut dev = Dev::start(folder.path());
        assert_eq!(dev.names().len(), before);
        dev.store("kept");
        let started = processes(folder.path());
        assert_eq!(started.len(), 2);
        assert_eq!(dev.end(signal).code(), Some(0));
        assert!(
            started.into_iter().all(|pid| !is_alive(pid)),
            "something runs on"
        );
    }
}

#[test]
fn after_a_kill_of_everything_or_of_itself_alone_the_next_start_recovers() {
    let folder = folder();
    let mut dev = Dev::start(folder.path());
    dev.store("kept");
    let started = processes(folder.path());
    dev.end(Signal::SIGKILL);
    assert!(
        started.iter().all(|pid| is_alive(*pid)),
        "nothing was left, so nothing is tested"
    );

    let mut dev = Dev::start(folder.path());
    assert!(
        started.iter().all(|pid| !is_alive(*pid)),
        "what was left over runs on"
    );
    assert_eq!(dev.names(), ["kept"]);
    let started = processes(folder.path());
    dev.end(Signal::SIGKILL);
    for pid in started {
        kill(pid, Signal::SIGKILL).unwrap();
    }
    // A number that belongs to somebody else by now: this test.
    let lock = folder.path().join("dev/postgresql/data/postmaster.pid");
    let stale = fs::read_to_string(&lock).unwrap();
    let (_, rest) = stale.split_once('\n').unwrap();
    fs::write(&lock, format!("{}\n{rest}", std::process::id())).unwrap();

    let dev = Dev::start(folder.path());
    assert_eq!(dev.names(), ["kept"]);
}

#[test]
fn a_taken_port_is_one_line_that_offers_another_and_leaves_nothing() {
    let folder = folder();
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let text = refusal(&mut dev(folder.path(), port));
    assert!(
        text.contains(&format!("port {port}")) && text.contains("--port"),
        "{text}"
    );
    assert!(processes(folder.path()).is_empty());
}

#[test]
fn a_second_one_on_the_same_folder_is_refused_and_the_first_goes_on() {
    let folder = folder();
    let first = Dev::start(folder.path());
    let text = refusal(&mut dev(folder.path(), free_port()));
    assert!(
        text.contains("already runs") && text.contains("--data-dir"),
        "{text}"
    );
    assert!(text.contains(&first.port.to_string()), "{text}");
    assert!(first.names().is_empty());
}

#[test]
fn a_machine_without_postgres_is_told_what_to_install() {
    // Debian's own folder cannot be hidden from the program, so this needs a machine where it is absent; the look-up
    // itself is tested beside its code.
    if Path::new("/usr/lib/postgresql").exists() {
        let elsewhere = tempfile::tempdir().unwrap();
        let hidden = Command::new("unshare")
            .args(["--mount", "--map-root-user", "sh", "-c"])
            .arg("mount --bind \"$1\" /usr/lib/postgresql && shift && exec env PATH=\"$1\" \"$2\" dev")
            .args(["sh".as_ref(), elsewhere.path().as_os_str(), elsewhere.path().as_os_str()])
            .arg(env!("CARGO_BIN_EXE_drawbridge"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&hidden.stderr);
        if text.contains("unshare") || text.contains("mount:") {
            eprintln!("not tested here: no mount namespace ({text})");
            return;
        }
        assert_eq!(hidden.status.code(), Some(1), "{text}");
        assert!(text.contains("apt-get install postgresql"), "{text}");
        return;
    }
    let folder = folder();
    let text = refusal(dev(folder.path(), free_port()).env("PATH", ""));
    assert!(text.contains("apt-get install postgresql"), "{text}");
}
