//! What somebody is to the service.

use std::{fmt, str::FromStr};

use diesel::{
    deserialize::{self, FromSql, FromSqlRow},
    expression::AsExpression,
    pg::{Pg, PgValue},
    serialize::{self, Output, ToSql},
    sql_types::Text,
};

/// What somebody is to the service.
// One list for all three spellings: JSON's, SQL's and the command line's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, AsExpression, FromSqlRow, poem_openapi::Enum)]
#[diesel(sql_type = Text)]
#[oai(rename_all = "lowercase")]
pub enum Role {
    /// Prepares for work; what everybody begins as.
    Student,
    /// Has left, and helps.
    Alumni,
    /// May do everything.
    Admin,
}

impl Role {
    const ALL: [Self; 3] = [Self::Student, Self::Alumni, Self::Admin];

    /// `student`, `alumni` or `admin`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Student => "student",
            Self::Alumni => "alumni",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// There is no such role.
#[derive(Debug, thiserror::Error)]
#[error("there is no such role; the roles are student, alumni and admin")]
pub struct UnknownRole;

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        let mut all = Self::ALL.into_iter();
        all.find(|role| role.as_str() == text).ok_or(UnknownRole)
    }
}

impl FromSql<Text, Pg> for Role {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        let text = <String as FromSql<Text, Pg>>::from_sql(value)?;
        Ok(text.parse()?)
    }
}

impl ToSql<Text, Pg> for Role {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        <str as ToSql<Text, Pg>>::to_sql(self.as_str(), out)
    }
}
