//! `drawbridge nat` as a program, against stand-ins for terraform, `aws` and SSM: refusals, interruptions, exit statuses.
//! The real terraform, emulator and hosts are the rehearsal's.

mod close;
mod open;
mod refusals;
mod stage;
mod status;
