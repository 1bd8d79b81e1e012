//! Ports for servers that cannot be told to take any free one.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// The first port this process tries: processes rarely share one, and then the second finds it in use.
const FIRST: u16 = 10_000;
/// Below the kernel's ephemeral range (32768 and up), from which everybody who binds port 0 is served: a port found
/// free there can be somebody else's a moment later.
const LAST: u16 = 30_000;

/// A port of 127.0.0.1 that nobody uses now and that no other call in this process returns.
pub fn free_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let offset = u16::try_from(std::process::id() % 180).unwrap() * 100;
    loop {
        let port = FIRST + offset + TAKEN.fetch_add(1, Ordering::Relaxed);
        assert!(port < LAST, "no free port");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
