//! Drawbridge.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod appliance;
pub mod flows;

#[cfg(feature = "host")]
pub mod api;
#[cfg(feature = "host")]
pub mod config;
#[cfg(feature = "host")]
pub mod db;
#[cfg(feature = "host")]
pub mod host;
#[cfg(feature = "host")]
pub mod serve;
#[cfg(feature = "host")]
pub mod telemetry;

#[cfg(feature = "operator")]
pub mod bastion;
#[cfg(feature = "operator")]
pub mod cloud;
#[cfg(feature = "operator")]
pub mod command;
#[cfg(feature = "operator")]
pub mod dev;
#[cfg(feature = "operator")]
pub mod exit;
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
pub mod terraform;
