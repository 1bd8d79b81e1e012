//! `drawbridge logs` against a stand-in for journalctl that has the same arguments and prints what the real one printed.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use drawbridge::appliance::Role;
use drawbridge::bastion::journal::Query;
use drawbridge::bastion::reconnect::Patience;
use drawbridge::command::logs::{Shown, show};
use drawbridge::exit::Exit;
use drawbridge::progress::Progress;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, duplex};
use tokio::time::timeout;

use super::sshd::Hosts;
use crate::support::Operator;

const LONG: Duration = Duration::from_secs(120);

/// Each sshd has a journal of its own, named by its port. Written down: what it was asked.
const JOURNALCTL: &str = r#"#!/bin/sh
here=${0%/*} port=${SSH_CONNECTION##* }
journal=$here/journal.$port lines=all follow= from=1
echo "$*" >>"$here/asked"
[ -e "$journal" ] || { echo 'No journal files were found.' >&2; exit 1; }
for word in "$@"; do
  case $word in
  --lines=*) lines=${word#*=} ;;
  --follow) follow=-f ;;
  --after-cursor=*) from=$(($(grep -nF "\"__CURSOR\":\"${word#*=}\"" "$journal" | cut -d: -f1) + 1)) ;;
  esac
done
[ "$lines" = all ] || from=$(($(wc -l <"$journal") - lines + 1))
exec tail $follow -n +"$from" "$journal"
"#;

fn hosts() -> Hosts {
    Hosts::start_with(|folder| {
        let file = folder.join("journalctl");
        fs::write(&file, JOURNALCTL).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        format!("SetEnv PATH={}:/usr/bin:/bin\n", folder.display())
    })
}

/// An entry as journalctl 252 wrote it, shortened.
fn entry(number: u64, message: &Value) -> String {
    json!({
        "_SYSTEMD_UNIT": "drawbridge-api.service", "_BOOT_ID": "2e76f79410af47d5813840f352586eac",
        "__CURSOR": format!("s=2e5da4c5b47b4b1080c374b5d362733a;i={number:x};b=2e76f79410af47d5813840f352586eac;m=e1b5f522;t=660c9cf5cf62f;x=b0a6dcc15140a844"),
        "__REALTIME_TIMESTAMP": (1_795_269_743_000_000 + number * 1000).to_string(), "__MONOTONIC_TIMESTAMP": "3786798370",
        "MESSAGE": message, "SYSLOG_IDENTIFIER": "api", "_TRANSPORT": "journal",
    })
    .to_string()
        + "\n"
}

impl Hosts {
    fn log(&self, role: Role, text: &str) {
        let port = match role {
            Role::Bastion => self.bastion_port(),
            _ => self.access().login.port,
        };
        let file = self.folder.path().join(format!("journal.{port}"));
        let mut file = OpenOptions::new().append(true).create(true).open(file);
        file.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn asked(&self) -> String {
        fs::read_to_string(self.folder.path().join("asked")).unwrap()
    }
}

async fn shown(hosts: &Hosts, roles: &[Role], is_json: bool) -> (Exit, String) {
    let mut output = Vec::new();
    let shown = Shown {
        output: &mut output,
        is_json,
        progress: &Progress::quiet(),
    };
    let query = Query {
        is_whole: is_json,
        ..Query::default()
    };
    let access = hosts.access_to_all();
    let ended = timeout(
        LONG,
        show(&access, roles, &query, Patience::default(), shown),
    );
    let exit = ended.await.expect("in time").unwrap();
    (exit, String::from_utf8(output).unwrap())
}

#[tokio::test]
async fn journals_are_one_by_time_and_harmless() {
    let hosts = hosts();
    hosts.log(Role::Bastion, &entry(1, &json!("one")));
    hosts.log(Role::Backend, &entry(2, &json!("two\u{1b}[2J")));
    // Bytes that are no clean text come as numbers.
    hosts.log(Role::Bastion, &entry(3, &json!([116, 104, 27, 255])));
    hosts.log(Role::Backend, &entry(4, &Value::Null));
    let (exit, text) = shown(&hosts, &[Role::Bastion, Role::Backend], false).await;
    assert_eq!(exit, Exit::Done);
    assert_eq!(
        text,
        "2026-11-21T14:02:23.001Z bastion  drawbridge-api.service: one\n\
         2026-11-21T14:02:23.002Z backend  drawbridge-api.service: two\\u{1b}[2J\n\
         2026-11-21T14:02:23.003Z bastion  drawbridge-api.service: th\\u{1b}\u{fffd}\n\
         2026-11-21T14:02:23.004Z backend  drawbridge-api.service: \n"
    );
    let (_, text) = shown(&hosts, &[Role::Bastion, Role::Backend], true).await;
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let places: Vec<_> = lines.iter().map(|line| &line["host"]).collect();
    assert_eq!(places, ["bastion", "backend", "bastion", "backend"]);
    assert_eq!(lines[2]["MESSAGE"], json!([116, 104, 27, 255]));
    assert_eq!(lines[0]["_BOOT_ID"], "2e76f79410af47d5813840f352586eac");
}

#[tokio::test]
async fn a_host_that_is_away_is_said_and_the_others_are_shown() {
    let mut hosts = hosts();
    hosts.log(Role::Bastion, &entry(1, &json!("one")));
    // Reached, but its journalctl fails.
    let (exit, text) = shown(&hosts, &[Role::Bastion, Role::Backend], false).await;
    assert_eq!((exit, text.lines().count()), (Exit::Failed, 1));
    hosts.kill(Role::Backend);
    let (exit, text) = shown(&hosts, &Role::ALL, false).await;
    assert_eq!((exit, text.lines().count()), (Exit::Failed, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn following_survives_a_lost_session_without_a_line_lost_or_doubled() {
    let mut hosts = hosts();
    let mut written = 0;
    let mut write = |hosts: &Hosts, many: u64| {
        let text: String = (0..many)
            .map(|step| entry(written + step, &json!(format!("line {}", written + step))))
            .collect();
        written += many;
        hosts.log(Role::Backend, &text);
    };
    write(&hosts, 300);
    let (mut output, reader) = duplex(4096);
    let access = hosts.access_to_all();
    let following = tokio::spawn(async move {
        let shown = Shown {
            output: &mut output,
            is_json: false,
            progress: &Progress::quiet(),
        };
        let query = Query {
            newest: Some(300),
            is_following: true,
            ..Query::default()
        };
        let patience = Patience {
            attempts: 200,
            first: Duration::from_millis(100),
            longest: Duration::from_millis(500),
        };
        show(&access, &[Role::Backend], &query, patience, shown).await
    });
    let mut lines = tokio::io::BufReader::new(reader).lines();
    let mut next = 0;
    let mut read_to = async |end: u64| {
        while next < end {
            let line = timeout(LONG, lines.next_line()).await;
            let line = line.expect("a line in time").unwrap().unwrap();
            assert!(line.ends_with(&format!(": line {next}")), "{next}: {line}");
            next += 1;
        }
    };
    read_to(100).await;
    for end in [600, 900] {
        tokio::task::block_in_place(|| {
            hosts.kill(Role::Backend);
            write(&hosts, 200);
            hosts.start_again(Role::Backend);
        });
        write(&hosts, 100);
        read_to(end).await;
    }
    assert!(
        hosts.asked().contains("--after-cursor=s=2e5d"),
        "{}",
        hosts.asked()
    );
    following.abort();
}

fn logs(hosts: &Hosts, operator: &Operator, arguments: &[&str]) -> Command {
    let words = [&["logs"], arguments].concat();
    let mut command = operator.drawbridge(&hosts.user_key(), &words);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn the_program_asks_for_what_it_was_told_and_ends_as_it_should() {
    let hosts = hosts();
    let operator = Operator::new(&hosts.access_to_all());
    let many: String = (0..1000)
        .map(|number| entry(number, &json!("x".repeat(500))))
        .collect();
    hosts.log(Role::Backend, &many);
    let words = [
        "backend",
        "-n",
        "2",
        "--since",
        "2026-11-21 09:30",
        "-u",
        "drawbridge-*",
    ];
    let output = logs(&hosts, &operator, &words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(
        output.stdout.split(|byte| *byte == b'\n').count(),
        3,
        "{said}"
    );
    let asked = hosts.asked();
    assert!(
        asked.contains("--unit=drawbridge-* --since=@1795253400 --lines=2"),
        "{asked}"
    );
    for wrong in [["--since", "soon"], ["--unit", "$(id)"]] {
        let output = logs(&hosts, &operator, &wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
    }

    // Whoever reads has seen enough.
    let mut child = logs(&hosts, &operator, &["backend", "-n", "1000"])
        .spawn()
        .unwrap();
    let mut first = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut first).unwrap();
    drop(stdout);
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0));
    assert!(!String::from_utf8_lossy(&ended.stderr).contains("drawbridge:"));

    let mut child = logs(&hosts, &operator, &["backend", "-f", "-n", "1"])
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut first).unwrap();
    let mut kill = Command::new("kill");
    kill.args(["-INT", &child.id().to_string()]);
    assert!(kill.status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
