//! The way in, against real sshds: one plays the bastion, one the private host behind it.

mod network;
mod openssh;
mod rotate;
mod rules;
mod session;
mod shell;
pub mod sshd;
