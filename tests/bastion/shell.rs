//! `drawbridge ssh` and `exec` as programs.

use std::process::Output;

use super::sshd::Hosts;
use crate::support::Operator;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn drawbridge(hosts: &Hosts, arguments: &[&str]) -> Output {
    let operator = Operator::new(&hosts.access_to_all());
    let mut command = operator.drawbridge(&hosts.user_key(), arguments);
    command.output().unwrap()
}

#[test]
fn exec_passes_the_two_outputs_and_the_status_on() {
    let hosts = Hosts::start();
    let output = drawbridge(
        &hosts,
        &["exec", "backend", "--", "echo out; echo err >&2; exit 7"],
    );
    assert_eq!(text(&output.stdout), "out\n", "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "err\n");
    assert_eq!(output.status.code(), Some(7));
}
