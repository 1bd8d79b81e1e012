//! `drawbridge cost` as a program, and the README's cost tables against what it computes.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::repository;

/// Runs it in a folder without a terraform directory.
fn cost(arguments: &[&str]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_drawbridge"))
        .arg("cost")
        .args(arguments)
        .current_dir(folder.path())
        .env_remove("DRAWBRIDGE_TERRAFORM_DIR")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn bill(arguments: &[&str]) -> Value {
    let (status, stdout, stderr) = cost(&[arguments, &["--json"]].concat());
    assert_eq!(status, 0, "{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

#[test]
fn without_a_state_the_shipped_sizes_are_priced_and_said_to_be() {
    let (status, stdout, stderr) = cost(&[]);
    assert_eq!(status, 0, "{stderr}");
    let first = stdout.lines().next().unwrap();
    assert!(
        first.starts_with("ap-south-1: as terraform/variables.tf ships"),
        "{first}"
    );
    for part in [
        "56.03",
        "100.56",
        "An hour of window: 0.061",
        "prices of 2026-11",
    ] {
        assert!(stdout.contains(part), "{part} is not in:\n{stdout}");
    }
}

#[test]
fn options_change_what_is_priced() {
    let graviton = [
        "--bastion",
        "t4g.nano",
        "--backend",
        "t4g.micro",
        "--database",
        "t4g.small",
    ];
    assert_eq!(bill(&graviton)["closed_month_usd_micros"], 45_805_800);
    let larger = bill(&["--database-volume-gib", "110"]);
    assert_eq!(larger["rows"][3]["count"], 134);
}

#[test]
fn a_price_that_is_not_known_is_an_error_that_names_the_table() {
    for (arguments, wanted) in [
        (["--region", "eu-north-1"], "eu-north-1"),
        (["--backend", "m7g.large"], "m7g.large"),
    ] {
        let (status, stdout, stderr) = cost(&arguments);
        assert_eq!((status, stdout.as_str()), (1, ""), "{stderr}");
        assert!(
            stderr.contains(wanted) && stderr.contains("src/cost/prices.json"),
            "{stderr}"
        );
    }
}

/// The amounts in a piece of Markdown: `0.0112`, `56.03`. Whole numbers are counts and sizes.
fn amounts(text: &str) -> Vec<String> {
    let words = text.split(|character: char| !character.is_ascii_digit() && character != '.');
    words
        .map(|word| word.trim_matches('.'))
        .filter(|word| word.contains('.'))
        .map(str::to_owned)
        .collect()
}

fn usd(micros: &Value) -> drawbridge::cost::MicroUsd {
    drawbridge::cost::MicroUsd(micros.as_u64().unwrap())
}

#[test]
fn the_readmes_tables_are_what_the_program_computes() {
    let bill = bill(&["--region", "ap-south-1"]);
    let sum = |rows: &Value, field: &str| -> drawbridge::cost::MicroUsd {
        rows.as_array()
            .unwrap()
            .iter()
            .map(|row| usd(&row[field]))
            .sum()
    };
    let closed = usd(&bill["closed_month_usd_micros"]).cents();
    let open = usd(&bill["open_month_usd_micros"]).cents();
    let window = sum(&bill["window"], "month_usd_micros").cents();
    let mut wanted: Vec<Vec<String>> = bill["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            vec![
                usd(&row["unit_usd_micros"]).exact(),
                usd(&row["month_usd_micros"]).cents(),
            ]
        })
        .collect();
    let units = bill["window"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| usd(&row["unit_usd_micros"]).exact());
    wanted.push(vec![closed.clone()]);
    wanted.push(units.chain([window.clone()]).collect());
    wanted.push(vec![open.clone()]);

    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let table = readme
        .split_once("<!-- measured: cost -->")
        .expect("the marker")
        .1;
    let table = table
        .split_once("<!-- /measured -->")
        .expect("the end marker")
        .0;
    let rows: Vec<_> = table.trim().lines().skip(2).map(amounts).collect();
    assert_eq!(rows, wanted, "README.md, ## Cost");

    let first_screen = readme.split_once("\n## ").unwrap().0;
    let rows = first_screen.lines().filter(|line| line.starts_with('|'));
    let shown: Vec<_> = rows.flat_map(amounts).collect();
    let gigabyte = usd(&bill["window_gigabyte_usd_micros"]).exact();
    assert_eq!(
        shown,
        [closed, open, window, gigabyte],
        "README.md, first screen"
    );
}
