//! First boot against real things: Postgres, ext4 on a loop device, systemd-creds, ssh-keygen, and moto's SSM.

mod imds;
mod metadata;
mod outage;
mod rotation;
mod scenarios;
mod world;
