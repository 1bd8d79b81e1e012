//! What `/auth` takes and answers.

use poem_openapi::{Object, types::Example};
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

use crate::{
    api::{
        document::EXAMPLE_ID,
        email::EmailText,
        text::{SecretText, Text},
    },
    appliance::Secret,
    auth::{Email, Role},
    db::profiles,
};

/// Somebody who can sign in.
#[derive(Debug, Object)]
#[oai(example)]
pub struct Profile {
    /// Assigned by the server.
    pub id: Uuid,
    /// What somebody is called.
    pub name: String,
    /// As it was entered, without the spaces around it.
    pub email: String,
    /// What somebody is to the service.
    pub role: Role,
    /// When it was registered, UTC.
    pub created_at: OffsetDateTime,
}

impl From<profiles::Profile> for Profile {
    fn from(stored: profiles::Profile) -> Self {
        Self {
            id: stored.id,
            name: stored.name,
            email: stored.email,
            role: stored.role,
            created_at: stored.created_at,
        }
    }
}

/// A profile to be.
#[derive(Debug, Object)]
#[oai(deny_unknown_fields, example)]
pub struct Register {
    /// What somebody is called: 1 to 200 characters.
    #[oai(validator(min_length = 1, max_length = 200))]
    pub name: Text,
    /// An e-mail address in ASCII; two that differ only in case are the same.
    pub email: EmailText,
    /// Any 12 to 128 characters: length is what makes it hard to guess.
    #[oai(validator(min_length = 12, max_length = 128))]
    pub password: SecretText,
}

/// What a profile signs in with.
#[derive(Debug, Object)]
#[oai(deny_unknown_fields, example)]
pub struct Credentials {
    /// The profile's e-mail address.
    pub email: EmailText,
    /// Its password.
    #[oai(validator(min_length = 1, max_length = 128))]
    pub password: SecretText,
}

/// A session that has just begun.
#[derive(Debug, Object)]
#[oai(example)]
pub struct LoggedIn {
    /// The profile's id.
    pub id: Uuid,
    /// What somebody is called.
    pub name: String,
    /// The profile's e-mail address.
    pub email: String,
    /// What somebody is to the service.
    pub role: Role,
    /// Send it as `Authorization: Bearer <token>`. It is shown this once.
    pub token: SecretText,
    /// When the token ends however much it is used, UTC.
    pub expires_at: OffsetDateTime,
}

/// The token that takes the former one's place.
#[derive(Debug, Object)]
#[oai(example)]
pub struct NewToken {
    /// Send it as `Authorization: Bearer <token>`. It is shown this once; the former one is not good any more.
    pub token: SecretText,
    /// When the token ends however much it is used, UTC.
    pub expires_at: OffsetDateTime,
}

/// One of the caller's sessions.
#[derive(Debug, Object)]
#[oai(rename = "Session", example)]
pub struct OwnSession {
    /// Assigned when it began; a refresh keeps it.
    pub id: Uuid,
    /// When its owner signed in, UTC.
    pub created_at: OffsetDateTime,
    /// When it was last used, UTC, to the minute.
    pub last_used_at: OffsetDateTime,
    /// When it ends however much it is used, UTC.
    pub expires_at: OffsetDateTime,
    /// What the client called itself, its first 200 characters; null: nothing.
    pub user_agent: Option<String>,
    /// Whether it is the session of this request.
    pub current: bool,
}

const BEGUN: OffsetDateTime = datetime!(2026-11-21 08:30:00 UTC);
const ENDS: OffsetDateTime = datetime!(2026-12-21 08:30:00 UTC);
const TOKEN: &str = "db_bm90IGEgdG9rZW4sIGp1c3QgYW4gZXhhbXBsZSBvZiBvbmU";

impl Example for Profile {
    fn example() -> Self {
        Self {
            id: EXAMPLE_ID,
            name: "Ada Lovelace".to_owned(),
            email: Email::example().as_str().to_owned(),
            role: Role::Student,
            created_at: BEGUN,
        }
    }
}

impl Example for Register {
    fn example() -> Self {
        Self {
            name: Text("Ada Lovelace".to_owned()),
            email: EmailText(Email::example()),
            password: SecretText::from(&Secret::new("twelve or more characters")),
        }
    }
}

impl Example for Credentials {
    fn example() -> Self {
        Self {
            email: EmailText(Email::example()),
            password: SecretText::from(&Secret::new("twelve or more characters")),
        }
    }
}

impl Example for LoggedIn {
    fn example() -> Self {
        let profile = Profile::example();
        let NewToken { token, expires_at } = NewToken::example();
        Self {
            id: profile.id,
            name: profile.name,
            email: profile.email,
            role: profile.role,
            token,
            expires_at,
        }
    }
}

impl Example for NewToken {
    fn example() -> Self {
        Self {
            token: SecretText::from(&Secret::new(TOKEN)),
            expires_at: ENDS,
        }
    }
}

impl Example for OwnSession {
    fn example() -> Self {
        Self {
            id: EXAMPLE_ID,
            created_at: BEGUN,
            last_used_at: BEGUN,
            expires_at: ENDS,
            user_agent: Some("curl/8.5.0".to_owned()),
            current: true,
        }
    }
}
