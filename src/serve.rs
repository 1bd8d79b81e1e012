//! `drawbridge-host serve` and `migrate`: the server's life from the first bind to the last answer.

mod accept;
mod connection;
mod door;
mod metrics;
mod notify;
mod pace;

use std::{convert::Infallible, io, net::SocketAddr, time::Duration};

use poem::web::LocalAddr;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot, watch},
};
use tracing::info;

use accept::Acceptor;
use connection::Shared;
use door::{Door, passed_listener};
use pace::Limits;

use crate::{
    api::{self, Lifecycle, State},
    auth::Accounts,
    cache::Cache,
    config::{Config, ConfigError},
    db::{ConnectError, Database, migrate, sweep_for_ever},
    metrics::Metrics,
};

/// Between the last connection accepted and the end of those that have nothing to say: a client whose connection was
/// accepted sends its request a moment later, and one that keeps connections learns from its next answer to make a new
/// one. Without it both would find their connection reset.
const LINGER: Duration = Duration::from_millis(300);

/// With a passed listener: how long connections wait for the schema to be looked at before they are answered 503. Below
/// the 5 s of a load balancer's health check.
const HOLD: Duration = Duration::from_secs(3);

/// Why the server did not start, or ended other than by a signal.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Nothing was started.
    #[error(
        "cannot listen on {address} (configuration key {key}): {problem}; stop what listens there, or choose another port"
    )]
    Listen {
        /// The key with the address.
        key: &'static str,
        /// Where to.
        address: SocketAddr,
        /// Why not.
        problem: io::Error,
    },
    /// Nothing was started.
    #[error(
        "LISTEN_FDS is set, but what was passed cannot be listened on: {0}; one stream socket is expected (ListenStream= in the socket unit)"
    )]
    Passed(io::Error),
    /// Nothing was started.
    #[error(transparent)]
    Database(#[from] ConnectError),
    /// Nothing was started.
    #[error(transparent)]
    Cache(#[from] ConfigError),
    /// Requests were answered 503 until now.
    #[error("the database's schema is not in place")]
    Migrate(#[from] migrate::MigrateError),
    /// The operating system failed us.
    #[error("{doing}")]
    System {
        /// What failed.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Serves until SIGTERM or SIGINT, then lets requests under way finish.
///
/// It listens at once, on the socket that systemd passes or else on `http.listen`, and migrates beside that, so that
/// `/health` answers while the database is still away; `/ready` and everything else that needs the database answer 503
/// until the schema is in place.
///
/// # Errors
/// [`ServeError`].
pub async fn serve(config: Config) -> Result<(), ServeError> {
    let metrics = Metrics::new();
    // Until the end: how it ends is worth reading too.
    let _metrics_server = match config.metrics.listen {
        Some(address) => Some(metrics::MetricsServer::start(address, metrics.clone()).await?),
        None => None,
    };
    let (listener, door) = match passed_listener().map_err(ServeError::Passed)? {
        Some(listener) => (listener, Door::Held),
        None => (listen("http.listen", config.http.listen).await?, Door::Open),
    };
    let system = |doing| move |source| ServeError::System { doing, source };
    let address = listener
        .local_addr()
        .map_err(system("cannot read the own address"))?;
    let (door, seen) = watch::channel(door);
    let open = || {
        door.send_if_modified(|door| {
            let is_held = *door == Door::Held;
            if is_held {
                *door = Door::Open;
            }
            is_held
        });
    };
    let mut terminate =
        signal(SignalKind::terminate()).map_err(system("cannot wait for SIGTERM"))?;
    let mut interrupt =
        signal(SignalKind::interrupt()).map_err(system("cannot wait for SIGINT"))?;

    if !config.database.is_unix_socket()
        && config.database.ca_file.is_none()
        && !config.database.hosts().all(is_loopback)
    {
        tracing::warn!(
            "the connection to the database at {} is not encrypted: set database.ca_file",
            config.database.address()
        );
    }
    let database = Database::open(&config.database, metrics.clone())?;
    let lifecycle = Lifecycle::default();
    let accounts = Accounts::new(&config.auth, metrics.clone());
    let idle_hours = accounts.idle_hours();
    let state = State {
        accounts,
        cache: Cache::open(
            &config.cache,
            config.database.statement_timeout(),
            || api::document().to_string(),
            metrics.clone(),
        )?,
        database: database.clone(),
        lifecycle: lifecycle.clone(),
        metrics: metrics.clone(),
    };
    let app = api::app(&config, state);
    let shared = Shared {
        app,
        address: LocalAddr(address.into()),
        lifecycle: lifecycle.clone(),
        limits: Limits::of(&config.http),
    };
    let (asking, asked) = mpsc::channel(1);
    let acceptor = Acceptor::new(
        listener,
        shared,
        config.http.max_connections,
        seen.clone(),
        asked,
        metrics,
    );

    let (report, outcome) = oneshot::channel();
    // A task of its own: a migration blocks the thread it runs on.
    let upkeep = tokio::spawn({
        let settings = config.database.clone();
        async move {
            if let Err(error) = migrate::migrate(&settings).await {
                // The receiver is gone only when the server is, which no longer cares.
                return drop(report.send(error));
            }
            database.mark_migrated();
            drop(report);
            sweep_for_ever(&database, idle_hours).await;
        }
    });

    let mut failure = None;
    let stop = async {
        let failed = async {
            match outcome.await {
                Ok(error) => error,
                // Migrated: nothing more will come.
                Err(_) => {
                    open();
                    std::future::pending().await
                }
            }
        };
        let held = async {
            tokio::time::sleep(HOLD).await;
            open();
            std::future::pending::<Infallible>().await
        };
        let reason = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            never = held => match never {},
            error = failed => {
                failure = Some(error);
                return;
            }
        };
        lifecycle.stop();
        notify::stopping();
        info!(
            reason,
            "stopping on {reason}: not ready any more, requests under way may finish"
        );
        tokio::time::sleep(config.http.shutdown_delay()).await;
        // The receiver is gone only when the server is.
        let _ = door.send(Door::Closed);
        tokio::time::sleep(LINGER).await;
    };
    info!(%address, "listening on http://{address}");
    let informing = tokio::spawn(notify::keep_informed(seen, asking));
    let mut accepting = tokio::spawn(acceptor.run());
    tokio::select! {
        () = stop => {}
        // It ends before it is told to by a panic only, which the panic hook has logged.
        _ = &mut accepting => {
            return Err(system("the server failed")(io::Error::other("the accept loop ended")));
        }
    }
    let _ = door.send(Door::Ending);
    let grace = config.http.shutdown_grace();
    if tokio::time::timeout(grace, &mut accepting).await.is_err() {
        tracing::warn!("cut what had not finished within http.shutdown_grace_seconds");
        accepting.abort();
    }
    informing.abort();
    upkeep.abort();
    if let Some(error) = failure {
        return Err(error.into());
    }
    info!("stopped");
    Ok(())
}

/// Listens on `address`, the value of `key`.
async fn listen(key: &'static str, address: SocketAddr) -> Result<TcpListener, ServeError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|problem| ServeError::Listen {
        key,
        address,
        problem,
    })
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}
