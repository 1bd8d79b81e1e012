//! The way in, against real sshds: one plays the bastion, one the private host behind it.

mod exec;
mod identities;
mod logs;
mod network;
mod openssh;
mod pins;
mod psql;
mod rotate;
mod rules;
mod session;
mod shell;
pub mod sshd;
mod tunnel;
