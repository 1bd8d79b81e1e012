//! What can go wrong on the way in; each says whether anything was sent or may still run.

use std::path::PathBuf;
use std::time::Duration;

use super::host_keys::Provenance;
use crate::appliance::Role;

/// Why there is no session, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// Nothing was sent.
    #[error(
        "{host} has not published its SSH host key yet, so nobody could tell who answers: see how far it is with `drawbridge nat status`"
    )]
    HostKeyUnknown {
        /// The host.
        host: Role,
    },
    /// Nothing was sent but the handshake.
    #[error(
        "the host key of {host} is not the pinned one (pinned {pinned}, offered {offered}): {provenance}"
    )]
    HostKeyChanged {
        /// The host.
        host: Role,
        /// Fingerprint of the pinned key.
        pinned: String,
        /// Fingerprint of the key that was offered.
        offered: String,
        /// Whose key is pinned, and so what this means.
        provenance: Box<Provenance>,
    },
    /// Nothing was sent.
    #[error("cannot connect to {host} at {address}: is your own address in `admin_cidrs`?")]
    Unreachable {
        /// The host.
        host: Role,
        /// Where it was looked for.
        address: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Nothing was sent to the host itself.
    #[error("the bastion cannot connect to {host} at {address}")]
    NoWayThrough {
        /// The host.
        host: Role,
        /// Where it was looked for.
        address: String,
        /// Why not.
        #[source]
        source: russh::Error,
    },
    /// The host itself made no connection to where it was asked to.
    #[error("{host} does not forward to {target}")]
    NotForwarded {
        /// The host that was asked.
        host: Role,
        /// `address:port` as seen from it.
        target: String,
        /// Why not.
        #[source]
        source: russh::Error,
    },
    /// The step was given up.
    #[error("{host} did not answer within {} s ({step})", limit.as_secs())]
    TimedOut {
        /// The host.
        host: Role,
        /// What was waited for.
        step: &'static str,
        /// For how long.
        limit: Duration,
    },
    /// None of the keys is authorized.
    #[error(
        "{host} accepts none of these keys for {user}: {offered}; name yours with --identity, and see that its public half is in `admin_ssh_keys`"
    )]
    NotAuthorized {
        /// The host.
        host: Role,
        /// The user to log in as.
        user: String,
        /// The keys that were offered.
        offered: String,
    },
    /// Nothing was sent.
    #[error(
        "no SSH key to log in with: start an agent (`ssh-add`), make ~/.ssh/id_ed25519, or name a file with --identity"
    )]
    NoIdentity,
    /// Nothing was sent.
    #[error("the key {} is protected by a passphrase, and no terminal answered for it: add it to the agent with `ssh-add {}`", path.display(), path.display())]
    IdentityLocked {
        /// The file.
        path: PathBuf,
    },
    /// Nothing was sent.
    #[error("that is not the passphrase of {}: see with `ssh-keygen -y -f {}` whether you have the right one", path.display(), path.display())]
    WrongPassphrase {
        /// The file.
        path: PathBuf,
    },
    /// Nothing was sent.
    #[error("{} is a public key, and the agent does not hold its private half: name the private key's file, or add it with `ssh-add`", path.display())]
    IdentityNotHeld {
        /// The file.
        path: PathBuf,
    },
    /// Nothing was sent.
    #[error(
        "{} is an RSA key, which only the agent can use here: `ssh-add {}` and leave --identity out, or use an ed25519 key",
        path.display(),
        path.display()
    )]
    IdentityRsa {
        /// The file.
        path: PathBuf,
    },
    /// Nothing was sent.
    #[error("cannot read an SSH private key from {}", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: russh::keys::Error,
    },
    /// The connection failed before anything ran.
    #[error("the SSH connection to {host} failed ({step})")]
    Failed {
        /// The host.
        host: Role,
        /// During what.
        step: &'static str,
        /// Why.
        #[source]
        source: russh::Error,
    },
    /// The command may still be running.
    #[error("lost the connection to {host} while the command ran; it may still be running")]
    Lost {
        /// The host.
        host: Role,
    },
    /// The command was ended there by a signal.
    #[error("the command on {host} was ended by signal {signal}")]
    Signal {
        /// The host.
        host: Role,
        /// Name without `SIG`, e.g. `KILL`.
        signal: String,
    },
    /// Reading the command's input or writing its output failed on this side.
    #[error("cannot pass on the input or output of the command on {host}")]
    Local {
        /// The host.
        host: Role,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

impl SshError {
    /// Whether trying again may help: the network or a restarting sshd, not a key or a name.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::NoWayThrough { .. }
                | Self::TimedOut { .. }
                | Self::Failed { .. }
                | Self::Lost { .. }
        )
    }
}
