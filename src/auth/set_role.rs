//! How the first admin comes about: by hand, on a machine that may log in to the database.

use super::{Email, Role};
use crate::{
    config::DatabaseSettings,
    db::{ConnectError, Connector, DbError, profiles},
};

/// Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum SetRoleError {
    /// No profile has the address.
    #[error(
        "no profile has the e-mail address {0}; register it first (POST /auth/register), and name it here as it was registered"
    )]
    Unknown(String),
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The statement failed.
    #[error("the role cannot be changed; is the schema in place (drawbridge-host migrate)?")]
    Database(#[from] DbError),
}

/// Makes the profile with this address a `role`, and returns what it was before. Its sessions follow at once.
///
/// # Errors
/// [`SetRoleError`].
pub async fn set_role(
    settings: &DatabaseSettings,
    email: &Email,
    role: Role,
) -> Result<Role, SetRoleError> {
    let connector = Connector::new(settings, Some(settings.statement_timeout()))?;
    let mut connection = connector.connect().await?.into_connection();
    let before = profiles::set_role(&mut connection, email, role).await?;
    before.ok_or_else(|| SetRoleError::Unknown(email.as_str().to_owned()))
}
