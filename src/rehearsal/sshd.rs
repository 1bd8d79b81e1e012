//! sshd's configuration on a rehearsed instance: what nixos/sshd.nix makes of the same settings, for Debian's sshd.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value};

use super::machine::HERE;
use crate::appliance::{Role, TUNNEL_USER};
use crate::flows::{self, End, Flow};

const SETTINGS: &str = include_str!("../../nixos/settings/sshd.json");

/// `sshd_config` of a role. What NixOS adds for newer sshds alone (PerSourcePenalties) is not in it.
///
/// # Errors
/// If nixos/settings/sshd.json is not what both sides read.
pub fn config(role: Role, flows: &[Flow]) -> Result<String> {
    let mut text = String::new();
    for (keyword, value) in part("common")? {
        line(&mut text, &keyword, &value)?;
    }
    // PAM belongs to the machine, not to the rehearsed instance; so does the place of programs.
    let _ = write!(
        text,
        "PermitOpen {}\nUsePAM no\nPidFile none\nSetEnv PATH={HERE}/bin:/usr/local/bin:/usr/bin:/bin\n\
         Match User {TUNNEL_USER}\n",
        permit_open(role, flows)?
    );
    for (keyword, value) in part("tunnel")? {
        line(&mut text, &keyword, &value)?;
    }
    Ok(text)
}

/// The shell of `tunnel`: a script that does what sshd is told to run in its place, whatever it is given.
///
/// # Errors
/// If nixos/settings/sshd.json does not say what.
pub fn tunnel_shell() -> Result<String> {
    match part("tunnel")?.get("ForceCommand") {
        Some(Value::String(command)) => Ok(format!("#!/bin/sh\n{command}\n")),
        _ => bail!("nixos/settings/sshd.json lacks tunnel.ForceCommand"),
    }
}

fn part(name: &str) -> Result<Map<String, Value>> {
    let settings: Map<String, Value> =
        serde_json::from_str(SETTINGS).context("nixos/settings/sshd.json")?;
    match settings.get(name) {
        Some(Value::Object(keywords)) => Ok(keywords.clone()),
        _ => bail!("nixos/settings/sshd.json lacks {name}"),
    }
}

fn line(text: &mut String, keyword: &str, value: &Value) -> Result<()> {
    let separator = if ["Ciphers", "KexAlgorithms", "Macs"].contains(&keyword) {
        ","
    } else {
        " "
    };
    let value = match value {
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(list) => list
            .iter()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join(separator),
        Value::Null | Value::Object(_) => {
            bail!("nixos/settings/sshd.json: {keyword} has no plain value")
        }
    };
    let _ = writeln!(text, "{keyword} {value}");
    Ok(())
}

/// What a role's sshd forwards to. Without the keyword it would forward to anywhere.
fn permit_open(role: Role, flows: &[Flow]) -> Result<String> {
    let targets: Vec<String> = if role == Role::Bastion {
        let ports = flows::ports_from(flows, End::Bastion);
        ports.iter().map(|port| format!("*:{port}")).collect()
    } else {
        let ports = served(role, flows)?;
        let here = |port| format!("localhost:{port} 127.0.0.1:{port}");
        ports.into_iter().map(here).collect()
    };
    Ok(if targets.is_empty() {
        "none".to_owned()
    } else {
        targets.join(" ")
    })
}

/// The ports that a host serves beside sshd's own.
fn served(role: Role, flows: &[Flow]) -> Result<BTreeSet<u16>> {
    let own = part("common")?.get("Port").and_then(Value::as_u64);
    let own = own.context("nixos/settings/sshd.json lacks common.Port")?;
    let mut ports = flows::ports_to(flows, End::from(role));
    ports.retain(|port| u64::from(*port) != own);
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::tests::flow;

    #[test]
    fn each_host_forwards_to_its_flows_and_without_any_to_none() {
        let mut flows = vec![
            flow(End::Admins, End::Bastion, 2222),
            flow(End::Bastion, End::Database, 22),
        ];
        let permitted = |flows: &[Flow], role| permit_open(role, flows).unwrap();
        assert_eq!(permitted(&flows, Role::Bastion), "*:22");
        assert_eq!(permitted(&flows, Role::Database), "none");
        flows.push(flow(End::Backend, End::Database, 5432));
        flows.push(flow(End::Bastion, End::Backend, 9187));
        assert_eq!(permitted(&flows, Role::Bastion), "*:22 *:9187");
        assert_eq!(
            permitted(&flows, Role::Database),
            "localhost:5432 127.0.0.1:5432"
        );
        assert_eq!(
            permitted(&flows, Role::Backend),
            "localhost:9187 127.0.0.1:9187"
        );
        assert_eq!(permitted(&[], Role::Bastion), "none");
    }

    #[test]
    fn what_is_for_tunnel_alone_comes_last() {
        let config = config(Role::Backend, &[]).unwrap();
        let (before, after) = config.split_once("\nMatch User tunnel\n").unwrap();
        assert!(
            before.contains("\nAllowUsers admin tunnel\n") && before.contains("\nPermitOpen none"),
            "{before}"
        );
        assert!(!before.contains("ForceCommand") && after.contains("ForceCommand echo "));
    }
}
