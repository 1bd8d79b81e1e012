//! Host keys that changed: since the files for OpenSSH were written, and under our feet.

use std::fs;
use std::process::Output;

use drawbridge::appliance::Role;
use serde_json::Value;

use super::sshd::Hosts;
use crate::support::Operator;

struct Stage {
    hosts: Hosts,
    operator: Operator,
}

impl Stage {
    /// With the files written while another backend was there: `i-old`, with a key that is nobody's now.
    fn after_a_change(instance_now: &str) -> Self {
        let hosts = Hosts::start();
        let operator = Operator::new(&hosts.access_to_all());
        let stage = Self { hosts, operator };
        let now = fs::read_to_string(stage.operator.path().join("deployment.json")).unwrap();
        let mut deployment: Value = serde_json::from_str(&now).unwrap();
        deployment["backend"]["instance_id"] = "i-old".into();
        stage.operator.deployment(&deployment);
        stage.operator.report(Role::Backend, "i-old", "complete");
        let key = stage
            .hosts
            .access()
            .pins
            .get(Role::Backend)
            .unwrap()
            .to_openssh();
        stage
            .operator
            .host_key(Role::Backend, &stage.hosts.other_key());
        let output = stage.run(&["ssh-config"]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        deployment["backend"]["instance_id"] = instance_now.into();
        stage.operator.deployment(&deployment);
        stage
            .operator
            .report(Role::Backend, instance_now, "complete");
        stage.operator.host_key(Role::Backend, &key.unwrap());
        stage
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.operator.drawbridge(&self.hosts.user_key(), arguments);
        command.output().unwrap()
    }

    /// What OpenSSH says to the files as they are.
    fn openssh(&self) -> Output {
        let config = self.operator.path().join(".drawbridge/ssh_config");
        super::openssh::ssh(&config, "backend")
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const TRUE: [&str; 4] = ["exec", "backend", "--", "true"];

#[test]
fn a_replaced_host_is_taken_and_openssh_s_files_follow() {
    let stage = Stage::after_a_change("i-new");
    assert!(!stage.openssh().status.success(), "it has the old key");
    let output = stage.run(&TRUE);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    for part in [
        "backend's host key changed: i-old, pinned on 20",
        "was replaced by i-new",
        "renewed ",
    ] {
        assert!(said(&output).contains(part), "{}", said(&output));
    }
    let output = stage.openssh();
    assert_eq!(output.stdout, b"there\n", "{}", said(&output));
    // Once is enough; and what it was written with stays, whatever the later command is given.
    let output = stage.run(&["exec", "--identity", "/dev/null", "backend", "--", "true"]);
    assert_eq!(output.status.code(), Some(255));
    assert!(!said(&output).contains("renewed"), "{}", said(&output));
    assert!(stage.openssh().status.success());
    // An address that changed is followed too.
    let file = stage.operator.path().join("deployment.json");
    let moved = fs::read_to_string(&file)
        .unwrap()
        .replacen("127.0.0.1", "127.0.0.2", 9);
    fs::write(&file, moved).unwrap();
    assert!(said(&stage.run(&TRUE)).contains("ssh_config"));
    let config = stage.operator.path().join(".drawbridge/ssh_config");
    assert!(
        fs::read_to_string(config)
            .unwrap()
            .contains("HostName 127.0.0.2")
    );
}

#[test]
fn another_key_of_the_same_instance_stops_until_somebody_accepts_it() {
    let stage = Stage::after_a_change("i-old");
    for arguments in [&TRUE[..], &["ssh-config"]] {
        let output = stage.run(arguments);
        assert!(!output.status.success());
        for part in [
            "same instance",
            "i-old",
            "drawbridge ssh-config --accept backend",
        ] {
            assert!(said(&output).contains(part), "{}", said(&output));
        }
    }
    assert!(!stage.openssh().status.success(), "the files are as before");
    let output = stage.run(&["ssh-config", "--accept", "backend"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(stage.run(&TRUE).status.success());
    assert!(stage.openssh().status.success());
}

#[test]
fn a_key_that_differs_on_the_wire_is_told_with_the_instances() {
    let hosts = Hosts::start();
    let operator = Operator::new(&hosts.access_to_all());
    let stage = Stage { hosts, operator };
    stage
        .operator
        .host_key(Role::Backend, &stage.hosts.other_key());
    let told = |part: &str| {
        let output = stage.run(&TRUE);
        assert_eq!(output.status.code(), Some(255));
        for part in [part, "is not the pinned one", "SHA256:"] {
            assert!(said(&output).contains(part), "{part}: {}", said(&output));
        }
    };
    told("i-backend (ami-1) published the pinned one and is what Terraform knows as backend");
    stage.operator.report(Role::Backend, "i-old", "complete");
    told("i-old (ami-1) published the pinned one, and Terraform has replaced it by i-backend");
    // The new one has begun and has not come to its key.
    stage
        .operator
        .report(Role::Backend, "i-backend", "metadata");
    told("no report says which instance published");
    assert!(
        !stage.operator.path().join(".drawbridge").exists(),
        "nobody asked for the files"
    );
}
