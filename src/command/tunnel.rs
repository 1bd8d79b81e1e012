//! `drawbridge tunnel`: a port of this machine that leads to Postgres or to the API, past nobody's address.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;

use super::access::{AccessArgs, access};
use super::{DeploymentArgs, json_line, print};
use crate::appliance::{DATABASE_NAME, Role};
use crate::bastion::Access;
use crate::bastion::forward::{self, Event, Limits, Target};
use crate::cloud::Cloud;
use crate::exit::Exit;
use crate::flows;
use crate::interrupt::Interrupt;
use crate::progress::Progress;

/// Added to the far port for the local one that is tried first: 15432 for Postgres, 18000 for the API.
const ABOVE: u16 = 10_000;

const ABOUT: &str = "\
Forward a port of this machine to Postgres or to the API, through the bastion.

It listens on 127.0.0.1 and ::1. Every connection becomes a channel of one ssh session to the host, which connects to its
own port there. When the session is lost the port stays: connections under way are reset, new ones wait up to a minute
while the session is made again. After 20 attempts (about four minutes) the tunnel ends with status 1.";

const HELP: &str = "\
Examples:
  drawbridge tunnel database                  # then psql with the line that it prints
  drawbridge tunnel backend --port 8000       # then curl http://127.0.0.1:8000/ready
  drawbridge tunnel database --json | head -1 # for scripts: one line, as soon as the port is open

stdout has the connection string, without the password, once the port is open. The password is in SSM:
`aws ssm get-parameters --with-decryption --names /NAME/database/login`; `drawbridge psql` takes it by itself.

Exit status:
  1    no session, or none any more; the message says why
  2    wrong usage
  130  Ctrl-C or SIGTERM: the usual end; connections under way are reset";

/// Forward a port of this machine to Postgres or to the API, through the bastion
#[derive(Args, Clone, Debug)]
#[command(long_about = ABOUT, after_help = HELP)]
pub struct TunnelArgs {
    #[command(flatten)]
    deployment: DeploymentArgs,
    #[command(flatten)]
    access: AccessArgs,
    /// database or backend
    #[arg(value_parser = private_host)]
    host: Role,
    /// Local port; default: the far one and 10000, or any free one if that is in use
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// The host's port, when flows.json names several
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    to: Option<u16>,
    /// Print what is open as one line of JSON
    #[arg(long)]
    json: bool,
}

fn private_host(text: &str) -> Result<Role, String> {
    match text.parse() {
        Ok(Role::Bastion) | Err(_) => Err("a tunnel leads to `database` or `backend`".to_owned()),
        Ok(role) => Ok(role),
    }
}

/// What a script needs to know of an open tunnel.
#[derive(Debug, Serialize)]
struct Open<'a> {
    host: Role,
    port: u16,
    listens: Vec<SocketAddr>,
    target: String,
    /// None holds a password.
    url: &'a str,
}

impl TunnelArgs {
    /// Runs it; an error is for [`super::report_error`].
    ///
    /// # Errors
    /// Whatever keeps the tunnel from being open.
    pub async fn run(self, progress: &Progress, interrupt: &Interrupt) -> anyhow::Result<Exit> {
        let work = self.open(progress, interrupt);
        tokio::select! {
            ended = work => ended,
            // Before the port was open. From then on it ends in order.
            () = interrupt.more_than(1) => Ok(Exit::Interrupted),
        }
    }

    async fn open(&self, progress: &Progress, interrupt: &Interrupt) -> anyhow::Result<Exit> {
        let (access, terraform) =
            forwarding(&self.deployment, &self.access, progress, interrupt).await?;
        let target = target(&terraform, self.host, self.to)?;
        // Before signing in, which takes longer.
        let listeners = self.listen(target.port).await?;
        let listens = forward::addresses(&listeners)?;
        let Some(port) = listens.first().map(SocketAddr::port) else {
            bail!("no address to listen on");
        };
        progress.begin(&format!("{}: logging in", self.host));
        let session = tokio::select! {
            session = access.connect(self.host) => session?,
            () = interrupt.requested() => return Ok(Exit::Interrupted),
        };
        let url = match self.host {
            Role::Database => {
                database_url(&access, &beside(&terraform), port, progress, interrupt).await
            }
            _ => format!("http://127.0.0.1:{port}"),
        };
        if interrupt.count() > 0 {
            return Ok(Exit::Interrupted);
        }
        progress.clear();
        if self.json {
            print(&json_line(&Open {
                host: self.host,
                port,
                listens,
                target: format!("{}:{}", target.address, target.port),
                url: &url,
            })?);
        } else {
            progress.say(&format!(
                "127.0.0.1:{port} leads to port {} of {}; Ctrl-C ends it",
                target.port, self.host
            ));
            print(&format!("{url}\n"));
        }
        let tell = teller(progress, self.host);
        let stop = interrupt.requested();
        let limits = Limits::default();
        forward::serve(&access, session, listeners, &target, limits, &tell, stop)
            .await
            .with_context(|| format!("the session to {} does not come back", self.host))?;
        Ok(Exit::Interrupted)
    }

    async fn listen(&self, far: u16) -> anyhow::Result<Vec<tokio::net::TcpListener>> {
        let Some(port) = self.port else {
            if let Some(port) = far.checked_add(ABOVE)
                && let Ok(listeners) = forward::listen(port).await
            {
                return Ok(listeners);
            }
            return forward::listen(0)
                .await
                .context("no free port on 127.0.0.1");
        };
        forward::listen(port).await.with_context(|| {
            format!("cannot listen on port {port} of this machine: name another with --port, or leave it out for a free one")
        })
    }
}

/// The way in for a tunnel: as the login that gets nothing but forwarded ports, on the host itself as on the bastion.
pub(super) async fn forwarding(
    deployment: &DeploymentArgs,
    args: &AccessArgs,
    progress: &Progress,
    interrupt: &Interrupt,
) -> anyhow::Result<(Access, PathBuf)> {
    let (mut access, terraform) = access(deployment, args, progress, interrupt).await?;
    access.login.user.clone_from(&access.login.jump);
    Ok((access, terraform))
}

/// Where a tunnel to `host` leads: the port that the flows lead to, which its sshd forwards to.
pub(super) fn target(terraform: &Path, host: Role, to: Option<u16>) -> anyhow::Result<Target> {
    let file = terraform.join("flows.json");
    let served = flows::ports_served(&flows::read(&file)?, host.into());
    let list = || {
        let ports: Vec<_> = served.iter().map(u16::to_string).collect();
        ports.join(", ")
    };
    let port = match (to, served.len()) {
        (_, 0) => bail!("{}: no flow leads to a port of {host}", file.display()),
        (None, 1) => served.first().copied().unwrap_or_default(),
        (None, _) => bail!(
            "{} leads to several ports of {host}: choose one with --to ({})",
            file.display(),
            list()
        ),
        (Some(port), _) if served.contains(&port) => port,
        (Some(port), _) => bail!(
            "{host} forwards to no port {port}: {} leads to {}",
            file.display(),
            list()
        ),
    };
    Ok(Target {
        // As nixos/sshd.nix permits it, by name and by number.
        address: "localhost".to_owned(),
        port,
    })
}

/// Where files for other programs go, as `drawbridge ssh-config` has it.
fn beside(terraform: &Path) -> PathBuf {
    terraform.parent().unwrap_or(terraform).join(".drawbridge")
}

/// The connection string for libpq. What cannot be found out is left out and said: the tunnel works without.
async fn database_url(
    access: &Access,
    folder: &Path,
    port: u16,
    progress: &Progress,
    interrupt: &Interrupt,
) -> String {
    let deployment = &access.deployment;
    let (account, name) = (&deployment.account_id, &deployment.name);
    let ask = async {
        let cloud = Cloud::new(&deployment.region).await;
        tokio::join!(
            cloud.database_login(account, name),
            cloud.database_certificate(account, name)
        )
    };
    let (login, certificate) = tokio::select! {
        answers = ask => answers,
        () = interrupt.requested() => return String::new(),
    };
    let user = login.map(|login| login.role.name()).map_err(|error| {
        progress.say(&format!(
            "without a user in the connection string: {}",
            crate::error_chain::chain(&error)
        ));
    });
    let written = certificate
        .map_err(|error| crate::error_chain::chain(&error))
        .and_then(|pem| write_certificate(folder, &pem).map_err(|error| error.to_string()))
        .map_err(|error| {
            progress.say(&format!(
                "without the certificate in the connection string: {error}"
            ));
        });
    let certificate = written.ok();
    url(
        &deployment.database.private_ip,
        port,
        user.ok(),
        certificate.as_deref(),
    )
}

fn write_certificate(folder: &Path, pem: &str) -> std::io::Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    let file = folder.canonicalize()?.join("database-ca.pem");
    crate::bastion::ssh_config::replace(&file, pem)?;
    Ok(file)
}

/// `host` is the name in the certificate, `hostaddr` where the connection goes.
fn url(host: &str, port: u16, user: Option<&str>, certificate: Option<&Path>) -> String {
    let user = user.map(|user| format!("{user}@")).unwrap_or_default();
    let certificate = certificate
        .map(|file| format!("&sslrootcert={}", percent(&file.display().to_string())))
        .unwrap_or_default();
    format!(
        "postgresql://{user}{host}:{port}/{DATABASE_NAME}?hostaddr=127.0.0.1&sslmode=verify-full{certificate}"
    )
}

/// For the value of a parameter in a URL.
fn percent(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Tells people what happens to a tunnel; a program that tries again and again is refused once.
pub(super) fn teller(progress: &Progress, host: Role) -> impl Fn(Event) + Sync {
    let last = Mutex::new(String::new());
    move |event| {
        let text = said(host, &event);
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != text {
            progress.say_always(&text);
            *last = text;
        }
    }
}

fn said(host: Role, event: &Event) -> String {
    match event {
        Event::Lost => format!(
            "lost the session to {host}: connections under way were reset, new ones wait while it is made again"
        ),
        Event::Back { after } => format!(
            "the session to {host} is back after {:.1} s",
            after.as_secs_f64()
        ),
        Event::Refused(error) => crate::error_chain::chain(error),
        Event::Stalled => format!(
            "reset a connection to {host}: its program took nothing for {} s, which holds up the others of this tunnel",
            Limits::default().stall.as_secs()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_string_has_no_password_and_survives_odd_folders() {
        assert_eq!(
            url(
                "10.20.3.10",
                15432,
                Some("drawbridge_a"),
                Some(Path::new("/a b&c/ca.pem"))
            ),
            "postgresql://drawbridge_a@10.20.3.10:15432/drawbridge?hostaddr=127.0.0.1&sslmode=verify-full&sslrootcert=/a%20b%26c/ca.pem"
        );
        assert_eq!(
            url("10.20.3.10", 1, None, None),
            "postgresql://10.20.3.10:1/drawbridge?hostaddr=127.0.0.1&sslmode=verify-full"
        );
    }

    #[test]
    fn the_far_port_is_the_flows() {
        let terraform = Path::new(env!("CARGO_MANIFEST_DIR")).join("terraform");
        let port = |host, to| target(&terraform, host, to).map(|target| target.port);
        assert_eq!(port(Role::Database, None).unwrap(), 5432);
        assert_eq!(port(Role::Backend, None).unwrap(), 8000);
        assert_eq!(port(Role::Backend, Some(8000)).unwrap(), 8000);
        let refused = port(Role::Database, Some(22)).unwrap_err().to_string();
        assert!(refused.contains("leads to 5432"), "{refused}");
        assert!(port(Role::Bastion, None).is_err());
        assert!(private_host("bastion").is_err());
    }
}
