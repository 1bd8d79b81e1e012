//! The way in under bad conditions: real sshds in network namespaces, with links that lose, delay and break.

mod stage;
mod volume;
