//! `drawbridge ssh` at a real pseudo-terminal.

use std::process::Command;

use drawbridge::bastion::terminal::Mode;

use super::sshd::Hosts;
use crate::support::{Operator, Tty};

struct Stage {
    hosts: Hosts,
    operator: Operator,
}

impl Stage {
    fn start() -> Self {
        let hosts = Hosts::start();
        let operator = Operator::new(&hosts.access_to_all());
        Self { hosts, operator }
    }

    fn drawbridge(&self, arguments: &[&str]) -> Command {
        self.operator.drawbridge(&self.hosts.user_key(), arguments)
    }
}

#[test]
fn a_shell_has_the_terminal_its_size_and_its_keys_and_gives_its_status() {
    let stage = Stage::start();
    let tty = Tty::open();
    let before = tty.modes();
    let shell = tty.spawn(&stage.drawbridge(&["ssh", "backend"]));
    tty.wait_for_modes(&before, false);
    // The shell there may be any, with any prompt; nothing it echoes has the answer in it.
    tty.keys("echo at-$((40 + 2)) $(stty size) $TERM\r");
    tty.wait_for("at-42 30 100 vt220");
    tty.resize(120, 40);
    tty.keys(
        "until [ \"$(stty size)\" = '40 120' ]; do sleep 0.1; done; echo resized-$((40 + 2))\r",
    );
    tty.wait_for("resized-42");
    // Ctrl-C ends what runs there, and neither the shell nor the session.
    tty.keys("echo sleeping-$((40 + 2)); sleep 1000\r");
    tty.wait_for("sleeping-42");
    tty.keys("\x03");
    tty.keys("echo awake-$((40 + 2))\r");
    tty.wait_for("awake-42");
    tty.keys("\r~?");
    tty.wait_for("~.  leave");
    tty.keys("exit 9\r");
    assert_eq!(shell.wait().code(), Some(9));
    assert_eq!(tty.modes(), before);
}

#[test]
fn the_terminal_is_as_before_whatever_ends_the_session() {
    let stage = Stage::start();
    let tty = Tty::open();
    let before = tty.modes();
    let start = |line: &str| {
        // It goes on when it is told to: an sshd that is killed before passes no word on.
        let line = format!("echo here-$((40 + 2)); read go; {line}");
        let at_tty = tty.spawn(&stage.drawbridge(&["ssh", "-t", "backend", "--", &line]));
        tty.wait_for("here-42");
        tty.keys("\r");
        at_tty
    };
    for signal in ["TERM", "HUP", "INT"] {
        let session = start("sleep 1000");
        assert_ne!(tty.modes(), before, "it is not raw");
        session.signal(signal);
        assert_eq!(session.wait().code(), Some(130), "{signal}");
        assert_eq!(tty.modes(), before, "{signal}");
    }
    // The shell's parent is the sshd that serves this very connection: killed, then only stopped.
    let lost = start("kill -9 $PPID; sleep 1000");
    assert_eq!(lost.wait().code(), Some(255));
    tty.wait_for("lost the connection to backend");
    assert_eq!(tty.modes(), before);
    let hung = start("sleep 1000 & echo $PPID >hung; kill -STOP $PPID; wait");
    tty.keys("echo nobody hears\r~.");
    assert_eq!(hung.wait().code(), Some(255));
    tty.wait_for("left backend");
    assert_eq!(tty.modes(), before);
    let killed = start("kill -9 $$");
    assert_eq!(killed.wait().code(), Some(137));
    tty.wait_for("signal KILL");
    assert_eq!(tty.modes(), before);
    assert_eq!(start("exit 0").wait().code(), Some(0));
    assert_eq!(tty.modes(), before);
}

#[test]
fn a_panic_gives_the_terminal_back() {
    let tty = Tty::open();
    let before = tty.modes();
    let panicked = std::panic::catch_unwind(|| {
        let _raw = Mode::raw(tty.end()).unwrap();
        assert_eq!(tty.modes(), before);
    });
    assert!(panicked.is_err(), "it was not raw");
    assert_eq!(tty.modes(), before);
}

#[test]
fn without_a_terminal_a_shell_reads_its_commands_from_stdin() {
    let stage = Stage::start();
    let mut command = Command::new("sh");
    let shell = stage.drawbridge(&["ssh", "backend"]);
    command.args([
        "-c",
        "printf 'echo out; echo err >&2; tty; exit 3' | \"$0\" \"$@\"",
    ]);
    command.arg(shell.get_program()).args(shell.get_args());
    command.current_dir(shell.get_current_dir().unwrap());
    command.env_clear().envs(
        shell
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let output = command.output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.ends_with("out\nnot a tty\n"), "{stdout}");
    assert!(String::from_utf8_lossy(&output.stderr).ends_with("err\n"));
    assert_eq!(output.status.code(), Some(3));
}
