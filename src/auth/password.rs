//! Passwords at rest: argon2id, away from the threads that serve requests, and only so many at a time.

use std::{sync::Arc, time::Duration};

use argon2::{
    Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version,
    password_hash::{self, phc::PasswordHash},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use unicode_normalization::UnicodeNormalization as _;
use zeroize::Zeroizing;

use crate::appliance::Secret;

/// The first of the equivalent settings in OWASP's Password Storage Cheat Sheet (2025), section Argon2id: 19 MiB, two
/// passes, one lane.
/// <https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html#argon2id>
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// How long a password waits for its turn. Far below any request timeout, so that the client learns why.
const WAIT_LIMIT: Duration = Duration::from_secs(2);

/// What a password is compared with where there is no account: salt and hash are random, so no password has it.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$5XH1T2myNho9R3//CKdAyg$WrZYwgNzdHKH6Xhv6gYBrjsiH0jFiv5onkeRV+gzAwY";

/// Why a password was neither hashed nor compared.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// Nothing was done; a later try may find a free place.
    #[error("no place to hash a password was free within {WAIT_LIMIT:?} (auth.hash_concurrency)")]
    Busy,
    /// A stored hash cannot be read, or the algorithm refused its input: a bug on our side.
    #[error("a password cannot be hashed")]
    Failed(#[source] password_hash::Error),
    /// The thread that hashed it is gone.
    #[error("hashing a password broke off")]
    BrokeOff(#[source] tokio::task::JoinError),
}

impl HashError {
    /// Whether the same request may succeed later.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Busy)
    }
}

/// Whether a password is the right one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Wrong,
    Right,
    /// Right, and its stored hash was made with other parameters than today's.
    RightAndOutdated,
}

/// Hashes so many passwords at a time. Cloning shares the places.
#[derive(Debug, Clone)]
pub struct Hasher(Arc<Semaphore>);

impl Hasher {
    /// With so many places.
    pub fn new(places: u32) -> Self {
        Self(Arc::new(Semaphore::new(
            usize::try_from(places).unwrap_or(Semaphore::MAX_PERMITS),
        )))
    }

    /// The PHC string of `password` with a new salt.
    ///
    /// # Errors
    /// [`HashError`].
    pub async fn hash(&self, password: &Secret) -> Result<String, HashError> {
        let password = normalized(password);
        self.run(move || {
            let salt = rand::random::<[u8; 16]>();
            let hash: PasswordHash =
                today()?.hash_password_with_salt(password.as_bytes(), &salt)?;
            Ok(hash.to_string())
        })
        .await
    }

    /// Compares `password` with a stored hash. Without one it takes as long, and is wrong.
    ///
    /// # Errors
    /// [`HashError`].
    pub async fn verify(
        &self,
        password: &Secret,
        stored: Option<String>,
    ) -> Result<Verdict, HashError> {
        let password = normalized(password);
        self.run(move || {
            let hash = PasswordHash::new(stored.as_deref().unwrap_or(NOBODY))?;
            let argon2 = today()?;
            match argon2.verify_password(password.as_bytes(), &hash) {
                Ok(()) if stored.is_none() => Ok(Verdict::Wrong),
                Ok(()) if is_outdated(&hash, &argon2) => Ok(Verdict::RightAndOutdated),
                Ok(()) => Ok(Verdict::Right),
                Err(password_hash::Error::PasswordInvalid) => Ok(Verdict::Wrong),
                Err(error) => Err(error),
            }
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, password_hash::Error> + Send + 'static,
    ) -> Result<T, HashError> {
        let place = self.place().await?;
        tokio::task::spawn_blocking(move || {
            // A request that is given up leaves its work running, so the place belongs to the work.
            let _place = place;
            work()
        })
        .await
        .map_err(HashError::BrokeOff)?
        .map_err(HashError::Failed)
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, HashError> {
        match timeout(WAIT_LIMIT, Arc::clone(&self.0).acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            // It is never closed, so this is the timeout.
            Ok(Err(_)) | Err(_) => Err(HashError::Busy),
        }
    }
}

fn today() -> Result<Argon2<'static>, password_hash::Error> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None)
        .map_err(|_| password_hash::Error::ParamsInvalid)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn is_outdated(hash: &PasswordHash, today: &Argon2<'_>) -> bool {
    let is_argon2id = hash.algorithm.as_str() == Algorithm::Argon2id.as_str();
    let is_current_version = hash.version == Some(Version::V0x13.into());
    let has_params = Params::try_from(hash).is_ok_and(|params| {
        (params.m_cost(), params.t_cost(), params.p_cost())
            == (
                today.params().m_cost(),
                today.params().t_cost(),
                today.params().p_cost(),
            )
    });
    !(is_argon2id && is_current_version && has_params)
}

/// The same characters from any keyboard: NFKC, as NIST SP 800-63B-4, section 3.1.1.2, has it.
fn normalized(password: &Secret) -> Zeroizing<String> {
    Zeroizing::new(password.expose().nfkc().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_right_whatever_keyboard_it_is_typed_on_and_no_other_is() {
        let hasher = Hasher::new(1);
        let stored = hasher
            .hash(&Secret::new("caf\u{e9} au lait"))
            .await
            .unwrap();
        assert!(
            stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{stored}"
        );
        let verdict = async |password: &str| {
            let password = Secret::new(password);
            hasher
                .verify(&password, Some(stored.clone()))
                .await
                .unwrap()
        };
        assert_eq!(verdict("cafe\u{301} au lait").await, Verdict::Right);
        assert_eq!(verdict("cafe au lait").await, Verdict::Wrong);
        assert_ne!(
            hasher
                .hash(&Secret::new("caf\u{e9} au lait"))
                .await
                .unwrap(),
            stored
        );
    }

    #[tokio::test]
    async fn a_hash_made_otherwise_is_good_once_more() {
        let params = Params::new(8, 1, 1, None).unwrap();
        let former = Argon2::new(Algorithm::Argon2i, Version::V0x13, params);
        let stored: PasswordHash = former
            .hash_password_with_salt(b"right", b"sixteen bytes of")
            .unwrap();
        let hasher = Hasher::new(1);
        let verdict = async |password: &str| {
            let password = Secret::new(password);
            hasher
                .verify(&password, Some(stored.to_string()))
                .await
                .unwrap()
        };
        assert_eq!(verdict("right").await, Verdict::RightAndOutdated);
        assert_eq!(verdict("wrong").await, Verdict::Wrong);
    }

    #[tokio::test]
    async fn nobody_has_a_hash_that_costs_what_everybodys_does() {
        let hash = PasswordHash::new(NOBODY).unwrap();
        assert!(!is_outdated(&hash, &today().unwrap()));
        let verdict = Hasher::new(1).verify(&Secret::new("anything"), None).await;
        assert_eq!(verdict.unwrap(), Verdict::Wrong);
    }

    #[tokio::test]
    async fn who_finds_no_place_is_told_so() {
        let hasher = Hasher::new(1);
        let _taken = hasher.place().await.unwrap();
        let outcome = hasher.hash(&Secret::new("waits")).await;
        assert!(outcome.is_err_and(|error| error.is_temporary()));
    }
}
