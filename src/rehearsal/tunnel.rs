//! What the login `tunnel` gets: the ports of the flows through the bastion, and nothing else, whatever it asks for. Tried
//! with a key of `tunnel_ssh_keys`, which is nobody's who may sign in as `admin`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::deploy::Operator;
use super::hosts::SSHD_UNIT;
use super::machine::Machine;
use super::network::OPERATOR;
use super::probe;
use super::report::Current;
use super::ssh::{self, LIMIT, PROHIBITED};
use super::topology::Topology;
use crate::appliance::{API_PORT, DATABASE_PORT, LOGIN_USER, Role, TUNNEL_USER};
use crate::bastion::exec::command_line;
use crate::command::access::IDENTITY_VARIABLE;

/// The first words of what a shell would have been.
const REFUSAL: &str = "This login only forwards connections";
/// The table's name on the bastion, as in nixos/bastion.nix.
pub const TABLE: &str = "bastion";
/// What Postgres is asked before anything else, whether it speaks TLS, and what it answers.
const ASK_FOR_TLS: (&str, &[u8]) = (r"\000\000\000\010\004\322\026\057", b"S");
/// What sshd has to read out of its own settings for what cannot be tried from here.
const SETTINGS: [&str; 6] = [
    "allowagentforwarding no",
    "allowstreamlocalforwarding no",
    "gatewayports no",
    "permittty no",
    "permittunnel no",
    "x11forwarding no",
];

/// Everything for one key.
struct Tunnel<'a> {
    operator: &'a Operator,
    machine: &'a Machine,
    config: PathBuf,
}

/// Something that is asked for and has to be refused.
struct Attempt {
    what: &'static str,
    role: Role,
    /// After `ssh -F …`.
    arguments: Vec<String>,
    /// What ssh says of it.
    refusal: &'static str,
}

/// Tries all of it from `machine`. `host` finds the hosts themselves; `folder` is for the files that OpenSSH needs.
///
/// # Errors
/// If something could not be tried.
pub fn prove<'a>(
    step: &mut Current<'_>,
    operator: &Operator,
    machine: &Machine,
    folder: &Path,
    topology: &Topology,
    host: impl Fn(Role) -> Result<&'a Machine>,
) -> Result<()> {
    let key = &operator.tunnel_identity;
    let identity = [(IDENTITY_VARIABLE.to_owned(), key.display().to_string())];
    ssh::write_config(operator, machine, folder, identity)?;
    let tunnel = Tunnel {
        operator,
        machine,
        config: folder.join("ssh_config"),
    };
    for role in Role::ALL {
        let settings = tunnel.settings(host(role)?)?;
        let missing: Vec<&str> = SETTINGS
            .into_iter()
            .filter(|wanted| !settings.lines().any(|line| line == *wanted))
            .collect();
        step.prove(
            format!("{TUNNEL_USER} on {role}: no agent, terminal, X11, tun or socket"),
            missing.is_empty(),
            if missing.is_empty() {
                "as sshd there reads its settings".to_owned()
            } else {
                format!("sshd there does not say: {}", missing.join(", "))
            },
        );
    }
    tunnel.prove_refusals(step, topology)?;
    step.prove_result(
        format!("{TUNNEL_USER} reaches Postgres through both hosts"),
        tunnel.reaches(Role::Database, DATABASE_PORT, ASK_FOR_TLS),
    );
    step.prove_result(
        format!("{TUNNEL_USER} reaches the API through both hosts"),
        tunnel.reaches(
            Role::Backend,
            API_PORT,
            ("GET /ready HTTP/1.0\\r\\n\\r\\n", b"HTTP/1.0 200"),
        ),
    );
    step.prove_result(
        "no agent is forwarded to anybody",
        tunnel.no_agent(operator, folder),
    );
    step.prove_result(
        "the bastion writes down who forwards to where",
        tunnel.audited(host(Role::Bastion)?, topology),
    );
    Ok(())
}

impl Tunnel<'_> {
    fn command(&self, arguments: &[&str]) -> Result<std::process::Output> {
        let config = self.config.display().to_string();
        self.machine
            .command(&[&ssh::talkative(&config)[..], arguments].concat(), LIMIT)
            .environment(self.operator.environment.clone())
            .output()
    }

    fn prove_refusals(&self, step: &mut Current<'_>, topology: &Topology) -> Result<()> {
        let mut attempts: Vec<Attempt> = Role::ALL.into_iter().flat_map(of_every_host).collect();
        let (backend, _) = topology
            .instance_host(Role::Backend)
            .context("the state holds no backend")?;
        let elsewhere = [
            (Role::Bastion, format!("{}:{API_PORT}", backend.address)),
            (Role::Backend, format!("localhost:{DATABASE_PORT}")),
            (Role::Database, "localhost:22".to_owned()),
            (Role::Database, format!("{}:{API_PORT}", backend.address)),
        ];
        for (role, target) in elsewhere {
            let arguments = ["-l", TUNNEL_USER, "-W", &target, role.as_str()];
            attempts.push(Attempt {
                what: "another port",
                role,
                arguments: arguments.map(str::to_owned).to_vec(),
                refusal: PROHIBITED,
            });
        }
        let answers = std::thread::scope(|scope| {
            let threads = attempts
                .iter()
                .map(|attempt| scope.spawn(move || self.refused(attempt)))
                .collect();
            probe::join(threads)
        });
        let mut tried = Vec::new();
        let mut got = Vec::new();
        for (attempt, answer) in attempts.iter().zip(answers) {
            match answer? {
                None => tried.push(attempt.what),
                Some(answer) => got.push(format!("{} on {}: {answer}", attempt.what, attempt.role)),
            }
        }
        let number = tried.len();
        tried.sort_unstable();
        tried.dedup();
        step.prove(
            format!("{TUNNEL_USER} gets nothing else on any host"),
            got.is_empty(),
            if got.is_empty() {
                format!("{number} refused: {}", tried.join(", "))
            } else {
                got.join("; ")
            },
        );
        Ok(())
    }

    /// What came instead of the refusal; nothing if it was refused as it has to be.
    fn refused(&self, attempt: &Attempt) -> Result<Option<String>> {
        let arguments: Vec<&str> = attempt.arguments.iter().map(String::as_str).collect();
        let output = self.command(&arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        let refused =
            !output.status.success() && output.stdout.is_empty() && said.contains(attempt.refusal);
        Ok((!refused).then(|| {
            format!(
                "{} / {} ({})",
                String::from_utf8_lossy(&output.stdout).trim(),
                said.trim().replace('\n', " / "),
                output.status
            )
        }))
    }

    /// Opens a connection to a port of a private host itself, says something and compares how the answer begins.
    fn reaches(&self, role: Role, port: u16, (question, answer): (&str, &[u8])) -> Result<String> {
        let config = self.config.display().to_string();
        let target = format!("localhost:{port}");
        let ssh = command_line(&[
            "ssh",
            "-F",
            &config,
            "-o",
            "BatchMode=yes",
            "-l",
            TUNNEL_USER,
            "-W",
            &target,
            role.as_str(),
        ]);
        let script = format!("printf '{question}' | {ssh}");
        let output = self
            .machine
            .command(&["sh", "-c", &script], LIMIT)
            .environment(self.operator.environment.clone())
            .output()?;
        ensure!(
            output.stdout.starts_with(answer),
            "{:?} {} ({})",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr).trim(),
            output.status
        );
        Ok(format!("{role}'s {target} answers"))
    }

    /// How a host's own sshd reads its settings for this login.
    fn settings(&self, host: &Machine) -> Result<String> {
        let place = format!("user={TUNNEL_USER},host=somewhere,addr={OPERATOR}");
        let sshd = "exec \"$(command -v sshd)\" -T -f /etc/ssh/sshd_config -C \"$0\"";
        let output = host.command(&["sh", "-c", sshd, &place], LIMIT).output()?;
        ensure!(
            output.status.success(),
            "sshd -T: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// An administrator who has an agent and offers it finds none on the bastion.
    fn no_agent(&self, operator: &Operator, folder: &Path) -> Result<String> {
        let config = folder.join("ssh_config").display().to_string();
        let identity = operator.identity.display().to_string();
        let ssh = command_line(&[
            "ssh",
            "-F",
            &config,
            "-A",
            "-i",
            &identity,
            "-l",
            LOGIN_USER,
            Role::Bastion.as_str(),
            "echo agent: ${SSH_AUTH_SOCK:-none}",
        ]);
        // Without an agent of one's own ssh would not even ask.
        let output = self
            .machine
            .command(&["ssh-agent", "sh", "-c", &ssh], LIMIT)
            .environment(self.operator.environment.clone())
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        ensure!(
            said == "agent: none",
            "{said} {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(format!("{LOGIN_USER} on the bastion finds none"))
    }

    /// One more connection: sshd's log names the key, where it came from and where it led, and the kernel's rule met it.
    fn audited(&self, bastion: &Machine, topology: &Topology) -> Result<String> {
        let (database, _) = topology
            .instance_host(Role::Database)
            .context("the state holds no database")?;
        let read = || bastion.log(SSHD_UNIT);
        let before = (read()?.len(), forwarded(bastion)?);
        self.reaches(Role::Database, DATABASE_PORT, ASK_FOR_TLS)?;
        let log = read()?.split_off(before.0);
        let key = fs::read_to_string(self.operator.tunnel_identity.with_extension("pub"))
            .context("cannot read the key")?;
        let fingerprint = fingerprint(&key)?;
        let who = format!("Accepted publickey for {TUNNEL_USER} from {OPERATOR} port ");
        let signed_in = log
            .lines()
            .any(|line| line.starts_with(&who) && line.ends_with(&fingerprint));
        ensure!(signed_in, "sshd does not say {who}… {fingerprint}:\n{log}");
        let target = format!("target {} port 22", database.address);
        ensure!(
            log.lines().any(|line| line.contains(&target)),
            "sshd does not say {target}:\n{log}"
        );
        let met = forwarded(bastion)? - before.1;
        ensure!(met == 1, "the kernel's rule met {met} connections, not one");
        Ok(format!("{fingerprint} from {OPERATOR}, {target}"))
    }
}

/// What is asked of each host.
fn of_every_host(role: Role) -> Vec<Attempt> {
    let attempt = |what, refusal, before: &[&str], after: &[&str]| {
        let arguments = [before, &[role.as_str()], after].concat();
        Attempt {
            what,
            role,
            arguments: arguments.into_iter().map(str::to_owned).collect(),
            refusal,
        }
    };
    let tunnel = |what, refusal, before: &[&str], after: &[&str]| {
        attempt(
            what,
            refusal,
            &[&["-l", TUNNEL_USER], before].concat(),
            after,
        )
    };
    let strict = ["-N", "-o", "ExitOnForwardFailure=yes", "-R"];
    let port = [&strict[..], &["9999:localhost:22"]].concat();
    let socket = [&strict[..], &["/tmp/tunnel:localhost:22"]].concat();
    vec![
        tunnel("a shell", REFUSAL, &[], &[]),
        tunnel("a command", REFUSAL, &[], &["id"]),
        tunnel("a terminal", "PTY allocation request failed", &["-tt"], &[]),
        // sshd passes no stderr of a subsystem on; one that ran would end well at the end of its input.
        tunnel("sftp", "", &["-s"], &["sftp"]),
        tunnel(
            "a listening port",
            "remote port forwarding failed",
            &port,
            &[],
        ),
        tunnel(
            "a listening socket",
            "remote port forwarding failed",
            &socket,
            &[],
        ),
        attempt(
            "admin's login",
            "Permission denied",
            &["-l", LOGIN_USER],
            &["id"],
        ),
    ]
}

/// `SHA256:…` of a public key, as sshd writes it.
fn fingerprint(key: &str) -> Result<String> {
    let key = russh::keys::PublicKey::from_openssh(key).context("not a public key")?;
    Ok(key.fingerprint(russh::keys::HashAlg::Sha256).to_string())
}

/// How many connections of logins the bastion's own rules have met.
fn forwarded(bastion: &Machine) -> Result<u64> {
    let list = ["nft", "-j", "list", "table", "inet", TABLE];
    let output = bastion.command(&list, LIMIT).output()?;
    let table: Value =
        serde_json::from_slice(&output.stdout).context("nft does not list the bastion's rules")?;
    let rules = table.get("nftables").and_then(Value::as_array);
    rules
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.get("rule"))
        .filter(|rule| rule.get("comment").and_then(Value::as_str) == Some("forwarded"))
        .filter_map(|rule| rule.get("expr").and_then(Value::as_array))
        .flatten()
        .find_map(|part| part.get("counter")?.get("packets")?.as_u64())
        .context("the bastion has no rule that is named forwarded")
}
