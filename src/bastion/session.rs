//! A connection to a host: to the bastion directly, to a private host inside a channel of the bastion's connection.

use std::fmt;
use std::future::Future;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, Handle};
use russh::keys::PublicKeyOrCertificate;
use russh::{Channel, ChannelStream, Disconnect};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::host_keys::{Pins, Verdict};
use super::identity::{Identities, Keyring};
use super::transport::{self, Eager, Prompt};
use super::{Endpoint, SshError};
use crate::appliance::{LOGIN_USER, Role, TUNNEL_USER};
use crate::terraform::Deployment;

/// A TCP connection, an SSH handshake or a forwarded connection that takes longer is not coming: three retransmitted
/// SYNs are 7 s, and a dropped packet behind the bastion would otherwise be waited for for two minutes.
const STEP_LIMIT: Duration = Duration::from_secs(10);
/// Longer, because an agent may ask its owner.
const AUTHENTICATION_LIMIT: Duration = Duration::from_secs(30);
/// Long enough for a line that still works, short enough for one that hangs.
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);

/// How sshd is met inside the VPC. The default is what the images have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The user to log in as, on the host that is wanted.
    pub user: String,
    /// The user to log in as on the bastion when it is only passed through.
    pub jump: String,
    /// The port of the private hosts' sshd.
    pub port: u16,
}

impl FromStr for Login {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not USER:JUMP:PORT, e.g. admin:tunnel:22");
        let [user, jump, port] = *text.split(':').collect::<Vec<_>>() else {
            return Err(wrong());
        };
        let is_name = |name: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
            !name.is_empty() && !name.starts_with('-') && name.bytes().all(plain)
        };
        let port = port.parse().ok().filter(|port| *port > 0);
        match port {
            Some(port) if is_name(user) && is_name(jump) => Ok(Self {
                user: user.to_owned(),
                jump: jump.to_owned(),
                port,
            }),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.user, self.jump, self.port)
    }
}

impl Default for Login {
    fn default() -> Self {
        Self {
            user: LOGIN_USER.to_owned(),
            jump: TUNNEL_USER.to_owned(),
            port: 22,
        }
    }
}

/// Everything needed to reach the hosts of one deployment.
#[derive(Clone, Debug)]
pub struct Access {
    /// The hosts' addresses.
    pub deployment: Deployment,
    /// Their host keys.
    pub pins: Pins,
    /// Where the bastion answers instead of its public address and port 22.
    pub bastion: Option<Endpoint>,
    /// The operator's keys.
    pub keys: Keyring,
    /// Users and port.
    pub login: Login,
}

/// Accepts the pinned key and nothing else.
pub(super) struct Verify {
    host: Role,
    pins: Pins,
}

/// What [`Verify`] ends a handshake with.
#[derive(Debug)]
pub(super) enum Stopped {
    Key(Verdict),
    Ssh(russh::Error),
}

impl From<russh::Error> for Stopped {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

impl client::Handler for Verify {
    type Error = Stopped;

    async fn check_server_key(
        &mut self,
        offered: &PublicKeyOrCertificate,
    ) -> Result<bool, Stopped> {
        // Certificates are not asked for; one that comes all the same is not a pinned key.
        let PublicKeyOrCertificate::PublicKey { key, .. } = offered else {
            return Ok(false);
        };
        match self.pins.judge(self.host, key) {
            Verdict::Known => Ok(true),
            verdict => Err(Stopped::Key(verdict)),
        }
    }
}

/// A forwarded connection: what is written goes to the far end, what is read comes from it.
pub type ForwardedStream = ChannelStream<client::Msg>;

/// A logged-in connection to one host. Costs three round trips to make; runs any number of commands.
pub struct Session {
    pub(super) handle: Handle<Verify>,
    pub(super) host: Role,
    // The connection that carries this one.
    outer: Option<Box<Session>>,
}

impl Access {
    /// Logs in to `host`, through the bastion unless it is the bastion.
    ///
    /// # Errors
    /// Any [`SshError`] but those of a running command.
    pub async fn connect(&self, host: Role) -> Result<Session, SshError> {
        // Both keys are looked up first: a host that cannot be told apart is not even knocked at.
        for role in [Role::Bastion, host] {
            if self.pins.get(role).is_none() {
                return Err(SshError::HostKeyUnknown { host: role });
            }
        }
        let identities = self.keys.identities().await?;
        match self.reach(host, identities).await {
            // Only now is somebody asked for a passphrase, and before a connection that would not wait for it.
            Err(mut refused @ SshError::NotAuthorized { .. }) => match self.keys.rest().await {
                Ok(Some(rest)) => self.reach(host, rest).await,
                Ok(None) => Err(refused),
                Err(untried) => {
                    if let SshError::NotAuthorized { offered, .. } = &mut refused {
                        offered.push_str(&format!(" ({untried})"));
                    }
                    Err(refused)
                }
            },
            reached => reached,
        }
    }

    async fn reach(&self, host: Role, mut identities: Identities) -> Result<Session, SshError> {
        let address = match host {
            Role::Bastion => return self.enter(&self.login.user, &mut identities).await,
            Role::Backend => &self.deployment.backend.private_ip,
            Role::Database => &self.deployment.database.private_ip,
        };
        let bastion = self.enter(&self.login.jump, &mut identities).await?;
        self.pass(bastion, host, address, &mut identities).await
    }

    async fn enter(&self, user: &str, identities: &mut Identities) -> Result<Session, SshError> {
        let host = Role::Bastion;
        let usual = || Endpoint {
            host: self.deployment.bastion.public_ip.clone(),
            port: 22,
        };
        let endpoint = self.bastion.clone().unwrap_or_else(usual);
        let connect = TcpStream::connect((endpoint.host.as_str(), endpoint.port));
        let stream = within(host, "connecting", STEP_LIMIT, connect).await?;
        let unreachable = |source| SshError::Unreachable {
            host,
            address: endpoint.to_string(),
            source,
        };
        let stream = stream.map_err(unreachable)?;
        let stream = Prompt::new(stream).map_err(unreachable)?;
        self.log_in(host, user, stream, None, identities).await
    }

    async fn pass(
        &self,
        bastion: Session,
        host: Role,
        address: &str,
        identities: &mut Identities,
    ) -> Result<Session, SshError> {
        let opened = bastion
            .open(
                host,
                "connecting through the bastion",
                address,
                self.login.port,
            )
            .await?;
        let channel = opened.map_err(|source| SshError::NoWayThrough {
            host,
            address: address.to_owned(),
            source,
        })?;
        self.log_in(
            host,
            &self.login.user,
            channel.into_stream(),
            Some(Box::new(bastion)),
            identities,
        )
        .await
    }

    async fn log_in<S>(
        &self,
        host: Role,
        user: &str,
        stream: S,
        outer: Option<Box<Session>>,
        identities: &mut Identities,
    ) -> Result<Session, SshError>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let config = transport::config(self.pins.algorithms(host));
        let verify = Verify {
            host,
            pins: self.pins.clone(),
        };
        let step = "SSH handshake";
        let handshake = client::connect_stream(Arc::new(config), Eager::new(stream), verify);
        let handle = within(host, step, STEP_LIMIT, handshake).await?;
        let mut handle = handle.map_err(|stopped| match stopped {
            Stopped::Key(Verdict::Changed { pinned, offered }) => SshError::HostKeyChanged {
                host,
                pinned,
                offered,
                provenance: Box::new(self.pins.provenance(host, &self.deployment)),
            },
            Stopped::Key(_) => SshError::HostKeyUnknown { host },
            Stopped::Ssh(source) => SshError::Failed { host, step, source },
        })?;
        let step = "login";
        let login = identities.authenticate(&mut handle, user);
        let accepted = within(host, step, AUTHENTICATION_LIMIT, login).await?;
        if !accepted.map_err(|source| SshError::Failed { host, step, source })? {
            return Err(SshError::NotAuthorized {
                host,
                user: user.to_owned(),
                offered: identities.describe(),
            });
        }
        Ok(Session {
            handle,
            host,
            outer,
        })
    }
}

impl Session {
    /// The host at the far end.
    #[must_use]
    pub fn host(&self) -> Role {
        self.host
    }

    /// A connection from the far host to `address:port` as seen from there (`direct-tcpip`), bytes as they come.
    ///
    /// # Errors
    /// [`SshError::NotForwarded`] when the host refuses or nothing answers there; [`SshError::TimedOut`] after ten seconds.
    pub async fn dial(&self, address: &str, port: u16) -> Result<ForwardedStream, SshError> {
        self.forward(address, port).await.map(Channel::into_stream)
    }

    /// As [`Session::dial`], but the channel tells an end from a loss, which a stream cannot.
    pub(super) async fn forward(
        &self,
        address: &str,
        port: u16,
    ) -> Result<Channel<client::Msg>, SshError> {
        let host = self.host;
        self.open(host, "forwarding a connection", address, port)
            .await?
            .map_err(|source| SshError::NotForwarded {
                host,
                target: format!("{address}:{port}"),
                source,
            })
    }

    async fn open(
        &self,
        blamed: Role,
        step: &'static str,
        address: &str,
        port: u16,
    ) -> Result<Result<Channel<client::Msg>, russh::Error>, SshError> {
        // Where it comes from is for the far side's log only; nobody here has an address of interest there.
        let open = self
            .handle
            .channel_open_direct_tcpip(address, u32::from(port), "127.0.0.1", 0);
        within(blamed, step, STEP_LIMIT, open).await
    }

    /// Says goodbye, inside out. Dropping a session leaves that to the far side's keepalive.
    pub async fn close(self) {
        let mut next = Some(Box::new(self));
        while let Some(session) = next {
            let goodbye = session
                .handle
                .disconnect(Disconnect::ByApplication, "", "en");
            // The far side may be gone already, or not listen; there is nothing left to lose.
            let _ = timeout(GOODBYE_LIMIT, goodbye).await;
            next = session.outer;
        }
    }
}

pub(super) async fn within<T>(
    host: Role,
    step: &'static str,
    limit: Duration,
    work: impl Future<Output = T>,
) -> Result<T, SshError> {
    timeout(limit, work)
        .await
        .map_err(|_| SshError::TimedOut { host, step, limit })
}
