//! No more requests at once than the server can answer in time: those beyond are refused while that is still cheap.

use std::sync::Arc;

use poem::{Endpoint, Middleware, Request, Response, Result, http::StatusCode};
use tokio::sync::Semaphore;

use super::{edge::is_probe, problem::Problem};
use crate::metrics::Metrics;

/// Marks, among a request's extensions, one whose connection is beyond `http.max_connections`.
#[derive(Debug, Clone, Copy)]
pub struct Crowded;

/// Refuses requests beyond `http.max_requests`, and those of a [`Crowded`] connection, with 503. Not those that ask how
/// the server is: one that is busy is not to be replaced by its load balancer.
pub struct Shed {
    places: Arc<Semaphore>,
    metrics: Metrics,
}

impl Shed {
    /// Of at most `max_requests` at once.
    pub fn new(max_requests: usize, metrics: Metrics) -> Self {
        Self {
            places: Arc::new(Semaphore::new(max_requests)),
            metrics,
        }
    }
}

impl<E: Endpoint<Output = Response>> Middleware<E> for Shed {
    type Output = Shedding<E>;
    fn transform(&self, inner: E) -> Self::Output {
        Shedding {
            inner,
            places: self.places.clone(),
            metrics: self.metrics.clone(),
        }
    }
}

/// An endpoint that is spared.
pub struct Shedding<E> {
    inner: E,
    places: Arc<Semaphore>,
    metrics: Metrics,
}

impl<E: Endpoint<Output = Response>> Endpoint for Shedding<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> Result<Response> {
        if is_probe(request.uri().path()) {
            return self.inner.call(request).await;
        }
        let detail = if request.extensions().get::<Crowded>().is_some() {
            "The server has as many connections as it can take; try again shortly."
        } else if let Ok(_place) = self.places.try_acquire() {
            return self.inner.call(request).await;
        } else {
            "The server has as many requests as it can take; try again shortly."
        };
        self.metrics.shed();
        Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into())
    }
}
