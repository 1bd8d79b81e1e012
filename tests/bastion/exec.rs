//! `drawbridge exec` as a program.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Output, Stdio};

use super::sshd::Hosts;
use crate::support::{Operator, Tty};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn run(hosts: &Hosts, arguments: &[&str]) -> Output {
    let operator = Operator::new(&hosts.access_to_all());
    let mut command = operator.drawbridge(&hosts.user_key(), arguments);
    command.output().unwrap()
}

#[test]
fn the_two_outputs_and_the_status_are_passed_on_and_nothing_is_added() {
    // A greeting before the login, as an sshd may have one, with a sequence that clears the screen.
    let hosts = Hosts::start_with(|folder| {
        let banner = folder.join("banner");
        std::fs::write(&banner, "\u{1b}[2Jgreetings\n").unwrap();
        format!("Banner {}\n", banner.display())
    });
    let output = run(
        &hosts,
        &["exec", "backend", "--", "echo out; echo err >&2; exit 7"],
    );
    assert_eq!(text(&output.stdout), "out\n", "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "err\n");
    assert_eq!(output.status.code(), Some(7));
    // As a shell gives the status of what a signal ended.
    let output = run(&hosts, &["exec", "backend", "--", "kill -9 $$"]);
    assert_eq!(output.status.code(), Some(137), "{}", text(&output.stderr));
}

#[test]
fn who_has_read_enough_ends_it_at_once_without_an_error() {
    let hosts = Hosts::start();
    let operator = Operator::new(&hosts.access_to_all());
    for words in [
        &["exec", "backend", "--", "yes"][..],
        &["exec", "--all", "--", "yes"],
    ] {
        let mut command = operator.drawbridge(&hosts.user_key(), words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        assert!(line.ends_with("y\n"), "{line}");
        drop(stdout);
        let output = child.wait_with_output().unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(141), "{stderr}");
        assert!(!stderr.contains("drawbridge:"), "{stderr}");
    }
}

#[test]
fn input_without_end_is_not_waited_for() {
    let hosts = Hosts::start();
    let operator = Operator::new(&hosts.access_to_all());
    let words = ["exec", "backend", "--", "exit 3"];
    let mut command = operator.drawbridge(&hosts.user_key(), &words);
    command.stdin(File::open("/dev/zero").unwrap());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
}

#[test]
fn on_all_hosts_each_line_says_where_it_is_from_and_the_worst_status_counts() {
    let mut hosts = Hosts::start();
    let operator = Operator::new(&hosts.access_to_all());
    let all = |line: &str| {
        let words = ["exec", "--all", "--", line];
        operator.drawbridge(&hosts.user_key(), &words)
    };
    let output = all("echo out; echo err >&2").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let mut lines: Vec<_> = text(&output.stdout).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(
        lines,
        ["backend  | out", "bastion  | out", "database | out"]
    );
    assert!(text(&output.stderr).contains("database | err\n"));

    let output = all("exit 3").output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("drawbridge: backend: exit status 3\n"),
        "{stderr}"
    );

    // A host's sequences do not reach a terminal through lines of ours.
    let tty = Tty::open();
    let at_tty = tty.spawn(&all("printf '\\033[2J\\n'"));
    tty.wait_for("bastion  | \\u{1b}[2J");
    assert_eq!(at_tty.wait().code(), Some(0));

    hosts.stop_backend();
    let words = ["exec", "--all", "--", "echo out"];
    let mut command = operator.drawbridge(&hosts.user_key(), &words);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(255));
    assert_eq!(text(&output.stdout), "bastion  | out\n");
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("drawbridge: database: the bastion cannot connect"),
        "{stderr}"
    );
}
