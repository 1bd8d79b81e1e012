//! First boot against real things: Postgres, ext4 on a loop device, systemd-creds, ssh-keygen, and moto's SSM.

mod backend;
mod database;
mod imds;
mod kill;
mod metadata;
mod outage;
mod rotation;
mod secrets;
mod world;
