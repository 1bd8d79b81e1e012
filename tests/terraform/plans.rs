//! `terraform test`: what each variable makes of the plan, and what is refused, with a pretended provider.

use std::fs;

use serde_json::{Value, json};

use super::ADMIN_KEY;
use crate::support::{Emulator, Stack, repository};

/// The files in `terraform/tests/` are for people too, who run them with nothing but terraform; here every run in them
/// has to have passed, and none may have asked AWS.
#[test]
fn terraforms_own_tests_pass_without_an_account() {
    let emulator = Emulator::start();
    let stack = Stack::new(&emulator, ADMIN_KEY);
    let github = Stack::github(&emulator, &json!({}));
    // A value of a variables file would count where a run gives none.
    for name in ["images", "test", "nat"] {
        fs::remove_file(stack.path(&format!("{name}.auto.tfvars.json"))).expect("a variables file");
    }
    let asked = emulator.log();
    own_tests_pass(&stack, "terraform/tests");
    own_tests_pass(&github, "terraform/github/tests");
    assert_eq!(emulator.log(), asked, "a run asked the emulator");
}

fn own_tests_pass(stack: &Stack<'_>, folder: &str) {
    let folder = repository().join(folder);
    fs::create_dir(stack.path("tests")).expect("a folder for the tests");
    let mut runs = 0;
    for entry in fs::read_dir(folder).expect("a folder of tests") {
        let path = entry.expect("a test file").path();
        let text = fs::read_to_string(&path).expect("a readable test file");
        runs += text
            .lines()
            .filter(|line| line.starts_with("run \""))
            .count();
        let name = path.file_name().expect("a file name").to_string_lossy();
        stack.write(&format!("tests/{name}"), &text);
    }

    let said = stack.terraform(&["test", "-json"]);
    let summary = said
        .text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|line| line["type"] == "test_summary")
        .unwrap_or_else(|| panic!("terraform test ended without a summary:\n{}", said.text));
    let summary = &summary["test_summary"];
    let failed: Vec<_> = said
        .text
        .lines()
        .filter(|line| line.contains(r#""@level":"error""#))
        .collect();
    assert!(
        runs > 0
            && summary["passed"] == runs
            && summary["failed"] == 0
            && summary["errored"] == 0
            && summary["skipped"] == 0,
        "of {runs} runs: {summary}\n{}",
        failed.join("\n")
    );
}

/// A variable is refused at least once for each of its rules, in the `tests/refused.tftest.hcl` beside it.
#[test]
fn every_variable_with_a_rule_is_tried() {
    for folder in ["terraform", "terraform/github"] {
        assert_eq!(untried(folder), Vec::<String>::new(), "{folder}");
    }
}

fn untried(folder: &str) -> Vec<String> {
    let read = |name: &str| {
        fs::read_to_string(repository().join(folder).join(name)).expect("a readable file")
    };
    let (variables, refused) = (read("variables.tf"), read("tests/refused.tftest.hcl"));
    // What each run expects to fail: terraform fails a run in which one of these does not.
    let expected: Vec<&str> = refused
        .split("expect_failures = [")
        .skip(1)
        .filter_map(|rest| rest.split(']').next())
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .collect();
    let with_rules = variables.split("\nvariable \"").skip(1).map(|variable| {
        let name = variable.split('"').next().unwrap_or_default();
        (name, variable.matches("\n  validation {").count())
    });
    with_rules
        .filter_map(|(name, rules)| {
            let address = format!("var.{name}");
            let tried = expected.iter().filter(|one| **one == address).count();
            (tried < rules).then(|| format!("{name}: {tried} refusals for {rules} rules"))
        })
        .collect()
}
