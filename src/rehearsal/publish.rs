//! The way in from the machine's own browser and terminal: listeners on 127.0.0.1 whose connections come out in the
//! rehearsed internet, where the operator sits.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::net::TcpListener;

use super::namespaces;
use super::network::INTERNET;

/// Connections within one machine; a host that is switched off answers nothing.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A bound port that does not lead anywhere yet.
pub struct Port(std::net::TcpListener);

impl Port {
    /// Takes a port of 127.0.0.1; 0 takes any free one.
    ///
    /// # Errors
    /// If it is taken; the error names the flag that chooses another.
    pub fn take(port: u16, flag: &str) -> Result<Port> {
        match std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(listener) => Ok(Port(listener)),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => bail!(
                "port {port} of 127.0.0.1 is in use: end the program that uses it (`ss -ltnp 'sport = :{port}'` shows \
                 it), or choose another with {flag}"
            ),
            Err(error) => Err(error).with_context(|| format!("cannot listen on 127.0.0.1:{port}")),
        }
    }

    /// Its number.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn number(&self) -> Result<u16> {
        Ok(self
            .0
            .local_addr()
            .context("a listener without an address")?
            .port())
    }

    /// Forwards every connection to `target` from now on. Needs a running tokio runtime.
    ///
    /// # Errors
    /// If the listener cannot be handed to the runtime.
    pub fn lead_to(self, target: SocketAddr) -> Result<()> {
        self.0
            .set_nonblocking(true)
            .context("cannot set up a listener")?;
        let listener = TcpListener::from_std(self.0).context("cannot set up a listener")?;
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((inward, _)) => {
                        tokio::spawn(forward(inward, target));
                    }
                    // Out of file descriptors: the next connection may find one.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        });
        Ok(())
    }
}

async fn forward(mut inward: tokio::net::TcpStream, target: SocketAddr) {
    // A socket belongs to the namespace of the thread that makes it, so a thread that has entered makes it.
    let connected = tokio::task::spawn_blocking(move || {
        namespaces::inside(INTERNET, || {
            TcpStream::connect_timeout(&target, CONNECT_LIMIT)
        })
    })
    .await;
    // Whoever connected sees the connection close: as much as a load balancer that is down would say.
    let Ok(Ok(Ok(outward))) = connected else {
        return;
    };
    if outward.set_nonblocking(true).is_err() {
        return;
    }
    if let Ok(mut outward) = tokio::net::TcpStream::from_std(outward) {
        let _ = tokio::io::copy_bidirectional(&mut inward, &mut outward).await;
    }
}
