//! Whose keys are taken, and what is asked for them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::sshd::Hosts;
use crate::support::{Operator, Tty, eventually};

const PASSPHRASE: &str = "correct horse";

/// A key that the hosts accept beside their usual one.
fn add_key(hosts: &Hosts, name: &str, kind: &str, passphrase: &str) -> PathBuf {
    let path = hosts.folder.path().join(name);
    let mut command = Command::new("ssh-keygen");
    // Few rounds: the test is not about the time that guessing takes.
    command
        .args([
            "-q", "-t", kind, "-a", "2", "-C", name, "-N", passphrase, "-f",
        ])
        .arg(&path);
    assert!(command.status().unwrap().success());
    let accepted = hosts.user_key().with_extension("pub");
    let line = fs::read_to_string(path.with_extension("pub")).unwrap();
    let text = fs::read_to_string(&accepted).unwrap() + &line;
    fs::write(accepted, text).unwrap();
    path
}

/// As from a script: no terminal to ask on, not even the one of whoever runs the tests.
fn run_alone(command: &Command) -> (Option<i32>, String) {
    let mut alone = Command::new("setsid");
    alone
        .arg("--wait")
        .arg(command.get_program())
        .args(command.get_args())
        .current_dir(command.get_current_dir().unwrap());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => alone.env(name, value),
            None => alone.env_remove(name),
        };
    }
    let output = alone.stdin(Stdio::null()).output().unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

struct Agent {
    child: Child,
    socket: PathBuf,
}

impl Agent {
    fn start(folder: &Path) -> Self {
        let socket = folder.join("agent");
        let child = Command::new("ssh-agent")
            .arg("-D")
            .arg("-a")
            .arg(&socket)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        eventually(Duration::from_secs(60), "the agent's socket", || {
            socket
                .exists()
                .then_some(())
                .ok_or_else(|| "none".to_owned())
        });
        Self { child, socket }
    }

    fn add(&self, key: &Path) {
        let mut command = Command::new("ssh-add");
        command
            .arg("-q")
            .arg(key)
            .env("SSH_AUTH_SOCK", &self.socket);
        assert!(command.status().unwrap().success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_passphrase_is_asked_for_once_for_all_hosts_and_not_shown() {
    let hosts = Hosts::start();
    let key = add_key(&hosts, "locked", "ed25519", PASSPHRASE);
    let operator = Operator::new(&hosts.access_to_all());
    let words = ["exec", "--all", "--", "echo there"];
    let command = operator.drawbridge(&key, &words);
    let tty = Tty::open();
    let before = tty.modes();
    let at_tty = tty.spawn(&command);
    tty.wait_for("Passphrase of ");
    tty.keys("wrong\r");
    tty.wait_for("Passphrase of ");
    tty.keys(&format!("{PASSPHRASE}\r"));
    assert_eq!(at_tty.wait().code(), Some(0), "{}", tty.shown());
    tty.wait_for("database | there");
    let shown = tty.shown();
    assert!(
        !shown.contains("Passphrase") && !shown.contains("horse"),
        "{shown}"
    );
    assert_eq!(tty.modes(), before);

    // Three wrong ones are enough, a Ctrl-C is at once, and both give the echo back.
    let at_tty = tty.spawn(&command);
    for _ in 0..3 {
        tty.wait_for("Passphrase of ");
        tty.keys("wrong\r");
    }
    assert_eq!(at_tty.wait().code(), Some(255));
    tty.wait_for("that is not the passphrase");
    assert_eq!(tty.modes(), before);
    let at_tty = tty.spawn(&command);
    tty.wait_for("Passphrase of ");
    tty.keys("\x03");
    assert_eq!(at_tty.wait().code(), Some(130));
    assert_eq!(tty.modes(), before);

    let (status, said) = run_alone(&command);
    assert_eq!(status, Some(255));
    assert!(
        said.contains(&format!("ssh-add {}", key.display())),
        "{said}"
    );
}

#[test]
fn the_usual_files_are_found_and_a_locked_one_is_asked_for_when_nothing_else_is_accepted() {
    let hosts = Hosts::start();
    let operator = Operator::new(&hosts.access_to_all());
    let home = operator.path().join("home/.ssh");
    fs::create_dir_all(&home).unwrap();
    let put = |key: &Path, name: &str| assert!(fs::copy(key, home.join(name)).is_ok());
    let command = || operator.stranger(&["exec", "backend", "--", "echo there"]);
    let (_, said) = run_alone(&command());
    assert!(said.contains("no SSH key to log in with"), "{said}");

    put(&add_key(&hosts, "ecdsa", "ecdsa", ""), "id_ecdsa");
    assert_eq!(run_alone(&command()).0, Some(0));

    hosts.other_key();
    put(&hosts.folder.path().join("other"), "id_ecdsa");
    put(
        &add_key(&hosts, "locked", "ed25519", PASSPHRASE),
        "id_ed25519",
    );
    let (status, said) = run_alone(&command());
    assert_eq!(status, Some(255));
    for part in [
        "bastion accepts none of these keys",
        "id_ecdsa",
        "id_ed25519 is protected",
    ] {
        assert!(said.contains(part), "{said}");
    }
    let tty = Tty::open();
    let at_tty = tty.spawn(&command());
    tty.wait_for("id_ed25519: ");
    tty.keys(&format!("{PASSPHRASE}\r"));
    tty.wait_for("there");
    assert_eq!(at_tty.wait().code(), Some(0));
}

#[test]
fn several_files_are_tried_and_the_agent_stands_for_a_locked_or_public_one() {
    let hosts = Hosts::start();
    let operator = Operator::new(&hosts.access_to_all());
    hosts.other_key();
    let other = hosts.folder.path().join("other");
    let with = |files: &[&Path], socket: Option<&Path>| {
        let mut words = vec!["exec", "backend"];
        for file in files {
            words.extend(["--identity", file.to_str().unwrap()]);
        }
        words.extend(["--", "echo there"]);
        let mut command = operator.stranger(&words);
        command.envs(socket.map(|socket| ("SSH_AUTH_SOCK", socket)));
        run_alone(&command)
    };
    let user = hosts.user_key();
    assert_eq!(with(&[&other, &user], None).0, Some(0));
    let (status, said) = with(&[&other], None);
    assert_eq!(status, Some(255));
    assert!(said.contains("/other"), "{said}");
    let (_, said) = with(&[&user.with_extension("pub")], None);
    assert!(said.contains("the agent does not hold"), "{said}");

    let agent = Agent::start(hosts.folder.path());
    agent.add(&user);
    let socket = Some(agent.socket.as_path());
    assert_eq!(with(&[&user.with_extension("pub")], socket).0, Some(0));
    assert_eq!(with(&[], socket).0, Some(0));
    // Locked now, for who asks the file; the agent has it already.
    let mut lock = Command::new("ssh-keygen");
    lock.args(["-q", "-p", "-a", "2", "-P", "", "-N", PASSPHRASE, "-f"]);
    assert!(
        lock.arg(&user)
            .stdout(Stdio::null())
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(with(&[&user], socket).0, Some(0));
    assert_eq!(with(&[&user], None).0, Some(255));

    // More keys than sshd takes tries: what was not tried is said, and a .pub file chooses.
    let more = Agent::start(operator.path());
    let strangers = ["a", "b", "c", "d", "e"].map(|name| {
        let path = hosts.folder.path().join(name);
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]);
        assert!(command.arg(&path).status().unwrap().success());
        path
    });
    for stranger in &strangers {
        more.add(stranger);
    }
    let (_, said) = with(&[], Some(&more.socket));
    for part in ["agent's `a`", "agent's `d`", "1 more of the agent"] {
        assert!(said.contains(part), "{said}");
    }
}
