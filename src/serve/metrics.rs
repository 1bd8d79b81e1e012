//! The listener of its own for `/metrics`: what the server counts is nobody's business who comes through the load
//! balancer.

use std::{io, net::SocketAddr};

use poem::{Route, Server, get, listener::TcpAcceptor};
use tokio::{net::TcpListener, task::JoinHandle};
use tracing::info;

use super::ServeError;
use crate::{api, metrics::Metrics};

/// Serves until it is dropped.
pub struct MetricsServer(JoinHandle<io::Result<()>>);

impl MetricsServer {
    /// Listens on `address` (`metrics.listen`) and serves from now on.
    ///
    /// # Errors
    /// [`ServeError::Listen`], [`ServeError::System`].
    pub async fn start(address: SocketAddr, metrics: Metrics) -> Result<Self, ServeError> {
        let listener = super::listen("metrics.listen", address).await?;
        Self::run(listener, metrics).map_err(|source| ServeError::System {
            doing: "cannot accept connections for /metrics",
            source,
        })
    }

    fn run(listener: TcpListener, metrics: Metrics) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let acceptor = TcpAcceptor::from_tokio(listener)?;
        let app = Route::new().at(api::METRICS_PATH, get(api::metrics_page(metrics)));
        info!(metrics.address = %address, "metrics on http://{address}{}", api::METRICS_PATH);
        let server = Server::new_with_acceptor(acceptor);
        Ok(Self(tokio::spawn(server.run(app))))
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.0.abort();
    }
}
