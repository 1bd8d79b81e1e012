//! Another system on a host that runs: `drawbridge deploy`. The host's half is `drawbridge-host system`.
//!
//! [`source`] finds the system, [`remote`] asks the host, [`copy`] sends what it lacks and [`activate`] sees the new system
//! at work before it confirms it.

pub mod activate;
pub mod copy;
pub mod pack;
pub mod path_info;
pub mod remote;
pub mod source;
