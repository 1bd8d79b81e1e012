//! What the server counts, for Prometheus to read: requests by route, the pool, the cache, logins, the process.
//!
//! Every name and label is said here. No label ever takes a value that a client chooses: a route is its pattern, a
//! method nobody serves is `_OTHER`.

mod process;

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use poem::http::{Method, StatusCode};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// The media type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds, seconds: those OpenTelemetry advises for `http.server.request.duration`, less its 0.075, 0.75 and 7.5,
/// and three below them, because a read from the cache or by key takes less than 5 ms. 10 s is the default of
/// `http.request_timeout_seconds`.
/// <https://opentelemetry.io/docs/specs/semconv/http/http-metrics/#metric-httpserverrequestduration>
const SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// What OpenTelemetry calls a method that is not one of HTTP's own.
const OTHER_METHOD: &str = "_OTHER";

/// How an attempt to log in ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Login {
    /// A session was made.
    Success,
    /// No such account, or not its password: the two are not told apart here either.
    Refused,
    /// Too many attempts; the password was not looked at.
    Throttled,
}

impl Login {
    fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Refused => "refused",
            Self::Throttled => "throttled",
        }
    }
}

/// How a read that may be answered from the cache was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheUse {
    /// From the cache.
    Hit,
    /// From the database, and kept.
    Miss,
    /// From the database: the cache is off or cannot be used.
    Bypass,
}

impl CacheUse {
    /// `hit`, `miss` or `bypass`, as in `X-Cache`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Bypass => "bypass",
        }
    }
}

/// The connections of a pool at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolConnections {
    /// Open and free.
    pub idle: u32,
    /// Open and in a request's hands.
    pub busy: u32,
}

/// Everything that is counted. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    requests: Family<Request, Counter>,
    durations: Family<Route, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    shed: Counter,
    connections: Gauge,
    pool: Family<State, Gauge>,
    pool_wait: Histogram,
    replica_lag: Family<NoLabels, Gauge>,
    cache: Family<Outcome, Counter>,
    logins: Family<Outcome, Counter>,
    look_at_pool: OnceLock<LookAtPool>,
}

struct LookAtPool(Box<dyn Fn() -> PoolConnections + Send + Sync>);

impl fmt::Debug for LookAtPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LookAtPool")
    }
}

type NoLabels = [(&'static str, &'static str); 0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    method: &'static str,
    route: Arc<str>,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    method: &'static str,
    route: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// One more of something for as long as this value lives.
#[derive(Debug)]
pub struct Held(Gauge);

impl Held {
    fn one_of(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Nothing counted yet; the process counts as begun now.
    pub fn new() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(SECONDS);
        let mut inner = Inner {
            registry: Registry::default(),
            requests: Family::default(),
            durations: Family::new_with_constructor(histogram),
            in_flight: Gauge::default(),
            shed: Counter::default(),
            connections: Gauge::default(),
            pool: Family::default(),
            pool_wait: histogram(),
            replica_lag: Family::default(),
            cache: Family::default(),
            logins: Family::default(),
            look_at_pool: OnceLock::new(),
        };
        inner.register();
        // A counter that is there from the start shows its first increment as one.
        for outcome in [CacheUse::Hit, CacheUse::Miss, CacheUse::Bypass] {
            let outcome = outcome.as_str();
            drop(inner.cache.get_or_create(&Outcome { outcome }));
        }
        for outcome in [Login::Success, Login::Refused, Login::Throttled] {
            let outcome = outcome.as_str();
            drop(inner.logins.get_or_create(&Outcome { outcome }));
        }
        Self(Arc::new(inner))
    }

    /// A request was answered. `route` is the pattern it belongs to.
    pub fn observe(
        &self,
        route: &Arc<str>,
        method: &Method,
        status: StatusCode,
        elapsed: Duration,
    ) {
        let method = label_of(method);
        let request = Request {
            method,
            route: Arc::clone(route),
            status: status.as_u16(),
        };
        self.0.requests.get_or_create(&request).inc();
        let route = Route {
            method,
            route: request.route,
        };
        let durations = self.0.durations.get_or_create(&route);
        durations.observe(elapsed.as_secs_f64());
    }

    /// A request is being answered until the returned value is dropped.
    pub fn request(&self) -> Held {
        Held::one_of(&self.0.in_flight)
    }

    /// A request was answered 503 because too many were being answered.
    pub fn shed(&self) {
        self.0.shed.inc();
    }

    /// A connection is open until the returned value is dropped.
    pub fn connection(&self) -> Held {
        Held::one_of(&self.0.connections)
    }

    /// A request has waited for a connection of the pool, whether it got one or not.
    pub fn pool_wait(&self, waited: Duration) {
        self.0.pool_wait.observe(waited.as_secs_f64());
    }

    /// From now on `look` says how the pool is whenever somebody wants to know. Only the first one is asked.
    pub fn watch_pool(&self, look: impl Fn() -> PoolConnections + Send + Sync + 'static) {
        // A second pool would be a mistake in `serve`, not something to end a server for.
        let _ = self.0.look_at_pool.set(LookAtPool(Box::new(look)));
    }

    /// How much of what the primary has written the replica has not replayed; `None`: nobody can tell, and the metric is
    /// absent.
    pub fn replica_lag(&self, bytes: Option<u64>) {
        match bytes {
            Some(bytes) => {
                let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
                self.0.replica_lag.get_or_create(&[]).set(bytes);
            }
            None => self.0.replica_lag.clear(),
        }
    }

    /// A read was answered, from the cache or beside it.
    pub fn cache(&self, outcome: CacheUse) {
        let outcome = outcome.as_str();
        self.0.cache.get_or_create(&Outcome { outcome }).inc();
    }

    /// Somebody tried to log in.
    pub fn login(&self, outcome: Login) {
        let outcome = outcome.as_str();
        self.0.logins.get_or_create(&Outcome { outcome }).inc();
    }

    /// All of it as OpenMetrics text, [`CONTENT_TYPE`].
    pub fn text(&self) -> String {
        if let Some(LookAtPool(look)) = self.0.look_at_pool.get() {
            let PoolConnections { idle, busy } = look();
            for (state, count) in [("idle", idle), ("busy", busy)] {
                self.0
                    .pool
                    .get_or_create(&State { state })
                    .set(count.into());
            }
        }
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.0.registry);
        text
    }
}

impl Inner {
    fn register(&mut self) {
        let Self { registry, .. } = self;
        registry.register("http_requests", "Requests answered", self.requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "From a request's head to its answer",
            Unit::Seconds,
            self.durations.clone(),
        );
        registry.register(
            "http_requests_in_flight",
            "Requests being answered",
            self.in_flight.clone(),
        );
        registry.register(
            "http_requests_shed",
            "Requests answered 503 because too many were being answered",
            self.shed.clone(),
        );
        registry.register(
            "http_connections",
            "Client connections open",
            self.connections.clone(),
        );
        registry.register(
            "db_pool_connections",
            "Connections to the database, by what they do",
            self.pool.clone(),
        );
        registry.register_with_unit(
            "db_pool_wait",
            "How long requests waited for a connection to the database",
            Unit::Seconds,
            self.pool_wait.clone(),
        );
        registry.register_with_unit(
            "db_replica_lag",
            "What the replica has not replayed yet; absent where nobody can tell",
            Unit::Bytes,
            self.replica_lag.clone(),
        );
        registry.register(
            "cache_requests",
            "Reads that the cache may answer, by what it did",
            self.cache.clone(),
        );
        registry.register(
            "auth_logins",
            "Attempts to log in, by how they ended",
            self.logins.clone(),
        );
        registry.register_collector(Box::new(process::Process::begun_now()));
    }
}

/// A client may send any token as a method; each would be a series of its own.
fn label_of(method: &Method) -> &'static str {
    const KNOWN: [Method; 9] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
        Method::TRACE,
        Method::CONNECT,
    ];
    const NAMES: [&str; 9] = [
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT",
    ];
    let found = KNOWN.iter().position(|known| known == method);
    found
        .and_then(|index| NAMES.get(index).copied())
        .unwrap_or(OTHER_METHOD)
}

#[cfg(test)]
mod tests;
