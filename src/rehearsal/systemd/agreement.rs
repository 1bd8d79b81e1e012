//! What instances are given without a systemd, from nixos/settings/, is what the NixOS modules make of the same files: so
//! that neither way of rehearsing drifts from the images.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::appliance::Role;
use crate::flows;
use crate::rehearsal::{hosts, sshd};

/// What sshd is told in a rehearsal only: PAM and the place of programs are the machine's.
const REHEARSED: [&str; 3] = ["pidfile", "setenv", "usepam"];
/// What NixOS says of itself, in words that change nothing, and where newer sshds alone are told more.
const NIXOS: [&str; 4] = [
    "addressfamily",
    "authorizedprincipalsfile",
    "include",
    "usepam",
];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn evaluated(name: &str) -> String {
    let path = repository().join("nixos/evaluated").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Lines of an sshd_config by their block, without the keywords of `others`.
fn keywords(config: &str, others: &[&str]) -> BTreeSet<(String, String, String)> {
    let mut block = String::new();
    let mut found = BTreeSet::new();
    for line in config
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        let (keyword, value) = line.split_once(' ').unwrap();
        let keyword = keyword.to_lowercase();
        if keyword == "match" {
            block = value.to_owned();
        } else if !others.contains(&keyword.as_str()) {
            found.insert((block.clone(), keyword, value.to_owned()));
        }
    }
    found
}

/// Settings of a postgresql.conf, booleans and numbers in one way of writing.
fn settings(config: &str) -> BTreeSet<(String, String)> {
    config
        .lines()
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, value)| {
            let value = match value.trim_matches('\'') {
                "true" | "yes" => "on",
                "false" | "no" => "off",
                other => other,
            };
            // Nix writes 1.1 as 1.100000.
            let number = value.parse::<f64>().map(|number| number.to_string());
            (name.to_owned(), number.unwrap_or_else(|_| value.to_owned()))
        })
        .collect()
}

#[test]
fn sshd_is_told_the_same_in_the_images() {
    let flows = flows::read(&repository().join("terraform/flows.json")).unwrap();
    for role in Role::ALL {
        let ours = keywords(&sshd::config(role, &flows).unwrap(), &REHEARSED);
        let theirs = keywords(
            &evaluated(&format!("{role}/files/etc/ssh/sshd_config")),
            &NIXOS,
        );
        assert!(ours.len() > 20);
        assert_eq!(ours, theirs, "{role}: run scripts/evaluate");
    }
}

#[test]
fn postgres_is_told_the_same_in_the_images() {
    let ours = settings(&hosts::postgres_config().unwrap());
    let theirs = settings(&evaluated(
        "database/files/nix/store/postgresql.conf/postgresql.conf",
    ));
    assert!(ours.len() > 20);
    assert_eq!(ours, theirs, "run scripts/evaluate");
}
