//! All integration tests: one crate, so that the dependencies are linked once.
#![allow(missing_docs, clippy::expect_used, clippy::unwrap_used)]

mod api;
mod audit;
mod bastion;
mod bootstrap;
mod cost;
mod deploy;
mod image;
mod nat;
mod rehearsal;
mod runner;
mod status;
mod support;
mod terraform;
mod workflows;
