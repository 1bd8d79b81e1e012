//! How long closing the window takes beside a bare `terraform apply` of the same change, and what `nat status` asks AWS.
//!
//! ```sh
//! cargo bench --bench nat_window               # or with --profile dev, which need not build everything anew
//! cargo bench --bench nat_window -- ROUNDS     # 3 if not given; each takes about two minutes
//! ```
//!
//! Real terraform against the AWS emulator, both ways in turn within one run, so that the ratio of the medians means
//! something on any machine. Ends with 1 if it is above the target. The hosts do not exist: what `nat close` proves
//! through them fails, and the proofs, which come after the gateway is gone, are reported apart.
#![allow(missing_docs, clippy::expect_used, clippy::unwrap_used)]

// The tests need more of it.
#[allow(dead_code, unused_imports)]
#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use serde_json::Value;
use support::{Emulator, Outcome, Proxy, Stack, always_ready};

/// From "bootstrap complete" to "NAT gone", at most this many times a bare apply.
const TARGET: f64 = 1.3;

/// Nobody has its other half.
const ADMIN_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJx0hGm7dZ1s8dVYhVb1uWq0yq3P2m9c1r5mJ0m7vX3d alice@laptop";

fn main() -> ExitCode {
    // Cargo adds --bench.
    let rounds = std::env::args()
        .skip(1)
        .find(|argument| argument != "--bench");
    let rounds: usize = rounds.map_or(3, |rounds| rounds.parse().expect("ROUNDS is a number"));
    assert!(rounds > 0, "ROUNDS is at least 1");

    let emulator = Emulator::start();
    let proxy = Proxy::start(&emulator);
    let watched = emulator.through(&proxy);
    let stack = Stack::new(&watched, ADMIN_KEY);
    stack.apply();
    stack.complete(&emulator);
    let url = always_ready();

    let mut ours = Vec::new();
    let mut bare = Vec::new();
    let mut status = Vec::new();
    let mut calls = BTreeMap::new();
    for round in 1..=rounds {
        proxy.forget();
        let (seconds, said) = timed(|| stack.drawbridge(&["nat", "status", "--json"]));
        said.expect_success("drawbridge nat status");
        status.push(seconds);
        calls = proxy.calls();

        let (seconds, said) =
            timed(|| stack.drawbridge(&["nat", "close", "--json", "--url", &url]));
        let report = closed(&said);
        let phases = phases(&report);
        let proving = phases
            .iter()
            .find(|(name, _)| name == "prove")
            .expect("proofs")
            .1;
        ours.push(seconds - proving);
        println!(
            "round {round}: drawbridge nat close {:.1} s until the gateway is gone ({})",
            seconds - proving,
            in_words(&phases)
        );
        open(&stack);

        let (seconds, said) = timed(|| {
            stack.write("nat.auto.tfvars.json", r#"{"nat_gateway": false}"#);
            stack.terraform(&["apply", "-auto-approve"])
        });
        said.expect_success("terraform apply");
        bare.push(seconds);
        println!("round {round}: terraform apply {seconds:.1} s");
        if round < rounds {
            open(&stack);
        }
    }

    let (ours, bare) = (median(ours), median(bare));
    let ratio = ours / bare;
    let is_met = ratio <= TARGET;
    let verdict = if is_met { "met" } else { "missed" };
    println!(
        "\nmedians of {rounds}: drawbridge nat close {ours:.1} s, terraform apply {bare:.1} s"
    );
    println!("ratio {ratio:.2}, target at most {TARGET}: {verdict}");
    let total: usize = calls.values().sum();
    println!(
        "drawbridge nat status: {:.2} s (median), {total} AWS API calls",
        median(status)
    );
    for (action, count) in calls {
        println!("  {count} {action}");
    }
    ExitCode::from(u8::from(!is_met))
}

fn timed(work: impl FnOnce() -> Outcome) -> (f64, Outcome) {
    let start = Instant::now();
    let said = work();
    (start.elapsed().as_secs_f64(), said)
}

/// The report of a close that is proven but for what needs the hosts.
fn closed(said: &Outcome) -> Value {
    assert_eq!(said.code, Some(5), "{}", said.text);
    let report: Value = serde_json::from_str(&said.stdout).expect("a report");
    let gone = report["proofs"].as_array().into_iter().flatten();
    let mut gone = gone.filter(|proof| proof["claim"] == "nat-gateway-gone");
    assert!(gone.any(|proof| proof["holds"] == true), "{report}");
    report
}

fn phases(report: &Value) -> Vec<(String, f64)> {
    let phases = report["phases"].as_array().expect("phases");
    let name = |phase: &Value| phase["name"].as_str().expect("a name").to_owned();
    let seconds = |phase: &Value| phase["seconds"].as_f64().expect("seconds");
    phases
        .iter()
        .map(|phase| (name(phase), seconds(phase)))
        .collect()
}

fn in_words(phases: &[(String, f64)]) -> String {
    let phases: Vec<_> = phases
        .iter()
        .map(|(name, seconds)| format!("{name} {seconds:.1}"))
        .collect();
    phases.join(", ")
}

fn open(stack: &Stack) {
    stack.write("nat.auto.tfvars.json", r#"{"nat_gateway": true}"#);
    stack.apply();
}

/// Of an even number the lower one in the middle.
fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[(seconds.len() - 1) / 2]
}
