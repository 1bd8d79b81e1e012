//! `drawbridge nat` as a program: refusals, findings, interruptions and exit statuses against stand-ins for terraform, `aws`
//! and AWS itself ([`stage`]); sudden ends in the middle of an apply with the real terraform and the emulator
//! ([`interrupted`]). And `drawbridge up` against the same stand-ins ([`up`]).

mod close;
mod interrupted;
mod open;
mod refusals;
mod stage;
mod status;
mod up;
