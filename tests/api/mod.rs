//! The API through the real server and a real Postgres, and `drawbridge dev`.

mod accounts;
mod browser;
mod cache;
mod configuration;
mod contract;
mod cors;
mod database;
mod dev;
mod document;
mod failover;
mod faults;
mod health;
mod items;
mod items_changes;
mod items_once;
mod items_pages;
mod items_search;
mod lifecycle;
mod limits;
mod metrics;
mod migrations;
mod poisoned;
mod problems;
mod replica;
mod sessions;
mod throttle;
