//! The keys an admin proves to be one with: named files, or the agent's and the usual files. An encrypted one is asked
//! for once in a run, before anybody is connected to: sshd does not wait for somebody who types.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use russh::client::{AuthResult, Handle};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{
    Algorithm, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey, decode_secret_key,
};
use tokio::net::UnixStream;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::SshError;
use super::passphrase::Asker;
use super::session::Verify;
use crate::interrupt::Interrupt;
use crate::progress::Progress;

/// The hosts' sshds close the connection after so many failed attempts (`MaxAuthTries` in nixos/settings/sshd.json).
const MOST_TRIES: usize = 4;

/// In `~/.ssh`, in the order they are offered. RSA is not among them, see [`SshError::IdentityRsa`].
const USUAL_FILES: [&str; 2] = ["id_ed25519", "id_ecdsa"];

/// A local socket: an agent that does not even list its keys by then is stuck.
const AGENT_LIMIT: Duration = Duration::from_secs(5);

/// The operator's keys. Clones share what was unlocked, so a passphrase is asked for once, however many hosts.
#[derive(Clone, Debug, Default)]
pub struct Keyring(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    named: Vec<PathBuf>,
    asker: Option<Asker>,
    ready: OnceCell<Gathered>,
    unlocked: OnceCell<Identities>,
}

/// What can be offered without asking, and which files cannot.
#[derive(Debug)]
struct Gathered {
    identities: Identities,
    locked: Vec<PathBuf>,
}

impl Keyring {
    /// These files alone (private keys, or `.pub` files whose private half the agent holds); without any, the agent's
    /// keys and then `~/.ssh/id_ed25519` and `id_ecdsa`. Encrypted files need [`Keyring::asking`] or the agent.
    #[must_use]
    pub fn of(named: impl IntoIterator<Item = PathBuf>) -> Self {
        let named = named.into_iter().collect();
        Self(Arc::new(Inner {
            named,
            ..Inner::default()
        }))
    }

    /// The same files, whose passphrases are asked for on the terminal. Forgets what was unlocked.
    #[must_use]
    pub fn asking(self, progress: &Progress, interrupt: &Interrupt) -> Self {
        Self(Arc::new(Inner {
            named: self.0.named.clone(),
            asker: Some(Asker::new(progress, interrupt)),
            ..Inner::default()
        }))
    }

    /// The files it was made of.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.0.named
    }

    /// What to offer first.
    pub(super) async fn identities(&self) -> Result<Identities, SshError> {
        let gathered = self.gathered().await?;
        if !gathered.identities.keys.is_empty() {
            return Ok(gathered.identities.clone());
        }
        self.rest().await?.ok_or(SshError::NoIdentity)
    }

    /// What can be offered when that was refused: usual files behind a passphrase. `None` without any, or without
    /// somebody to ask.
    pub(super) async fn rest(&self) -> Result<Option<Identities>, SshError> {
        let gathered = self.gathered().await?;
        if gathered.locked.is_empty() {
            return Ok(None);
        }
        if self.0.asker.is_none() && !gathered.identities.keys.is_empty() {
            return Ok(None);
        }
        let unlocked = self.0.unlocked.get_or_try_init(|| async {
            let mut keys = Vec::new();
            for path in &gathered.locked {
                let text = read(path)?;
                keys.push(self.unlock(path, text).await?);
            }
            Ok(Identities::from(keys))
        });
        unlocked.await.cloned().map(Some)
    }

    async fn gathered(&self) -> Result<&Gathered, SshError> {
        let gather = || async {
            if self.0.named.is_empty() {
                Ok(usual(agent_keys().await))
            } else {
                self.named().await
            }
        };
        self.0.ready.get_or_try_init(gather).await
    }

    async fn named(&self) -> Result<Gathered, SshError> {
        let mut agent = None;
        let mut keys = Vec::new();
        for path in &self.0.named {
            let text = read(path)?;
            let key = match open(path, &text)? {
                Opened::Plain(key) => file(path, *key),
                opened => {
                    if agent.is_none() {
                        agent = Some(agent_keys().await);
                    }
                    let held = |public: &PublicKey| {
                        let mut keys = agent.iter().flatten();
                        keys.find(|key| key.public().key_data() == public.key_data())
                    };
                    match opened {
                        Opened::Public(public) => {
                            let path = path.clone();
                            held(&public)
                                .cloned()
                                .ok_or(SshError::IdentityNotHeld { path })?
                        }
                        Opened::Locked(public) => match public.as_ref().and_then(held) {
                            Some(key) => key.clone(),
                            None if public.is_some_and(|key| key.algorithm().is_rsa()) => {
                                return Err(SshError::IdentityRsa { path: path.clone() });
                            }
                            None => self.unlock(path, text).await?,
                        },
                        Opened::Plain(key) => file(path, *key),
                    }
                }
            };
            keys.push(key);
        }
        Ok(Gathered {
            identities: keys.into(),
            locked: Vec::new(),
        })
    }

    async fn unlock(&self, path: &Path, text: Zeroizing<String>) -> Result<Key, SshError> {
        let asker = self.0.asker.as_ref().ok_or(SshError::IdentityLocked {
            path: path.to_owned(),
        })?;
        let key = asker.unlock(path, text).await?;
        if key.algorithm().is_rsa() {
            return Err(SshError::IdentityRsa {
                path: path.to_owned(),
            });
        }
        Ok(file(path, key))
    }
}

/// The agent's keys and the usual files that are there. A missing or misshapen usual file is no error: nobody asked for it.
fn usual(mut agent: Vec<Key>) -> Gathered {
    let mut files = Vec::new();
    let mut locked = Vec::new();
    let home = std::env::var_os("HOME").unwrap_or_default();
    for name in USUAL_FILES {
        let path = Path::new(&home).join(".ssh").join(name);
        let Ok(text) = read(&path) else { continue };
        let is_held = |public: &PublicKey| {
            let mut keys = agent.iter();
            keys.any(|key| key.public().key_data() == public.key_data())
        };
        match open(&path, &text) {
            Ok(Opened::Plain(key)) if !is_held(key.public_key()) => files.push(file(&path, *key)),
            Ok(Opened::Locked(public)) if !public.as_ref().is_some_and(is_held) => {
                locked.push(path);
            }
            _ => {}
        }
    }
    let room = MOST_TRIES - files.len();
    let not_offered = agent.len().saturating_sub(room);
    agent.truncate(room);
    let keys = agent.into_iter().chain(files).collect();
    Gathered {
        identities: Identities { keys, not_offered },
        locked,
    }
}

fn file(path: &Path, key: PrivateKey) -> Key {
    Key::File {
        path: path.to_owned(),
        key: Arc::new(key),
    }
}

fn read(path: &Path) -> Result<Zeroizing<String>, SshError> {
    let text = std::fs::read_to_string(path).map_err(|error| SshError::Identity {
        path: path.to_owned(),
        source: error.into(),
    })?;
    Ok(Zeroizing::new(text))
}

enum Opened {
    Plain(Box<PrivateKey>),
    /// With its public half, where the format shows it.
    Locked(Option<PublicKey>),
    Public(PublicKey),
}

fn open(path: &Path, text: &str) -> Result<Opened, SshError> {
    if let Ok(public) = PublicKey::from_openssh(text.trim()) {
        return Ok(Opened::Public(public));
    }
    match decode_secret_key(text, None) {
        // russh signs with RSA keys through a crate with a known timing leak (RUSTSEC-2023-0071), so it is left out.
        Ok(key) if key.algorithm().is_rsa() => Err(SshError::IdentityRsa {
            path: path.to_owned(),
        }),
        Ok(key) => Ok(Opened::Plain(Box::new(key))),
        Err(russh::keys::Error::KeyIsEncrypted) => {
            let key = PrivateKey::from_openssh(text).ok();
            Ok(Opened::Locked(key.map(|key| key.public_key().clone())))
        }
        Err(source) => Err(SshError::Identity {
            path: path.to_owned(),
            source,
        }),
    }
}

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
    /// Keys of the agent beyond what sshd lets one try.
    not_offered: usize,
}

impl From<Vec<Key>> for Identities {
    fn from(keys: Vec<Key>) -> Self {
        Self {
            keys,
            not_offered: 0,
        }
    }
}

impl Identities {
    /// Offers the keys one after the other and puts the accepted one first, for the next host.
    pub async fn authenticate(
        &mut self,
        handle: &mut Handle<Verify>,
        user: &str,
    ) -> Result<bool, russh::Error> {
        for index in 0..self.keys.len() {
            match self.keys[index].offer(handle, user).await {
                Ok(true) => {
                    self.keys.swap(0, index);
                    return Ok(true);
                }
                Ok(false) => {}
                // That many refusals are why sshd hung up.
                Err(russh::Error::Disconnect) if index + 1 >= MOST_TRIES => return Ok(false),
                Err(error) => return Err(error),
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
        let mut text = self.keys.iter().map(name).collect::<Vec<_>>().join(", ");
        if self.not_offered > 0 {
            let more = format!(
                " (and {} more of the agent were not tried: sshd takes {MOST_TRIES}; --identity with a .pub file chooses one)",
                self.not_offered
            );
            text.push_str(&more);
        }
        text
    }
}

impl Key {
    fn public(&self) -> &PublicKey {
        match self {
            Self::File { key, .. } => key.public_key(),
            Self::Agent { key, .. } => key,
        }
    }

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
    identities
        .into_iter()
        .filter_map(|identity| match identity {
            AgentIdentity::PublicKey { key, comment } => Some(Key::Agent { key, comment }),
            AgentIdentity::Certificate { .. } => None,
        })
        .collect()
}
