//! What the API is denied, seen from inside: its namespaces are entered, its control group joined.

use anyhow::{Context as _, Result, ensure};

use super::{ask, properties};
use crate::appliance::API_PORT;
use crate::rehearsal::hosts::API_UNIT;
use crate::rehearsal::machine::Machine;
use crate::rehearsal::network::METADATA;
use crate::rehearsal::report::Current;

/// Places a program might want to change: all but its own `/tmp` and `/dev/shm`.
const PLACES: &str =
    "/ /etc /usr /home /root /boot /nix/store /var /var/lib /var/lib/drawbridge /var/log";

/// The API's restrictions are in force, not only written down.
pub fn prove(step: &mut Current<'_>, machine: &Machine) {
    step.prove_result("backend: the API can write nowhere", cannot_write(machine));
    step.prove_result("backend: the API's /tmp is its own", own_tmp(machine));
    step.prove_result(
        "backend: the API sees no other process",
        sees_nobody(machine),
    );
    step.prove_result("backend: the API has no capability", no_capability(machine));
    step.prove_result(
        "backend: the API cannot reach the instance's metadata",
        no_metadata(machine),
    );
}

fn api(machine: &Machine) -> Result<String> {
    let pid = properties(machine, API_UNIT, &["MainPID"])?["MainPID"].clone();
    ensure!(pid != "0", "{API_UNIT} does not run");
    Ok(pid)
}

/// The numbers of the API's user and group, which are its own for this run alone.
fn user(machine: &Machine, pid: &str) -> Result<(String, String)> {
    let id = |kind: &str| {
        let format = format!("--format=%{kind}");
        ask(machine, &["stat", &format, &format!("/proc/{pid}")])
    };
    Ok((id("u")?, id("g")?))
}

/// A command in the API's view of the file systems, as the API's user.
fn inside(machine: &Machine, command: &[&str]) -> Result<String> {
    let pid = api(machine)?;
    let (user, group) = user(machine, &pid)?;
    let enter = [
        "nsenter",
        "--target",
        &pid,
        "--mount",
        "--",
        "setpriv",
        "--reuid",
        &user,
        "--regid",
        &group,
        "--clear-groups",
    ];
    ask(machine, &[&enter[..], command].concat())
}

/// A script in the API's view of the file systems, as root: whom they do not stop, they stop nobody.
fn as_root_inside(machine: &Machine, script: &str) -> Result<String> {
    let pid = api(machine)?;
    ask(
        machine,
        &[
            "nsenter", "--target", &pid, "--mount", "--", "sh", "-c", script,
        ],
    )
}

fn cannot_write(machine: &Machine) -> Result<String> {
    let script = format!(
        "for place in {PLACES}; do if touch $place/.probe 2>/dev/null; then rm -f $place/.probe; echo $place; fi; done"
    );
    // Where even the host's root cannot, the probe would prove nothing.
    let outside = ask(machine, &["sh", "-c", &script])?;
    let all = PLACES.split_whitespace().count();
    ensure!(
        outside.lines().count() > all / 2,
        "the probe itself writes nowhere: {outside}"
    );
    let written = as_root_inside(machine, &script)?;
    ensure!(
        written.is_empty(),
        "in its view of the files root writes to {}",
        written.replace('\n', ", ")
    );
    // Its `/run` is not read-only, but root's.
    let written = inside(
        machine,
        &[
            "sh",
            "-c",
            &script.replace(PLACES, &format!("{PLACES} /run")),
        ],
    )?;
    ensure!(
        written.is_empty(),
        "it writes to {}",
        written.replace('\n', ", ")
    );
    Ok(format!("{all} places tried as its user and as root"))
}

fn own_tmp(machine: &Machine) -> Result<String> {
    as_root_inside(machine, "touch /tmp/seen-inside")?;
    let outside = ask(machine, &["sh", "-c", "ls /tmp /var/tmp"])?;
    ensure!(
        !outside.lines().any(|name| name == "seen-inside"),
        "a file in it is in the host's too"
    );
    Ok("a file in it is not in the host's".to_owned())
}

fn sees_nobody(machine: &Machine) -> Result<String> {
    let listed = inside(machine, &["ls", "/proc"])?;
    let processes: Vec<&str> = listed
        .lines()
        .filter(|name| name.chars().all(|c| c.is_ascii_digit()))
        .collect();
    ensure!(
        !processes.contains(&"1"),
        "it sees the host's first process"
    );
    // The API itself and the program that looks.
    ensure!(
        processes.len() <= 2,
        "it sees the processes {}",
        processes.join(", ")
    );
    ensure!(
        !listed.lines().any(|name| name == "meminfo"),
        "it sees more of /proc than processes"
    );
    Ok(format!("{} of all processes: its own", processes.len()))
}

fn no_capability(machine: &Machine) -> Result<String> {
    let pid = api(machine)?;
    let status = ask(machine, &["cat", &format!("/proc/{pid}/status")])?;
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
            .with_context(|| format!("/proc/{pid}/status lacks {name}"))
    };
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let value = field(name)?;
        ensure!(
            value.bytes().all(|digit| digit == b'0'),
            "{name} is {value}"
        );
    }
    ensure!(field("NoNewPrivs")? == "1", "it may gain privileges");
    ensure!(
        field("Seccomp")? == "2",
        "no filter of system calls is in force"
    );
    Ok("all sets empty, none to be gained, system calls filtered".to_owned())
}

/// `IPAddressDeny` works by a program of the kernel on the unit's control group, which swallows packets. Where it cannot be
/// loaded systemd goes on without, so that only trying tells.
fn no_metadata(machine: &Machine) -> Result<String> {
    let connect = |address: &str, port: u16| {
        format!(
            "if timeout 2 bash -c 'exec 3<>/dev/tcp/{address}/{port}' 2>/dev/null; then echo connected; else echo not; fi"
        )
    };
    let metadata = connect(&METADATA.to_string(), 80);
    let outside = ask(machine, &["sh", "-c", &metadata])?;
    ensure!(outside == "connected", "the host itself does not get there");
    let group = properties(machine, API_UNIT, &["ControlGroup"])?["ControlGroup"].clone();
    ensure!(!group.is_empty(), "{API_UNIT} has no control group");
    // To itself it may: what stops it is the rule, and not that the probe runs there.
    let own = connect("127.0.0.1", API_PORT);
    let script = format!("echo $$ >/sys/fs/cgroup{group}/cgroup.procs && {own} && {metadata}");
    let inside = ask(
        machine,
        &[
            "nsenter", "--target", "1", "--cgroup", "--", "sh", "-c", &script,
        ],
    )?;
    ensure!(
        inside == "connected\nnot",
        "in its control group, to its own port and to {METADATA}: {}",
        inside.replace('\n', ", ")
    );
    Ok(format!(
        "{METADATA} answers the host, and nobody in the API's control group"
    ))
}
