//! Drawbridge: a Rust API and its Postgres on EC2, behind a NAT gateway that stands only while they bootstrap.
//!
//! [`appliance`] and [`flows`] are what hosts and operator agree on. The feature `host` holds what runs on the
//! instances, first of all [`host`] (first boot) and [`api`]; the feature `operator` what runs on the operator's
//! machine: [`up`] (all of it), [`nat`] (the window), [`image`] (what the hosts start from), [`audit`] (what is left over), [`cost`],
//! [`bastion`] (the way in), [`rehearsal`] (all of it on one machine). ARCHITECTURE.md says why it is so, and has the map.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod appliance;
#[cfg(any(feature = "host", feature = "operator"))]
mod error_chain;
pub mod flows;
#[cfg(test)]
mod readme;

#[cfg(feature = "host")]
pub mod api;
#[cfg(feature = "host")]
pub mod auth;
#[cfg(feature = "host")]
pub mod cache;
#[cfg(feature = "host")]
pub mod config;
#[cfg(feature = "host")]
pub mod db;
#[cfg(feature = "host")]
pub mod host;
#[cfg(feature = "host")]
pub mod metrics;
#[cfg(feature = "host")]
pub mod serve;
#[cfg(feature = "host")]
pub mod telemetry;
#[cfg(feature = "host")]
pub mod version;

#[cfg(feature = "operator")]
pub mod audit;
#[cfg(feature = "operator")]
pub mod bastion;
#[cfg(feature = "operator")]
pub mod closure;
#[cfg(feature = "operator")]
pub mod cloud;
#[cfg(feature = "operator")]
pub mod command;
#[cfg(feature = "operator")]
pub mod cost;
#[cfg(feature = "operator")]
pub mod dev;
#[cfg(feature = "operator")]
pub mod doctor;
#[cfg(feature = "operator")]
pub mod exit;
#[cfg(feature = "operator")]
pub mod image;
#[cfg(feature = "operator")]
pub mod interrupt;
#[cfg(feature = "operator")]
pub mod nat;
#[cfg(feature = "operator")]
pub mod postgres;
#[cfg(feature = "operator")]
pub mod progress;
#[cfg(all(feature = "operator", target_os = "linux"))]
pub mod rehearsal;
#[cfg(feature = "operator")]
pub mod status;
#[cfg(feature = "operator")]
pub mod terraform;
#[cfg(feature = "operator")]
mod trust;
#[cfg(feature = "operator")]
pub mod up;
