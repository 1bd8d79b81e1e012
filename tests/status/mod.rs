//! `drawbridge status`, `drawbridge doctor` and `drawbridge-host status` as programs: real sshds, stand-ins for AWS and
//! terraform, and a real Postgres.

mod doctor;
mod host;
mod operator;
mod stage;
