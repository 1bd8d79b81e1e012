//! What follows from what was seen of the operator's machine: each check is fine, finds something with the command that
//! mends it, or could not be made. The deployment itself is judged by [`crate::status::judge`].

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use time::OffsetDateTime;

use super::machine::Machine;
use super::version;
use crate::appliance::status::Known;
use crate::appliance::{Role, SshPublicKey};
use crate::bastion::host_keys::Pins;
use crate::nat::finding::Finding;
use crate::nat::position::Position;
use crate::status::inside::{SessionFiles, WayIn};

/// Seconds. AWS refuses signatures that are five minutes off.
const CLOCK_OFF: f64 = 60.0;
/// An apply takes minutes; whoever holds the lock for longer was killed.
const LOCK_OLD: time::Duration = time::Duration::HOUR;

/// How a check came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Fine; what was seen.
    Fine(String),
    /// Something is wrong.
    Found(Finding),
    /// No fault, but worth knowing.
    Note(Finding),
    /// The check could not be made.
    Unknown(String),
}

/// A check by its name.
pub type Check = (&'static str, Outcome);

/// What the deployment says about who may come in and how.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The deployment's account, region, and whether the credentials are that account's.
    pub account: Known<()>,
    /// Its region.
    pub region: Option<String>,
    /// Who may sign in as `admin`.
    pub admin_keys: Known<Vec<SshPublicKey>>,
    /// From where the bastion is reached.
    pub admin_cidrs: Known<Vec<Ipv4Net>>,
    /// The host keys in SSM.
    pub pins: Known<Pins>,
    /// The files for plain OpenSSH.
    pub session_files: Known<SessionFiles>,
    /// How far the way to the bastion went.
    pub way: WayIn,
    /// The position file.
    pub position: Option<Position>,
}

fn finding(finding: &'static str, means: impl Into<String>, command: impl Into<String>) -> Finding {
    Finding {
        finding,
        means: means.into(),
        command: command.into(),
    }
}

fn found(name: &'static str, means: impl Into<String>, command: impl Into<String>) -> Outcome {
    Outcome::Found(finding(name, means, command))
}

/// Every check of the machine, in the order in which people would go through them.
#[must_use]
pub fn checks(machine: &Machine, rules: &Rules, now: OffsetDateTime) -> Vec<Check> {
    vec![
        ("terraform", terraform(machine)),
        ("aws command", aws(machine)),
        ("credentials", credentials(rules)),
        ("region", region(machine, rules)),
        ("clock", clock(machine)),
        ("ssh key", key(machine, rules)),
        ("own address", address(machine, rules)),
        ("host keys", pins(rules)),
        ("session files", session_files(rules)),
        ("state lock", lock(machine, now)),
        ("position file", position(machine, rules)),
        ("building", building(machine)),
    ]
}

fn terraform(machine: &Machine) -> Outcome {
    let found_version = match &machine.terraform {
        Known::Value(version) => version,
        Known::Unknown(reason) => return Outcome::Unknown(reason.clone()),
    };
    let required = match &machine.required {
        Known::Value(Some(required)) => required,
        Known::Value(None) => return Outcome::Fine(format!("terraform {found_version}")),
        Known::Unknown(reason) => return Outcome::Unknown(reason.clone()),
    };
    match version::allows(required, found_version) {
        Ok(true) => Outcome::Fine(format!("terraform {found_version} ({required})")),
        Ok(false) => found(
            "terraform-version",
            format!("terraform is {found_version}, and versions.tf wants {required}"),
            "nix develop",
        ),
        Err(reason) => Outcome::Unknown(reason),
    }
}

fn aws(machine: &Machine) -> Outcome {
    match &machine.aws {
        Some(path) => Outcome::Fine(path.display().to_string()),
        None => found(
            "no-aws-command",
            "the `aws` command is not on the PATH: window, images and audit are asked for through it",
            "nix develop",
        ),
    }
}

fn credentials(rules: &Rules) -> Outcome {
    match &rules.account {
        Known::Value(()) => Outcome::Fine("they are the deployment's account's".to_owned()),
        Known::Unknown(reason) => {
            let (name, command) = if reason.contains("belongs to AWS account") {
                ("other-account", "export AWS_PROFILE=…")
            } else if reason.contains("have expired") {
                ("credentials-expired", "aws sso login")
            } else if reason.contains("no AWS credentials") {
                ("no-credentials", "aws configure sso")
            } else if reason.contains("does not accept the credentials") {
                ("credentials-rejected", "aws sts get-caller-identity")
            } else {
                return Outcome::Unknown(reason.clone());
            };
            found(name, reason, command)
        }
    }
}

fn region(machine: &Machine, rules: &Rules) -> Outcome {
    let Some(wanted) = &rules.region else {
        return Outcome::Unknown("no deployment tells which region is right".to_owned());
    };
    let other = machine.regions.iter().find(|(_, given)| given != wanted);
    match other {
        Some((variable, given)) => found(
            "other-region",
            format!(
                "{variable} is {given}, and the deployment is in {wanted}: what is published or asked with plain `aws` goes elsewhere"
            ),
            format!("export {variable}={wanted}"),
        ),
        None => Outcome::Fine(wanted.clone()),
    }
}

fn clock(machine: &Machine) -> Outcome {
    match &machine.clock_ahead {
        Known::Unknown(reason) => Outcome::Unknown(reason.clone()),
        Known::Value(ahead) if ahead.abs() > CLOCK_OFF => found(
            "clock-off-here",
            format!(
                "this machine's clock is {:.0} s {} AWS's: beyond five minutes AWS refuses everything",
                ahead.abs(),
                if *ahead > 0.0 { "ahead of" } else { "behind" }
            ),
            if cfg!(target_os = "macos") {
                "sudo sntp -sS time.apple.com"
            } else {
                "sudo timedatectl set-ntp true"
            },
        ),
        Known::Value(_) => Outcome::Fine("as AWS's".to_owned()),
    }
}

fn same(one: &SshPublicKey, other: &SshPublicKey) -> bool {
    one.without_comment() == other.without_comment()
}

fn key(machine: &Machine, rules: &Rules) -> Outcome {
    const ADD: &str = "admin_ssh_keys = { … you = \"CONTENT OF YOUR .pub FILE\" } in terraform/terraform.tfvars, then terraform -chdir=terraform apply";
    let reason = match &rules.way {
        WayIn::SignedIn => return Outcome::Fine("the bastion accepts it".to_owned()),
        WayIn::NotAuthorized(said) => return found("key-not-authorized", said, ADD),
        WayIn::NoIdentity(said) => {
            let command = match said.contains("ssh-add ") {
                true => "ssh-add",
                false => "ssh-keygen -t ed25519",
            };
            return found("no-ssh-key", said, command);
        }
        WayIn::NotReached(said) | WayIn::Unknown(said) => said,
    };
    let unknown = |what: &str| Outcome::Unknown(format!("{what}, and not tried: {reason}"));
    match &rules.admin_keys {
        Known::Unknown(why) => unknown(why),
        Known::Value(_) if machine.keys.is_empty() => {
            unknown("neither the agent nor a .pub file shows a key")
        }
        Known::Value(admins) => {
            let listed = |key: &&SshPublicKey| admins.iter().any(|admin| same(admin, key));
            match machine.keys.iter().find(listed) {
                Some(key) => Outcome::Fine(format!(
                    "{} is in admin_ssh_keys; the bastion was not reached with it",
                    key.key_type()
                )),
                None => found(
                    "key-not-listed",
                    "none of this machine's keys is in admin_ssh_keys as it is applied",
                    ADD,
                ),
            }
        }
    }
}

fn address(machine: &Machine, rules: &Rules) -> Outcome {
    let answered = || Outcome::Fine("the bastion answers this machine".to_owned());
    let reason = match &rules.way {
        WayIn::SignedIn | WayIn::NotAuthorized(_) => return answered(),
        WayIn::NotReached(said) | WayIn::NoIdentity(said) | WayIn::Unknown(said) => said,
    };
    match (&machine.address, &rules.admin_cidrs) {
        (Known::Value(Some(address)), Known::Value(cidrs)) => allowed(*address, cidrs),
        (Known::Value(None), _) => Outcome::Unknown(format!(
            "the bastion did not answer ({reason}); with --checkip this machine's address is asked for at checkip.amazonaws.com and compared with admin_cidrs"
        )),
        (Known::Unknown(why), _) | (_, Known::Unknown(why)) => Outcome::Unknown(why.clone()),
    }
}

fn allowed(address: Ipv4Addr, cidrs: &[Ipv4Net]) -> Outcome {
    if cidrs.iter().any(|cidr| cidr.contains(&address)) {
        return Outcome::Fine(format!("{address} is in admin_cidrs"));
    }
    let listed: Vec<_> = cidrs.iter().map(ToString::to_string).collect();
    found(
        "address-not-allowed",
        format!(
            "this machine comes from {address}, and admin_cidrs has {}: the bastion does not answer it",
            listed.join(", ")
        ),
        format!(
            "add \"{address}/32\" to admin_cidrs in terraform/terraform.tfvars, then terraform -chdir=terraform apply"
        ),
    )
}

fn pins(rules: &Rules) -> Outcome {
    match &rules.pins {
        Known::Unknown(reason) => Outcome::Unknown(reason.clone()),
        Known::Value(pins) => {
            let missing: Vec<_> = Role::ALL
                .into_iter()
                .filter(|role| pins.get(*role).is_none())
                .map(Role::as_str)
                .collect();
            if missing.is_empty() {
                return Outcome::Fine("all three are published".to_owned());
            }
            found(
                "host-key-not-published",
                format!(
                    "{} has not published its ssh host key, so nobody signs in there",
                    missing.join(", ")
                ),
                "drawbridge nat status",
            )
        }
    }
}

fn session_files(rules: &Rules) -> Outcome {
    match &rules.session_files {
        Known::Unknown(reason) => Outcome::Unknown(reason.clone()),
        Known::Value(SessionFiles::None) => Outcome::Fine("none were written".to_owned()),
        Known::Value(SessionFiles::Current) => Outcome::Fine("they fit what stands".to_owned()),
        Known::Value(SessionFiles::Stale(means)) => {
            found("session-files-stale", means, "drawbridge ssh-config")
        }
        // What accepts it is in the text, behind the question whether it should be.
        Known::Value(SessionFiles::Changed(means)) => {
            found("host-key-changed", means, "drawbridge nat status")
        }
    }
}

fn lock(machine: &Machine, now: OffsetDateTime) -> Outcome {
    let lock = match &machine.lock {
        Known::Unknown(reason) => return Outcome::Unknown(reason.clone()),
        Known::Value(None) => return Outcome::Fine("no terraform holds it here".to_owned()),
        Known::Value(Some(lock)) => lock,
    };
    let means = format!(
        "{} of {} has held the state's lock since {}",
        lock.operation, lock.who, lock.created
    );
    let command = format!("terraform -chdir=terraform force-unlock {}", lock.id);
    if lock.age(now).is_none_or(|age| age > LOCK_OLD) {
        let further = "; if that terraform is gone for good, free it";
        return found("state-locked", means + further, command);
    }
    let further = "; wait for it, and free it only if that terraform is gone for good";
    Outcome::Note(finding("state-locked", means + further, command))
}

fn position(machine: &Machine, rules: &Rules) -> Outcome {
    let is_leased = matches!(rules.position, Some(Position::Leased { .. }));
    match &machine.position_differs {
        Known::Unknown(reason) => Outcome::Unknown(reason.clone()),
        Known::Value(None) => Outcome::Fine("in no repository".to_owned()),
        Known::Value(Some(false)) => Outcome::Fine("as it is committed".to_owned()),
        Known::Value(Some(true)) if is_leased => {
            Outcome::Fine("a lease is under way; the close takes it back".to_owned())
        }
        Known::Value(Some(true)) => found(
            "position-not-committed",
            "terraform/nat.auto.tfvars.json differs from what is committed: somebody else's apply would move the window",
            "git commit -m 'Keep the position of the NAT window' terraform/nat.auto.tfvars.json",
        ),
    }
}

fn building(machine: &Machine) -> Outcome {
    match &machine.building {
        Ok(()) => Outcome::Fine("nix with flakes, and KVM".to_owned()),
        Err(reason) => Outcome::Note(finding(
            "cannot-build-images",
            format!("images cannot be built on this machine: {reason}"),
            "scripts/publish-ami.sh --image backend=FOLDER_BUILT_ELSEWHERE",
        )),
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
