//! What every request passes on its way in and every answer on its way out: id, limits, problem bodies, access log.

use std::{sync::Arc, time::Duration};

use poem::{
    Body, Endpoint, IntoResponse, Middleware, Request, Response, Result,
    error::ReadBodyError,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
};
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument, Level, event, info_span};

use super::{
    client_address::{ClientAddress, IsHttps},
    cors::{self, Cors},
    fields::{Operation, Parts},
    problem::{self, Failure, Problem},
    request_id,
    routes::Routes,
};
use crate::{config::HttpSettings, metrics::Metrics};

/// The pattern of a path that belongs to no route, in the log and the metrics.
const NOWHERE: &str = "(none)";

/// The outermost middleware.
pub struct Edge {
    cors: Cors,
    limits: Limits,
    metrics: Metrics,
    routes: Routes,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    request_timeout: Duration,
    body_limit_bytes: usize,
    trusted_proxies: usize,
}

impl Edge {
    /// With the limits of `settings`; `routes` names the patterns and methods there are.
    pub fn new(settings: &HttpSettings, routes: Routes, metrics: Metrics) -> Self {
        Self {
            cors: Cors::new(&settings.cors_origins),
            limits: Limits {
                request_timeout: settings.request_timeout(),
                body_limit_bytes: settings.body_limit_bytes,
                trusted_proxies: settings.trusted_proxies,
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
            cors: self.cors.clone(),
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
    cors: Cors,
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
        let allowed = self.cors.allowed(&request);
        let is_preflight = allowed.is_some() && cors::is_preflight(&request);
        let answer = self.answer(request, is_preflight);
        let mut response = request_id::scope(id.clone(), answer).instrument(span).await;
        // Here and not further in: a page may read errors too, whoever answers them.
        self.cors.mark(allowed, &mut response);
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
    async fn answer(&self, mut request: Request, is_preflight: bool) -> Response {
        let started = Instant::now();
        let _in_flight = self.metrics.request();
        let method = request.method().clone();
        let client = ClientAddress::of(&request, self.limits.trusted_proxies);
        let is_https = IsHttps::of(&request, self.limits.trusted_proxies);
        request.extensions_mut().insert(client);
        request.extensions_mut().insert(is_https);
        let route = self.routes.find(request.uri().path());
        // Neither path nor query: they can hold what does not belong in a log.
        let pattern = route.map_or(&self.nowhere, |route| &route.pattern);
        let operation = route.and_then(|route| self.routes.operation(route, &method));
        let deadline = started + self.limits.request_timeout;
        let mut response = match route {
            Some(route) if is_preflight => cors::preflight(&route.allow),
            _ => match self.handle(request, operation, deadline).await {
                Ok(response) => response,
                Err(problem) => problem.into_response(),
            },
        };
        let status = response.status();
        // The net under everything that answers an error in its own words. A page may: a browser's user reads it.
        if (status.is_client_error() || status.is_server_error())
            && response
                .content_type()
                .is_none_or(|kind| kind != problem::CONTENT_TYPE && !kind.starts_with("text/html"))
        {
            response = Problem::of_status(status).into_response();
        }
        if status == StatusCode::METHOD_NOT_ALLOWED
            && let Some(allow) = route.and_then(|route| HeaderValue::from_str(&route.allow).ok())
        {
            response.headers_mut().insert(header::ALLOW, allow);
        }
        // Tokens, and what belongs to one person: nobody on the way may keep it.
        if pattern.starts_with("/auth/") {
            let no_store = HeaderValue::from_static("no-store");
            response
                .headers_mut()
                .insert(header::CACHE_CONTROL, no_store);
        }
        let seen = Seen {
            method: &method,
            pattern,
            status,
            elapsed: started.elapsed(),
            client,
        };
        seen.count(&self.metrics);
        seen.log();
        response
    }

    async fn handle(
        &self,
        mut request: Request,
        operation: Option<Operation<'_>>,
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
        let parts = Parts {
            uri: request.uri().clone(),
            headers: operation.map_or_else(HeaderMap::new, |operation| {
                operation.given_headers(request.headers())
            }),
            body: body.clone(),
        };
        request.set_body(Body::from_bytes(body));
        match timeout_at(deadline, self.inner.call(request)).await {
            Ok(Ok(response)) => Ok(response.into_response()),
            Ok(Err(error)) if error.is_from_response() => Ok(error.into_response()),
            Ok(Err(error)) => {
                if error.status().is_server_error() && !error.is::<Failure>() {
                    tracing::error!("no answer: {error}");
                }
                Err(Problem::of_error(&error, operation, &parts))
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

/// One request and its answer.
struct Seen<'a> {
    method: &'a Method,
    /// [`NOWHERE`] if there is none.
    pattern: &'a Arc<str>,
    status: StatusCode,
    elapsed: Duration,
    client: ClientAddress,
}

impl Seen<'_> {
    fn count(&self, metrics: &Metrics) {
        metrics.observe(self.pattern, self.method, self.status, self.elapsed);
    }

    fn log(&self) {
        let (method, route) = (self.method, &**self.pattern);
        let (status, client) = (self.status.as_u16(), self.client.0);
        let duration_ms = (self.elapsed.as_secs_f64() * 1e6).round() / 1e3;
        macro_rules! log {
            ($level:expr) => {
                event!(
                    target: "drawbridge::access", $level,
                    method = method.as_str(), route, status, duration_ms, %client,
                    "{method} {route} {status}"
                )
            };
        }
        // Load balancers ask these every few seconds, for ever; why it is not ready is logged where it is found out.
        if is_probe(route) {
            log!(Level::DEBUG);
        } else {
            log!(Level::INFO);
        }
    }
}

/// Whether a load balancer asks this to learn how the server is.
pub fn is_probe(route: &str) -> bool {
    matches!(route, "/health" | "/ready")
}

#[cfg(test)]
mod tests;
