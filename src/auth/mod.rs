//! Who somebody is: passwords, tokens, roles, and how often one may try. No HTTP; the queries are in [`crate::db`].

mod accounts;
mod email;
mod password;
mod role;
mod set_role;
mod throttle;
mod token;

pub use accounts::{Accounts, AuthError, Login, Registration};
pub use email::{Email, EmailError};
pub use role::{Role, UnknownRole};
pub use set_role::{SetRoleError, set_role};
pub use token::{Token, TokenHash};
