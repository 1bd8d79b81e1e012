//! Registering and signing in, whoever asks for it: the API, or a page's form.

use std::{net::IpAddr, sync::Arc, time::Duration};

use time::OffsetDateTime;

use super::{
    Email, Role, Token, TokenHash,
    password::{HashError, Hasher, Verdict},
    throttle::{Throttle, Wait, client_of},
    token::new_token,
};
use crate::{
    appliance::Secret,
    config::AuthSettings,
    db::{
        Database, DbError,
        profiles::{self, Profile},
        sessions::{self, Caller, Lifetime},
    },
    metrics::{self, Metrics},
};

/// Longer names of clients are cut.
const USER_AGENT_LIMIT: usize = 200;

/// Who may sign in how often, and where their passwords are hashed. Cloning shares it.
#[derive(Clone)]
pub struct Accounts(Arc<Inner>);

struct Inner {
    anonymous_writes: bool,
    lifetime: Lifetime,
    hasher: Hasher,
    /// By lower-cased e-mail address, whether it has an account or not.
    accounts: Throttle<String>,
    addresses: Throttle<IpAddr>,
    registrations: Throttle<IpAddr>,
    metrics: Metrics,
}

/// Somebody who wants an account.
#[derive(Debug)]
pub struct Registration<'a> {
    /// 1 to 200 characters, none of them NUL.
    pub name: &'a str,
    /// Not taken yet.
    pub email: &'a Email,
    /// 12 to 128 characters.
    pub password: &'a Secret,
}

/// A session that has just begun.
#[derive(Debug)]
pub struct Login {
    /// Whose it is.
    pub profile: Profile,
    /// Shown this once.
    pub token: Token,
    /// When the token ends however much it is used.
    pub expires_at: OffsetDateTime,
}

/// Why nobody was registered or signed in.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// Another profile has the e-mail address.
    #[error("the e-mail address is taken")]
    EmailTaken,
    /// No account, or another password: nobody is told which.
    #[error("the e-mail address or the password is wrong")]
    WrongCredentials,
    /// Too many attempts; the password was not looked at.
    #[error("too many attempts; the next one may be made in {0:?}")]
    Throttled(Duration),
    /// The password could not be hashed.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
}

impl From<Wait> for AuthError {
    fn from(Wait(wait): Wait) -> Self {
        Self::Throttled(wait)
    }
}

impl Accounts {
    /// As configured; nothing is counted yet.
    pub fn new(settings: &AuthSettings, metrics: Metrics) -> Self {
        let hours = |hours: u32| i32::try_from(hours).unwrap_or(i32::MAX);
        Self(Arc::new(Inner {
            anonymous_writes: settings.anonymous_writes,
            lifetime: Lifetime {
                hours: hours(settings.session_hours),
                idle_hours: hours(settings.idle_hours),
            },
            hasher: Hasher::new(settings.hash_concurrency),
            accounts: Throttle::new(settings.failures_per_account),
            addresses: Throttle::new(settings.failures_per_address),
            registrations: Throttle::new(settings.registrations_per_address),
            metrics,
        }))
    }

    /// Whether `/items` is written without signing in.
    pub fn anonymous_writes(&self) -> bool {
        self.0.anonymous_writes
    }

    /// How long a session lives unused.
    pub fn idle_hours(&self) -> i32 {
        self.0.lifetime.idle_hours
    }

    /// Makes a profile, a student, for a client at `address`.
    ///
    /// # Errors
    /// [`AuthError`].
    pub async fn register(
        &self,
        database: &Database,
        who: Registration<'_>,
        address: IpAddr,
    ) -> Result<Profile, AuthError> {
        self.0.registrations.attempt(client_of(address))?;
        let hash = self.0.hasher.hash(who.password).await?;
        // Only now: a connection is not kept waiting for a password.
        let mut connection = database.connection().await?;
        profiles::create_profile(&mut connection, who.name, who.email, &hash, Role::Student)
            .await?
            .ok_or(AuthError::EmailTaken)
    }

    /// Begins a session, if `password` is that of the account with this address.
    ///
    /// # Errors
    /// [`AuthError`].
    pub async fn login(
        &self,
        database: &Database,
        email: &Email,
        password: &Secret,
        address: IpAddr,
        user_agent: Option<&str>,
    ) -> Result<Login, AuthError> {
        if let Err(wait) = self.admit(email, address) {
            self.0.metrics.login(metrics::Login::Throttled);
            return Err(wait.into());
        }
        let outcome = self
            .check_and_begin(database, email, password, user_agent)
            .await;
        match &outcome {
            Ok(_) => {
                self.0.metrics.login(metrics::Login::Success);
                self.0.accounts.reset(email.key());
                self.0.addresses.take_back(client_of(address));
            }
            Err(AuthError::WrongCredentials) => self.0.metrics.login(metrics::Login::Refused),
            // Nobody learnt whether the password is right.
            Err(_) => {
                self.0.accounts.take_back(email.key().to_owned());
                self.0.addresses.take_back(client_of(address));
            }
        }
        outcome
    }

    fn admit(&self, email: &Email, address: IpAddr) -> Result<(), Wait> {
        let client = client_of(address);
        self.0.addresses.attempt(client)?;
        let admitted = self.0.accounts.attempt(email.key().to_owned());
        if admitted.is_err() {
            self.0.addresses.take_back(client);
        }
        admitted
    }

    async fn check_and_begin(
        &self,
        database: &Database,
        email: &Email,
        password: &Secret,
        user_agent: Option<&str>,
    ) -> Result<Login, AuthError> {
        let found = {
            let mut connection = database.connection().await?;
            profiles::find_by_email(&mut connection, email).await?
        };
        let stored = found.as_ref().map(|(_, hash)| hash.clone());
        let verdict = self.0.hasher.verify(password, stored).await?;
        let Some((profile, former)) = found.filter(|_| verdict != Verdict::Wrong) else {
            return Err(AuthError::WrongCredentials);
        };
        let renewed = match verdict {
            Verdict::RightAndOutdated => Some(self.0.hasher.hash(password).await?),
            _ => None,
        };
        let (token, hash) = new_token();
        let user_agent: Option<String> =
            user_agent.map(|text| text.chars().take(USER_AGENT_LIMIT).collect());
        let mut connection = database.connection().await?;
        if let Some(renewed) = renewed {
            profiles::replace_password_hash(&mut connection, profile.id, &former, &renewed).await?;
        }
        let expires_at = sessions::create_session(
            &mut connection,
            profile.id,
            hash,
            self.0.lifetime.hours,
            user_agent.as_deref(),
        )
        .await?;
        Ok(Login {
            profile,
            token,
            expires_at,
        })
    }

    /// Whose token this is, if it is still good.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn caller(
        &self,
        database: &Database,
        token: TokenHash,
    ) -> Result<Option<Caller>, DbError> {
        let mut connection = database.connection().await?;
        sessions::find_caller(&mut connection, token, self.idle_hours()).await
    }

    /// Exchanges a token for a new one, which ends as late as that of a session begun now; `None` if it is not good any
    /// more.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn refresh(
        &self,
        database: &Database,
        former: TokenHash,
    ) -> Result<Option<(Token, OffsetDateTime)>, DbError> {
        let (token, hash) = new_token();
        let mut connection = database.connection().await?;
        let expires_at =
            sessions::replace_token(&mut connection, former, hash, self.0.lifetime).await?;
        Ok(expires_at.map(|expires_at| (token, expires_at)))
    }
}
