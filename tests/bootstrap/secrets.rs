//! The login as it is published, and the places where no part of it may be.

use std::collections::BTreeSet;
use std::fs;

use drawbridge::appliance::{Role, parameter, path};

use super::world::{NAME, World, sh};

/// User and password as published.
pub fn login(world: &World) -> (String, String) {
    let text = world.parameter(&parameter::database_login(NAME));
    let login: serde_json::Value = serde_json::from_str(&text).unwrap();
    let part = |name: &str| login[name].as_str().unwrap().to_owned();
    (part("username"), part("password"))
}

pub fn password(world: &World) -> String {
    login(world).1
}

/// Everywhere a secret must not be, as (place, text).
pub fn everything_readable(world: &World) -> Vec<(String, String)> {
    let mut found = vec![
        ("the log".into(), fs::read_to_string(world.log()).unwrap()),
        (
            "the console".into(),
            fs::read_to_string(path::CONSOLE).unwrap(),
        ),
        (
            "the local report".into(),
            fs::read_to_string(path::REPORT).unwrap(),
        ),
        (
            "command lines".into(),
            world
                .seen
                .lock()
                .unwrap()
                .iter()
                .cloned()
                .collect::<Vec<_>>()
                .join("\n"),
        ),
    ];
    for role in Role::ALL {
        let name = parameter::bootstrap_report(NAME, role);
        found.push((name.clone(), world.parameter(&name)));
    }
    for file in
        sh("find /var/lib/drawbridge /etc/ssh -type f; ls /var/lib/postgresql/data/log").lines()
    {
        let bytes = fs::read(file).unwrap();
        found.push((file.into(), String::from_utf8_lossy(&bytes).into()));
    }
    found
}

/// Who logged lines with the secret, for the message of a test that failed.
pub fn loggers_of(world: &World, secret: &str) -> BTreeSet<String> {
    let log = fs::read_to_string(world.log()).unwrap();
    let lines = log.lines().filter(|line| line.contains(secret));
    lines
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .map(|line| format!("{} {}", line["level"], line["target"]))
        .collect()
}

pub fn places_with(world: &World, secret: &str) -> Vec<String> {
    let places = everything_readable(world).into_iter();
    places
        .filter(|(_, text)| text.contains(secret))
        .map(|(place, _)| place)
        .collect()
}
