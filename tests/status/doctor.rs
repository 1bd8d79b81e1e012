//! `drawbridge doctor` as people run it.

use std::fs;
use std::process::Command;

use base64::Engine as _;
use serde_json::{Value, json};

use super::stage::{Stage, ended};

fn names(seen: &Value, list: &str) -> Vec<String> {
    let field = match list {
        "unknown" => "part",
        "fine" => "check",
        _ => "finding",
    };
    let all = seen[list].as_array().unwrap().iter();
    all.map(|one| one[field].as_str().unwrap().to_owned())
        .collect()
}

/// A state with the rule and the user data that say who may come in.
fn state(key: &str) -> Value {
    let data = json!({"name": "drawbridge", "role": "bastion", "region": "ap-south-1", "admin_keys": [key], "tunnel_keys": []});
    let data = base64::engine::general_purpose::STANDARD.encode(data.to_string());
    let resource = |kind: &str, name: &str, key: Value, attributes: Value| json!({"mode": "managed", "type": kind, "name": name, "instances": [{"index_key": key, "attributes": attributes}]});
    let rule = resource(
        "aws_vpc_security_group_ingress_rule",
        "from_outside",
        json!("admins-to-bastion-22 203.0.113.0/24"),
        json!({"cidr_ipv4": "203.0.113.0/24", "from_port": 22}),
    );
    let bastion = resource(
        "aws_instance",
        "bastion",
        Value::Null,
        json!({"user_data_base64": data}),
    );
    json!({"version": 4, "resources": [rule, bastion]})
}

#[test]
fn it_finds_what_is_wrong_here_and_there_and_names_what_mends_it() {
    let stage = Stage::fine();
    let user_key = fs::read_to_string(stage.hosts.user_key().with_extension("pub")).unwrap();
    stage.put("state.json", &state(user_key.trim()));
    let versions = stage.operator.path().join("terraform/versions.tf");
    fs::write(
        &versions,
        "terraform {\n  required_version = \">= 1.11\"\n}\n",
    )
    .unwrap();
    let ended_fine = stage.run(&["doctor", "--json"]);
    let fine = ended_fine.json();
    assert_eq!(names(&fine, "findings"), Vec::<String>::new(), "{fine:#}");
    // The stand-ins for the hosts do not tell the time.
    let left: Vec<_> = names(&fine, "unknown");
    assert!(left.iter().all(|part| part.ends_with("clock")), "{fine:#}");
    assert_eq!(ended_fine.status, 5, "{ended_fine:?}");
    for check in [
        "terraform",
        "aws command",
        "credentials",
        "ssh key",
        "own address",
        "clock",
        "session files",
    ] {
        assert!(
            names(&fine, "fine").contains(&check.to_owned()),
            "{check}: {fine:#}"
        );
    }

    // Everything at once: each has its finding.
    stage.put("version.json", &json!({"terraform_version": "1.9.8"}));
    let files = stage.operator.path().join(".drawbridge");
    fs::create_dir(&files).unwrap();
    fs::write(
        files.join("known_hosts"),
        "drawbridge-bastion ssh-ed25519 AAAA\n",
    )
    .unwrap();
    fs::write(files.join("ssh_config"), "").unwrap();
    let lock = json!({"ID": "0d4b-1", "Operation": "OperationTypeApply", "Who": "alice@laptop\u{9b}2J", "Created": "2026-11-01T00:00:00Z"});
    stage.put("terraform/.terraform.tfstate.lock.info", &lock);
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.arg("-C").arg(stage.operator.path()).args(arguments);
        assert!(ended(&mut command).status == 0, "{arguments:?}");
    };
    git(&["init", "-q"]);
    let mut command = stage.drawbridge(&["doctor", "--json"]);
    let wrong = ended(command.env("AWS_REGION", "us-east-1"));
    assert_eq!(wrong.status, 6, "{wrong:?}");
    assert!(!wrong.stdout.contains('\u{9b}'), "{wrong:?}");
    let seen = wrong.json();
    assert_eq!(
        names(&seen, "findings"),
        [
            "terraform-version",
            "other-region",
            "state-locked",
            "position-not-committed"
        ],
        "{seen:#}"
    );
    let command = seen["findings"][2]["command"].as_str().unwrap();
    assert_eq!(command, "terraform -chdir=terraform force-unlock 0d4b-1");

    // For people: each finding with its command below it.
    let text = stage.run(&["doctor"]);
    assert!(
        text.stdout
            .contains("\n          terraform -chdir=terraform force-unlock 0d4b-1\n"),
        "{text:?}"
    );
    assert!(!text.stdout.contains('\u{9b}'), "{text:?}");

    // A key that nobody listed.
    stage.hosts.other_key();
    let other = stage.hosts.folder.path().join("other");
    let stranger = ended(&mut stage.signing_in_with(&other, &["doctor", "--json"])).json();
    assert!(
        names(&stranger, "findings").contains(&"key-not-authorized".to_owned()),
        "{stranger:#}"
    );
}

#[test]
fn without_terraform_the_rest_of_the_machine_is_still_looked_at() {
    let stage = Stage::fine();
    stage.operator.program(
        "terraform",
        "#!/bin/sh\n[ \"$1\" != version ] || exec cat \"${0%/bin/terraform}/version.json\"\n\
         echo 'Error: Output \"deployment\" not found' >&2; exit 1\n",
    );
    let nothing = stage.run(&["doctor", "--json"]);
    let seen = nothing.json();
    assert_eq!(nothing.status, 6, "{seen:#}");
    assert_eq!(names(&seen, "findings"), ["not-applied"], "{seen:#}");
    assert_eq!(seen["deployment"], Value::Null);
    assert!(
        names(&seen, "fine").contains(&"terraform".to_owned()),
        "{seen:#}"
    );
    assert!(
        names(&seen, "unknown").contains(&"deployment".to_owned()),
        "{seen:#}"
    );
}
