//! How the application logs in to the database: one of two roles, and its password.
//!
//! There are two so that a password can be replaced without a moment in which none is valid: the new login works before
//! the old one ends.

use std::fmt;

use serde::Deserialize;

use super::{DATABASE_LOGINS, Secret};

/// One of the two roles of [`DATABASE_LOGINS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginRole {
    /// `drawbridge_a`
    A,
    /// `drawbridge_b`
    B,
}

impl LoginRole {
    /// Both.
    pub const ALL: [LoginRole; 2] = [LoginRole::A, LoginRole::B];

    /// The role's name in Postgres.
    pub fn name(self) -> &'static str {
        match self {
            LoginRole::A => DATABASE_LOGINS[0],
            LoginRole::B => DATABASE_LOGINS[1],
        }
    }

    /// The one whose turn comes after this one's.
    pub fn other(self) -> Self {
        match self {
            LoginRole::A => LoginRole::B,
            LoginRole::B => LoginRole::A,
        }
    }
}

impl fmt::Display for LoginRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What the database host publishes and the backend seals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Whom to log in as.
    pub role: LoginRole,
    /// With what.
    pub password: Secret,
}

/// The text is not a login as the database host writes it. Quotes nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a login: expected JSON {{\"username\":\"{}\" or \"{}\",\"password\":\"…\"}}; run `drawbridge-host bootstrap --again` on the database host",
    DATABASE_LOGINS[0],
    DATABASE_LOGINS[1]
)]
pub struct NotALogin;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    username: String,
    password: String,
}

impl Login {
    /// Reads a published login.
    ///
    /// # Errors
    /// [`NotALogin`].
    pub fn parse(text: &Secret) -> Result<Self, NotALogin> {
        let document: Document = serde_json::from_str(text.expose()).map_err(|_| NotALogin)?;
        let role = LoginRole::ALL
            .into_iter()
            .find(|role| role.name() == document.username)
            .filter(|_| !document.password.is_empty())
            .ok_or(NotALogin)?;
        Ok(Self {
            role,
            password: Secret::new(document.password),
        })
    }

    /// The text to publish.
    pub fn to_secret(&self) -> Secret {
        let (username, password) = (self.role.name(), self.password.expose());
        Secret::new(serde_json::json!({"username": username, "password": password}).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_read_as_it_was_written() {
        for role in LoginRole::ALL {
            let login = Login {
                role,
                password: Secret::new("a \"quoted\" one"),
            };
            let text = login.to_secret();
            assert_eq!(Login::parse(&text), Ok(login));
            assert!(
                text.expose()
                    .starts_with(&format!("{{\"username\":\"{role}\","))
            );
            assert_eq!(role.other().other(), role);
            assert_ne!(role.other(), role);
        }
    }

    #[test]
    fn anything_else_is_no_login_and_is_not_quoted() {
        for text in [
            "sesame",
            "{}",
            r#"{"username":"drawbridge_a"}"#,
            r#"{"username":"drawbridge_a","password":""}"#,
            r#"{"username":"drawbridge","password":"sesame"}"#,
            r#"{"username":"drawbridge_b","password":"sesame","more":1}"#,
        ] {
            let error = Login::parse(&Secret::new(text)).unwrap_err();
            assert!(!error.to_string().contains("sesame"));
        }
    }
}
