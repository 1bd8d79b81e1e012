//! The bastion's own kernel rules, by the kernel: the text that NixOS loads there, in a network of the test's own.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::net::TcpSocket;

const RULES: &str = include_str!("../../nixos/settings/bastion.nft");
const SSHD: &str = include_str!("../../nixos/settings/sshd.json");
/// What the table lets one address do at once.
const AT_ONCE: usize = 120;
/// Somebody who is not root, as whoever signs in on the bastion.
const USER: &str = "65534";

/// Runs `test` on a thread whose network is empty but for the bastion's rules.
fn in_a_network_of_its_own(test: fn()) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: needs root for a network of its own");
        return;
    }
    let thread = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        run("ip", &["link", "set", "lo", "up"], "");
        run(
            "nft",
            &["-f", "-"],
            &format!("table inet bastion {{\n{RULES}\n}}"),
        );
        test();
    });
    thread.join().unwrap();
}

fn run(program: &str, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// How many packets met the rule with this comment.
fn counted(comment: &str) -> u64 {
    let table = run("nft", &["-j", "list", "table", "inet", "bastion"], "");
    let table: Value = serde_json::from_str(&table).unwrap();
    let rules = table["nftables"].as_array().unwrap();
    let rule = rules
        .iter()
        .find(|entry| entry["rule"]["comment"] == comment);
    let parts = rule.unwrap()["rule"]["expr"].as_array().unwrap();
    let counter = parts.iter().find(|part| part.get("counter").is_some());
    counter.unwrap()["counter"]["packets"].as_u64().unwrap()
}

/// A connection from `source` that is answered at once or, dropped, not within half a second.
fn knock(source: [u8; 4], port: u16) -> Option<TcpStream> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((source, 0))).unwrap();
        let connecting = socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let connected = tokio::time::timeout(Duration::from_millis(500), connecting).await;
        connected
            .ok()
            .map(|stream| stream.unwrap().into_std().unwrap())
    })
}

#[test]
fn the_rules_are_about_the_port_that_sshd_listens_on() {
    let settings: Value = serde_json::from_str(SSHD).unwrap();
    let port = &settings["common"]["Port"];
    assert!(
        RULES.contains(&format!("tcp dport {port} ct state new")),
        "{port}"
    );
}

#[test]
fn one_address_that_knocks_too_often_is_dropped_and_no_other() {
    in_a_network_of_its_own(|| {
        let _sshd = TcpListener::bind("0.0.0.0:22").unwrap();
        let other_port = TcpListener::bind("0.0.0.0:2222").unwrap();
        let (office, stranger) = ([127, 0, 0, 2], [127, 0, 0, 3]);
        let begun = Instant::now();
        let mut admitted: Vec<TcpStream> = Vec::new();
        let refused = loop {
            match knock(office, 22) {
                Some(stream) => admitted.push(stream),
                None => break begun.elapsed(),
            }
            assert!(
                admitted.len() < 4 * AT_ONCE,
                "nothing is dropped in {:?}",
                begun.elapsed()
            );
        };
        // One more for each second that it took.
        let most = AT_ONCE + usize::try_from(refused.as_secs()).unwrap() + 1;
        assert!(
            (AT_ONCE..=most).contains(&admitted.len()),
            "{} in {refused:?}",
            admitted.len()
        );
        assert!(counted("too often") >= 1);
        assert!(
            knock(stranger, 22).is_some(),
            "another address is dropped too"
        );
        let port = other_port.local_addr().unwrap().port();
        assert!(knock(office, port).is_some(), "another port is dropped too");
        // Whoever waits is let in again.
        let end = Instant::now() + Duration::from_secs(10);
        while knock(office, 22).is_none() {
            assert!(Instant::now() < end, "it stays out");
        }
    });
}

#[test]
fn every_connection_of_a_login_is_written_down_and_what_is_too_fast_for_that_is_refused() {
    in_a_network_of_its_own(|| {
        let host = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = host.local_addr().unwrap().port();
        drop(knock([127, 0, 0, 2], port).unwrap());
        assert_eq!(counted("forwarded"), 0, "root's are the host's own");
        let connect = format!(
            "made=0; for i in $(seq {}); do (exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null && made=$((made + 1)); done; echo $made",
            3 * AT_ONCE
        );
        let as_user = [
            "--reuid",
            USER,
            "--regid",
            USER,
            "--clear-groups",
            "bash",
            "-c",
        ];
        let one = format!("exec 3<>/dev/tcp/127.0.0.1/{port}");
        run("setpriv", &[&as_user[..], &[&one]].concat(), "");
        assert_eq!(counted("forwarded"), 1);
        let begun = Instant::now();
        let made = run("setpriv", &[&as_user[..], &[&connect]].concat(), "");
        let made: u64 = made.trim().parse().unwrap();
        assert_eq!(
            counted("forwarded"),
            1 + made,
            "each that was made, and no other"
        );
        assert_eq!(counted("too fast to log"), 3 * AT_ONCE as u64 - made);
        let most = 121 + 10 * (begun.elapsed().as_secs() + 1);
        assert!(
            (100..=most).contains(&made),
            "{made} in {:?}",
            begun.elapsed()
        );
    });
}
