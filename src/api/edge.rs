//! What every request passes on its way in and every answer on its way out: id, limits, problem bodies, access log.

use std::{sync::Arc, time::Duration};

use poem::{
    Body, Endpoint, IntoResponse, Middleware, Request, Response, Result,
    error::ReadBodyError,
    http::{HeaderValue, StatusCode, header},
};
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument, Level, event, info_span};

use super::{
    problem::{self, Failure, Problem},
    request_id,
    routes::Routes,
};
use crate::{config::HttpSettings, metrics::Metrics};

/// The pattern of a path that belongs to no route, in the log and the metrics.
const NOWHERE: &str = "(none)";

/// The outermost middleware.
pub struct Edge {
    limits: Limits,
    metrics: Metrics,
    routes: Routes,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    request_timeout: Duration,
    body_limit_bytes: usize,
}

impl Edge {
    /// With the limits of `settings`; `routes` names the patterns and methods there are.
    pub fn new(settings: &HttpSettings, routes: Routes, metrics: Metrics) -> Self {
        Self {
            limits: Limits {
                request_timeout: settings.request_timeout(),
                body_limit_bytes: settings.body_limit_bytes,
            },
            metrics,
            routes,
        }
    }
}

impl<E: Endpoint> Middleware<E> for Edge {
    type Output = Guarded<E>;
    fn transform(&self, inner: E) -> Self::Output {
        Guarded {
            inner,
            limits: self.limits,
            metrics: self.metrics.clone(),
            nowhere: NOWHERE.into(),
            routes: self.routes.clone(),
        }
    }
}

/// An endpoint behind the [`Edge`]; it always answers.
pub struct Guarded<E> {
    inner: E,
    limits: Limits,
    metrics: Metrics,
    nowhere: Arc<str>,
    routes: Routes,
}

impl<E: Endpoint> Endpoint for Guarded<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> Result<Response> {
        let id = request_id::of(&request);
        let span = info_span!("request", request_id = %id);
        let answered = request_id::scope(id.clone(), self.answer(request)).instrument(span);
        let mut response = answered.await;
        let headers = response.headers_mut();
        if let Ok(id) = HeaderValue::from_str(&id) {
            headers.insert(request_id::HEADER, id);
        }
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        Ok(response)
    }
}

impl<E: Endpoint> Guarded<E> {
    async fn answer(&self, request: Request) -> Response {
        let started = Instant::now();
        let _in_flight = self.metrics.request();
        let method = request.method().clone();
        let route = self.routes.find(request.uri().path());
        // Neither path nor query: they can hold what does not belong in a log.
        let pattern = route.map_or(&self.nowhere, |route| &route.pattern);
        let mut response = match self
            .handle(request, pattern, started + self.limits.request_timeout)
            .await
        {
            Ok(response) => response,
            Err(problem) => problem.into_response(),
        };
        let status = response.status();
        // The net under everything that answers an error in its own words.
        if (status.is_client_error() || status.is_server_error())
            && response
                .content_type()
                .is_none_or(|kind| kind != problem::CONTENT_TYPE)
        {
            response = Problem::of_status(status).into_response();
        }
        if status == StatusCode::METHOD_NOT_ALLOWED
            && let Some(allow) = route.and_then(|route| HeaderValue::from_str(&route.allow).ok())
        {
            response.headers_mut().insert(header::ALLOW, allow);
        }
        let elapsed = started.elapsed();
        self.metrics.observe(pattern, &method, status, elapsed);
        let route = &**pattern;
        let (status, duration_ms) = (status.as_u16(), elapsed.as_secs_f64() * 1e3);
        let duration_ms = (duration_ms * 1e3).round() / 1e3;
        macro_rules! log {
            ($level:expr) => {
                event!(
                    target: "drawbridge::access", $level,
                    method = method.as_str(), route, status, duration_ms,
                    "{method} {route} {status}"
                )
            };
        }
        // Load balancers ask these every few seconds, for ever; why it is not ready is logged where it is found out.
        if matches!(route, "/health" | "/ready") {
            log!(Level::DEBUG);
        } else {
            log!(Level::INFO);
        }
        response
    }

    async fn handle(
        &self,
        mut request: Request,
        pattern: &str,
        deadline: Instant,
    ) -> Result<Response, Problem> {
        let limit = self.limits.body_limit_bytes;
        let announced = request
            .header(header::CONTENT_LENGTH)
            .and_then(|length| length.parse::<u64>().ok());
        if announced.is_some_and(|length| length > limit as u64) {
            return Err(Problem::of_status(StatusCode::PAYLOAD_TOO_LARGE));
        }
        let body = match timeout_at(deadline, request.take_body().into_bytes_limit(limit)).await {
            Ok(Ok(body)) => body,
            Ok(Err(ReadBodyError::PayloadTooLarge)) => {
                return Err(Problem::of_status(StatusCode::PAYLOAD_TOO_LARGE));
            }
            Ok(Err(_)) => {
                return Err(Problem::new(
                    StatusCode::BAD_REQUEST,
                    "The request's body broke off.",
                ));
            }
            Err(_) => return Err(Problem::of_status(StatusCode::REQUEST_TIMEOUT)),
        };
        request.set_body(Body::from_bytes(body));
        match timeout_at(deadline, self.inner.call(request)).await {
            Ok(Ok(response)) => Ok(response.into_response()),
            Ok(Err(error)) if error.is_from_response() => Ok(error.into_response()),
            Ok(Err(error)) => {
                if error.status().is_server_error() && !error.is::<Failure>() {
                    tracing::error!("no answer: {error}");
                }
                Err(Problem::of_error(&error, pattern))
            }
            Err(_) => {
                tracing::warn!(
                    "the request was given up after {:?}",
                    self.limits.request_timeout
                );
                Err(Problem::of_status(StatusCode::GATEWAY_TIMEOUT))
            }
        }
    }
}

#[cfg(test)]
mod tests;
