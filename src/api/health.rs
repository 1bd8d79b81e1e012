//! `/health` and `/ready`: is the process alive, and should it get requests?

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use poem::{Result, http::StatusCode, web::Data};
use poem_openapi::{ApiResponse, Object, OpenApi, payload::Json, types::Example};

use super::{
    problem::{Problem, RETRY_AFTER_SECONDS},
    tags::Tag,
};
use crate::db::{Database, DbError};
use crate::error_chain::chain;

/// Below the 5 s a load balancer's health check waits by default.
const READY_LIMIT: Duration = Duration::from_secs(2);

/// Whether the process has been asked to end. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle(Arc<AtomicBool>);

impl Lifecycle {
    /// From now on `/ready` answers 503.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Release);
    }
    /// Whether [`Self::stop`] was called.
    pub fn is_stopping(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The state of the service.
#[derive(Debug, Object)]
#[oai(example)]
struct Status {
    /// `healthy` or `ready`.
    status: String,
}

impl Example for Status {
    fn example() -> Self {
        Self {
            status: "ready".to_owned(),
        }
    }
}

#[derive(ApiResponse)]
enum CheckHealth {
    /// The process is alive.
    #[oai(status = 200)]
    Healthy(Json<Status>),
}

#[derive(ApiResponse)]
enum CheckReadiness {
    /// The database answers; send requests.
    #[oai(status = 200)]
    Ready(Json<Status>),
    /// The database does not answer, its schema is not in place yet, or the server is about to stop.
    #[oai(status = 503, content_type = "application/problem+json")]
    NotReady(Json<Problem>, #[oai(header = "Retry-After")] String),
}

pub struct HealthApi;

#[OpenApi(tag = "Tag::Service")]
impl HealthApi {
    /// Is the process alive?
    ///
    /// Never asks the database: restarting this server does not cure a database.
    #[oai(path = "/health", method = "get", operation_id = "check_health")]
    async fn check_health(&self) -> CheckHealth {
        CheckHealth::Healthy(Json(Status {
            status: "healthy".to_owned(),
        }))
    }

    /// Should this server get requests?
    ///
    /// Asks the database, for two seconds at most.
    #[oai(path = "/ready", method = "get", operation_id = "check_readiness")]
    async fn check_readiness(
        &self,
        database: Data<&Database>,
        lifecycle: Data<&Lifecycle>,
    ) -> Result<CheckReadiness> {
        let detail = if lifecycle.is_stopping() {
            "The server is about to stop."
        } else {
            match database.check(READY_LIMIT).await {
                Ok(()) => {
                    return Ok(CheckReadiness::Ready(Json(Status {
                        status: "ready".to_owned(),
                    })));
                }
                Err(error) => {
                    // The migration logs by itself what it waits for.
                    if !matches!(error, DbError::NotMigrated) {
                        tracing::warn!("not ready: {}", chain(&error));
                    }
                    "The database cannot be used at the moment."
                }
            }
        };
        Ok(CheckReadiness::NotReady(
            Json(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)),
            RETRY_AFTER_SECONDS.to_owned(),
        ))
    }
}
