//! What a host says when somebody signs in, and how far the way to it went.

use std::path::Path;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout_at;

use super::Answer;
use super::bound::{Bound, Last};
use super::look::place;
use crate::appliance::status::{HostStatus, Known};
use crate::appliance::{API_PORT, Role};
use crate::bastion::record::Record;
use crate::bastion::ssh_config::Written;
use crate::bastion::{Access, Session, SshError};
use crate::command::access::beside;
use crate::error_chain::chain;
use crate::flows::{self, End};
use crate::nat::gate;
use crate::terraform::{Deployment, Terraform};

/// What `drawbridge ssh-config` wrote once, and whether it is still true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionFiles {
    /// There are none.
    None,
    /// They fit what stands.
    Current,
    /// They hold other keys or addresses; a new instance explains it.
    Stale(String),
    /// SSM holds another key than was pinned before, and nothing explains it: nobody is signed in to.
    Changed(String),
}

impl SessionFiles {
    /// Compares the files beside the Terraform folder with what `access` pins.
    pub(super) fn look(directory: &Path, access: &Access) -> Result<Self, String> {
        let files = Written::within(&beside(directory));
        let name = &access.deployment.name;
        let cannot = |error| format!("cannot read {}: {error}", files.known_hosts.display());
        let before = Record::load(&files.known_hosts, name).map_err(cannot)?;
        if before.is_empty() {
            return Ok(Self::None);
        }
        let now = OffsetDateTime::now_utc();
        let renewed = match before.renewed(access, &[], now) {
            Ok((renewed, _)) => renewed,
            Err(changed) => return Ok(Self::Changed(changed.to_string())),
        };
        let config = std::fs::read_to_string(&files.ssh_config).unwrap_or_default();
        let names = |role| {
            let address = place(&access.deployment, role).private_ip;
            config.contains(&format!("HostName {address}\n"))
        };
        let stale = |file: &Path, what: &str| {
            Ok(Self::Stale(format!(
                "{} holds other {what} than the hosts have",
                file.display()
            )))
        };
        if renewed != before {
            stale(&files.known_hosts, "host keys")
        } else if !gate::HOSTS.into_iter().all(names) {
            stale(&files.ssh_config, "addresses")
        } else {
            Ok(Self::Current)
        }
    }
}

/// How far the way to a host went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WayIn {
    /// To the end.
    SignedIn,
    /// Its sshd answered, and accepts none of the keys.
    NotAuthorized(String),
    /// There is no key to sign in with, or it cannot be used.
    NoIdentity(String),
    /// Nobody answered on the way.
    NotReached(String),
    /// It was not tried, or ended otherwise.
    Unknown(String),
}

impl From<&SshError> for WayIn {
    fn from(error: &SshError) -> Self {
        let said = chain(error);
        match error {
            SshError::NotAuthorized { .. } => Self::NotAuthorized(said),
            SshError::NoIdentity
            | SshError::IdentityLocked { .. }
            | SshError::IdentityNotHeld { .. }
            | SshError::IdentityRsa { .. }
            | SshError::WrongPassphrase { .. }
            | SshError::Identity { .. } => Self::NoIdentity(said),
            SshError::Unreachable { .. } => Self::NotReached(said),
            SshError::TimedOut {
                step: "connecting", ..
            } => Self::NotReached(said),
            _ => Self::Unknown(said),
        }
    }
}

/// What a host says.
pub(super) struct Inside {
    pub host: Known<HostStatus>,
    pub ahead: Option<f64>,
    pub way: WayIn,
}

impl Inside {
    pub fn unknown(reason: &str) -> Self {
        Self {
            host: Known::Unknown(reason.to_owned()),
            ahead: None,
            way: WayIn::Unknown(reason.to_owned()),
        }
    }
}

/// Signs in, asks the host for its status and, on the backend, the API whether it is ready.
pub(super) async fn host(
    access: &Access,
    role: Role,
    ready: Option<&ReadyOnHost>,
    bound: Bound,
) -> (Inside, Known<Answer>) {
    let last = Last::new("signing in");
    let session = match timeout_at(bound.end, access.connect(role)).await {
        Ok(Ok(session)) => session,
        Ok(Err(error)) => {
            let reason = chain(&error);
            let inside = Inside {
                way: WayIn::from(&error),
                ..Inside::unknown(&reason)
            };
            return (inside, Known::Unknown(reason));
        }
        Err(_) => {
            let reason = bound.late(&last);
            return (Inside::unknown(&reason), Known::Unknown(reason));
        }
    };
    last.now("running `drawbridge-host status`");
    let asking = Last::new("asking the API on the backend");
    let direct = async {
        match ready {
            Some(ready) => bound.get(&asking, ready.ask(&session)).await,
            None => Known::Unknown("only the backend has an API".to_owned()),
        }
    };
    let (told, direct) = tokio::join!(bound.get(&last, told(&session, role, bound.limit)), direct);
    // A host that went silent would keep a polite goodbye waiting.
    let _ = timeout_at(bound.end, session.close()).await;
    let (host, ahead) = match told {
        Known::Value((host, ahead)) => (Known::Value(host), ahead),
        Known::Unknown(reason) => (Known::Unknown(reason), None),
    };
    let way = WayIn::SignedIn;
    (Inside { host, ahead, way }, direct)
}

/// Root sees more, and on the bastion nobody is root. Where sudo is missing or says no, the rest is better than nothing.
fn command(role: Role) -> &'static str {
    match role {
        Role::Bastion => "drawbridge-host status",
        Role::Backend | Role::Database => {
            "sudo -n drawbridge-host status || drawbridge-host status"
        }
    }
}

/// What the host says, and how far its clock is ahead.
async fn told(
    session: &Session,
    role: Role,
    limit: Duration,
) -> Result<(HostStatus, Option<f64>), String> {
    let before = OffsetDateTime::now_utc();
    let output = session.collect(command(role), limit).await;
    let after = OffsetDateTime::now_utc();
    let output = output.map_err(|error| chain(&error))?;
    if output.status != 0 {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(refused(output.status, &said));
    }
    let host = HostStatus::parse(&output.stdout)?;
    let ahead = host.time.value().map(|time| ahead(before, time.0, after));
    Ok((host, ahead))
}

fn refused(status: u32, said: &str) -> String {
    if said.contains("unrecognized subcommand") {
        return "its drawbridge-host is older than this drawbridge and has no `status`: deploy a current image".to_owned();
    }
    let last = said.lines().rev().find(|line| !line.trim().is_empty());
    let last = last.unwrap_or("no word of why").trim();
    format!("`drawbridge-host status` ended with status {status}: {last}")
}

/// Seconds by which a clock that showed `there` at some time between `before` and `after` is ahead for certain.
fn ahead(before: OffsetDateTime, there: OffsetDateTime, after: OffsetDateTime) -> f64 {
    if there > after {
        (there - after).as_seconds_f64()
    } else if there < before {
        (there - before).as_seconds_f64()
    } else {
        0.0
    }
}

/// `GET /ready` on the backend's own port.
pub(super) struct ReadyOnHost {
    port: u16,
    path: String,
}

impl ReadyOnHost {
    pub fn of(terraform: &Terraform, deployment: &Deployment) -> Self {
        let balancer = &deployment.load_balancer;
        let path = balancer.ready_url.strip_prefix(&balancer.url);
        // A flows.json that cannot be read is terraform's affair, which says what is wrong with it.
        let flows = flows::read(&terraform.directory().join("flows.json")).unwrap_or_default();
        let port = flows
            .iter()
            .find(|flow| flow.from == End::LoadBalancer && flow.to == End::Backend)
            .map_or(API_PORT, |flow| flow.port);
        Self {
            port,
            path: path.unwrap_or("/ready").to_owned(),
        }
    }

    async fn ask(&self, session: &Session) -> Result<Answer, String> {
        let what = format!("the backend's localhost:{}{}", self.port, self.path);
        let mut stream = match session.dial("localhost", self.port).await {
            Ok(stream) => stream,
            // The host answered, and nobody listens there.
            Err(error @ SshError::NotForwarded { .. }) => {
                let seen = format!("{what} does not answer: {}", chain(&error));
                return Ok(Answer::from(Err(seen)));
            }
            Err(error) => return Err(chain(&error)),
        };
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: localhost:{}\r\nUser-Agent: drawbridge\r\nConnection: close\r\n\r\n",
            self.path, self.port
        );
        let lost = |error: std::io::Error| format!("{what} does not answer: {error}");
        let sent = stream.write_all(request.as_bytes()).await;
        sent.map_err(lost)?;
        // The status line is all that is of interest, and no server's is longer.
        let mut head = Vec::new();
        let read = stream.take(256).read_to_end(&mut head).await;
        read.map_err(lost)?;
        Ok(Answer::from(match status_line(&head) {
            Some(200) => Ok(format!("{what} answers 200")),
            Some(status) => Err(format!("{what} answers {status}")),
            None => Err(format!("{what} answers something that is not HTTP")),
        }))
    }
}

fn status_line(head: &[u8]) -> Option<u16> {
    let text = String::from_utf8_lossy(head);
    let mut words = text.strip_prefix("HTTP/1.")?.split([' ', '\r', '\n']);
    words.nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_clock_is_off_only_by_what_the_question_cannot_explain() {
        let (before, after) = (
            datetime!(2026-11-21 18:00 UTC),
            datetime!(2026-11-21 18:00:02 UTC),
        );
        assert_eq!(
            ahead(before, datetime!(2026-11-21 18:00:01 UTC), after),
            0.0
        );
        assert_eq!(
            ahead(before, datetime!(2026-11-21 18:00:12 UTC), after),
            10.0
        );
        assert_eq!(
            ahead(before, datetime!(2026-11-21 17:59:30 UTC), after),
            -30.0
        );
    }

    #[test]
    fn the_status_of_an_answer_is_read() {
        assert_eq!(status_line(b"HTTP/1.1 200 OK\r\nA: b\r\n"), Some(200));
        assert_eq!(status_line(b"HTTP/1.0 503\r\n"), Some(503));
        for wrong in [&b""[..], b"SSH-2.0-x", b"HTTP/2 200", b"HTTP/1.1"] {
            assert_eq!(status_line(wrong), None);
        }
    }

    #[test]
    fn a_host_that_knows_no_status_is_said_to_be_older() {
        let clap = "error: unrecognized subcommand 'status'\n\nUsage: …\n";
        assert!(refused(2, clap).contains("older"));
        let sudo = refused(1, "sudo: a password is required\n\n");
        assert!(
            sudo.ends_with("ended with status 1: sudo: a password is required"),
            "{sudo}"
        );
    }
}
