//! `drawbridge up`: from whatever stands to a deployment that runs, with the window closed.
//!
//! [`decide`] looks at what was seen and touches nothing; [`run`] looks, asks and does. Nothing is remembered between
//! two runs: what was done shows in the position file, in Terraform's state, in the cloud and in the hosts' reports, so a
//! run that ended anywhere is gone on with by the next.

pub mod browser;
pub mod decide;
pub mod run;
