//! Stands for the load balancer of an emulated deployment, which answers nobody.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;

use super::free_port;

/// A server that answers 200 to everything until the test ends; its base address.
pub fn always_ready() -> String {
    let port = free_port();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a port");
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // An error is a client that went away.
            drop(answer(client));
        }
    });
    format!("http://127.0.0.1:{port}")
}

fn answer(mut client: TcpStream) -> std::io::Result<()> {
    for line in BufReader::new(&client).lines() {
        if line?.is_empty() {
            break;
        }
    }
    client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}
