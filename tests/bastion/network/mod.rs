//! The way in under bad conditions: real sshds in network namespaces, with links that lose, delay and break.

mod breaks;
mod data;
mod stage;
mod volume;
mod weather;
