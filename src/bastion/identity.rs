//! The keys an admin proves to be one with: a named file, or the agent's and the usual file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use russh::client::{AuthResult, Handle};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{
    Algorithm, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey, load_secret_key,
};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::SshError;
use super::session::Verify;

/// sshd closes the connection after six failed attempts (`MaxAuthTries`); the last one is left for the file.
const MOST_AGENT_KEYS: usize = 5;

/// A local socket: an agent that does not even list its keys by then is stuck.
const AGENT_LIMIT: Duration = Duration::from_secs(5);

/// A key to offer.
#[derive(Clone, Debug)]
enum Key {
    File { path: PathBuf, key: Arc<PrivateKey> },
    Agent { key: PublicKey, comment: String },
}

/// The keys to offer, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Identities {
    keys: Vec<Key>,
}

impl Identities {
    /// `named` alone when given; else what the agent holds and then `~/.ssh/id_ed25519`.
    pub async fn gather(named: Option<&Path>) -> Result<Self, SshError> {
        let load = |path: &Path| {
            let key = load_secret_key(path, None);
            key.map(|key| Key::File {
                path: path.to_owned(),
                key: Arc::new(key),
            })
        };
        if let Some(path) = named {
            let key = load(path).map_err(|source| match source {
                russh::keys::Error::KeyIsEncrypted => SshError::IdentityLocked {
                    path: path.to_owned(),
                },
                source => SshError::Identity {
                    path: path.to_owned(),
                    source,
                },
            })?;
            // russh signs with RSA keys through a crate with a known timing leak (RUSTSEC-2023-0071), so it is left out.
            if matches!(&key, Key::File { key, .. } if key.algorithm().is_rsa()) {
                return Err(SshError::IdentityRsa {
                    path: path.to_owned(),
                });
            }
            return Ok(Self { keys: vec![key] });
        }
        let mut keys = agent_keys().await;
        if let Some(home) = std::env::var_os("HOME") {
            // A locked or missing usual file is no error: nobody asked for it.
            keys.extend(load(&Path::new(&home).join(".ssh/id_ed25519")).ok());
        }
        if keys.is_empty() {
            Err(SshError::NoIdentity)
        } else {
            Ok(Self { keys })
        }
    }

    /// Offers the keys one after the other and puts the accepted one first, for the next host.
    pub async fn authenticate(
        &mut self,
        handle: &mut Handle<Verify>,
        user: &str,
    ) -> Result<bool, russh::Error> {
        for index in 0..self.keys.len() {
            if self.keys[index].offer(handle, user).await? {
                self.keys.swap(0, index);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What was offered, for the error.
    pub fn describe(&self) -> String {
        let name = |key: &Key| match key {
            Key::File { path, .. } => path.display().to_string(),
            Key::Agent { comment, .. } => format!("agent's `{comment}`"),
        };
        self.keys.iter().map(name).collect::<Vec<_>>().join(", ")
    }
}

impl Key {
    async fn offer(&self, handle: &mut Handle<Verify>, user: &str) -> Result<bool, russh::Error> {
        let answer = match self {
            Self::File { key, .. } => {
                let hash = rsa_hash(handle, &key.algorithm()).await?;
                handle
                    .authenticate_publickey(user, PrivateKeyWithHashAlg::new(Arc::clone(key), hash))
                    .await?
            }
            Self::Agent { key, .. } => {
                // An agent that has gone away or declines is one key less, not the end.
                let Ok(mut agent) = connect().await else {
                    return Ok(false);
                };
                let hash = rsa_hash(handle, &key.algorithm()).await?;
                match handle
                    .authenticate_publickey_with(user, key.clone(), hash, &mut agent)
                    .await
                {
                    Ok(answer) => answer,
                    Err(russh::AgentAuthError::Key(_)) => return Ok(false),
                    Err(russh::AgentAuthError::Send(_)) => return Err(russh::Error::SendError),
                }
            }
        };
        match answer {
            AuthResult::Success => Ok(true),
            AuthResult::Failure { .. } if handle.is_closed() => Err(russh::Error::Disconnect),
            AuthResult::Failure { .. } => Ok(false),
        }
    }
}

// Without a hash an RSA key would sign with SHA-1, which sshd refuses.
async fn rsa_hash(
    handle: &Handle<Verify>,
    algorithm: &Algorithm,
) -> Result<Option<HashAlg>, russh::Error> {
    if !algorithm.clone().is_rsa() {
        return Ok(None);
    }
    Ok(handle
        .best_supported_rsa_hash()
        .await?
        .flatten()
        .or(Some(HashAlg::Sha256)))
}

async fn connect() -> Result<AgentClient<UnixStream>, russh::keys::Error> {
    match timeout(AGENT_LIMIT, AgentClient::connect_env()).await {
        Ok(client) => client,
        Err(_) => Err(russh::keys::Error::AgentFailure),
    }
}

/// No agent, a dead socket and an empty agent are all the same: no keys from there.
async fn agent_keys() -> Vec<Key> {
    let listed = timeout(AGENT_LIMIT, async {
        connect().await?.request_identities().await
    })
    .await;
    let identities = listed.ok().and_then(Result::ok).unwrap_or_default();
    let keys = identities
        .into_iter()
        .filter_map(|identity| match identity {
            AgentIdentity::PublicKey { key, comment } => Some(Key::Agent { key, comment }),
            AgentIdentity::Certificate { .. } => None,
        });
    keys.take(MOST_AGENT_KEYS).collect()
}
