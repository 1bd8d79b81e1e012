//! `drawbridge deploy`: the operator's half over real sshds, and the host's half with a folder for a root and stand-ins for
//! systemd and for a system's own `switch-to-configuration`.

mod activation;
mod copy;
mod stage;
