//! `drawbridge rotate-password`: both halves of a rotation, side by side, through the bastion.

use std::fmt;
use std::time::Duration;

use clap::Args;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::time::timeout;

use super::access::{AccessArgs, access};
use super::{DeploymentArgs, print};
use crate::appliance::Role;
use crate::bastion::{Access, SshError};
use crate::cloud::{Cloud, GatewayState};
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::progress::{Progress, escape};

/// The hosts that have a half to do, the one that begins first.
const HALVES: [Role; 2] = [Role::Database, Role::Backend];
/// Beyond the hosts' own limit: for logging in, and for going back.
const GRACE: Duration = Duration::from_secs(60);

const ABOUT: &str = "\
Replace the database password while requests go on; needs the NAT window open.

Both private hosts do their half at the same time, through the bastion: the database lets the other of two logins in
with a new password and publishes it, the backend starts the API anew with it on a socket that stays open, then the
database retires the old login. Cut off anywhere, a login that works is left, and the next run goes on. If the API does
not become ready with the new login, the backend goes back to the one of before.";

const HELP: &str = "\
Examples:
  drawbridge nat open --for 15m -- drawbridge rotate-password

stdout has a line for each host with how its half ended.

Exit status:
  0    rotated on both hosts, or an earlier rotation finished
  1    failed on a host, or not known of it; its line says why and what still works; run it again and it goes on
  2    wrong usage
  4    refused: the NAT window is closed; nothing was changed
  130  interrupted; the login in use works; run it again and it goes on";

/// Replace the database password while requests go on; needs the NAT window open
#[derive(Args, Clone, Debug)]
#[command(long_about = ABOUT, after_help = HELP)]
pub struct RotateArgs {
    #[command(flatten)]
    deployment: DeploymentArgs,
    #[command(flatten)]
    access: AccessArgs,
    /// Give up after this long, 30 to 3600; whatever was reached then works, and the next run goes on
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(30..=3600))]
    timeout: u64,
}

/// How a host's half ended.
#[derive(Debug)]
pub enum Outcome {
    /// What the host says of it.
    Rotated(String),
    /// The host's own last words.
    Failed(String),
    /// The host was not reached, or lost on the way: it goes on by itself, or not.
    Unknown(SshError),
}

impl Outcome {
    /// Whether the half is done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Rotated(_))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rotated(said) => f.write_str(said),
            Self::Failed(said) => write!(f, "failed: {said}"),
            Self::Unknown(error) => write!(
                f,
                "not known: {error}; what the host had begun may still end well"
            ),
        }
    }
}

impl RotateArgs {
    /// Runs it; an error is for [`super::report_error`].
    ///
    /// # Errors
    /// When the deployment or the cloud cannot be read.
    pub async fn run(self, progress: &Progress, interrupt: &Interrupt) -> anyhow::Result<Exit> {
        let (access, _) = access(&self.deployment, &self.access, progress, interrupt).await?;
        let deployment = &access.deployment;
        progress.begin("looking whether the window is open");
        let cloud = Cloud::new(&deployment.region).await;
        let gateways = cloud.gateways(&deployment.name, &deployment.vpc_id).await?;
        if !gateways
            .iter()
            .any(|one| one.state == GatewayState::Available)
        {
            progress.clear();
            progress.say_always(
                "drawbridge: the NAT window is closed, and the hosts hand the new password over through it: `drawbridge nat open --for 15m -- drawbridge rotate-password`. Nothing was changed",
            );
            return Ok(Exit::Refused);
        }
        let limit = Duration::from_secs(self.timeout);
        let outcomes = tokio::select! {
            outcomes = rotate(&access, limit, progress) => outcomes,
            () = interrupt.requested() => {
                progress.clear();
                progress.say_always("drawbridge: interrupted; the login in use works. Run this again to go on");
                return Ok(Exit::Interrupted);
            }
        };
        progress.clear();
        let mut all_done = true;
        for (role, outcome) in outcomes {
            // A host's words end up in it.
            print(&(escape(&format!("{role}: {outcome}")) + "\n"));
            all_done &= outcome.is_done();
        }
        Ok(if all_done { Exit::Done } else { Exit::Failed })
    }
}

/// Runs both halves to their ends and tells how each ended. `limit` is for a half by its own clock.
pub async fn rotate(access: &Access, limit: Duration, progress: &Progress) -> [(Role, Outcome); 2] {
    let [first, second] = HALVES;
    let (one, two) = tokio::join!(
        half(access, first, limit, progress),
        half(access, second, limit, progress)
    );
    [(first, one), (second, two)]
}

async fn half(access: &Access, host: Role, limit: Duration, progress: &Progress) -> Outcome {
    let whole = limit + GRACE;
    match timeout(whole, ask(access, host, limit, progress)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => Outcome::Unknown(error),
        Err(_) => Outcome::Unknown(SshError::TimedOut {
            host,
            step: "rotating the password",
            limit: whole,
        }),
    }
}

async fn ask(
    access: &Access,
    host: Role,
    limit: Duration,
    progress: &Progress,
) -> Result<Outcome, SshError> {
    progress.line(&format!("{host}: logging in"));
    let session = access.connect(host).await?;
    let command = format!(
        "sudo -n drawbridge-host rotate-password --timeout {}",
        limit.as_secs()
    );
    let mut stdout = Vec::new();
    let (stderr, lines) = tokio::io::duplex(4096);
    let (status, last) = tokio::join!(
        session.run(&command, tokio::io::empty(), &mut stdout, stderr),
        show(host, lines, progress)
    );
    session.close().await;
    let said = String::from_utf8_lossy(&stdout).trim().to_owned();
    Ok(match status? {
        0 => Outcome::Rotated(said),
        status => Outcome::Failed(format!("{last} (exit status {status})")),
    })
}

/// Shows a host's lines as they come, and returns the last one.
async fn show(host: Role, lines: impl AsyncRead + Unpin, progress: &Progress) -> String {
    let mut last = String::from("no word of why");
    let mut lines = BufReader::new(lines).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let line = line.trim();
        if !line.is_empty() {
            progress.line(&format!("{host}: {line}"));
            line.clone_into(&mut last);
        }
    }
    last
}
