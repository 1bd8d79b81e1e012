//! The API through the real server and a real Postgres, and `drawbridge dev`.

mod browser;
mod cache;
mod configuration;
mod contract;
mod database;
mod dev;
mod document;
mod faults;
mod health;
mod items;
mod lifecycle;
mod problems;
