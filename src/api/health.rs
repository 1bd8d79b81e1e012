//! `/health` and `/ready`: is the process alive, and should it get requests?

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use poem::{Result, http::StatusCode, web::Data};
use poem_openapi::{ApiResponse, Enum, Object, OpenApi, payload::Json, types::Example};

use super::{
    problem::{Problem, RETRY_AFTER_SECONDS},
    tags::Tag,
};
use crate::cache::Cache;
use crate::db::{Database, DbError, Standing};
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
    /// `healthy`.
    status: String,
}

impl Example for Status {
    fn example() -> Self {
        Self {
            status: "healthy".to_owned(),
        }
    }
}

/// How well requests can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "lowercase")]
enum Quality {
    /// As they should.
    Ready,
    /// Rightly, but with more work: a part that helps is missing.
    Degraded,
}

/// How something is that the service works with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "lowercase")]
enum Part {
    /// In use.
    Ok,
    /// Cannot be used; the service does without.
    Gone,
    /// Too old to be read from at the moment.
    Behind,
    /// Not part of this deployment.
    None,
}

/// The state of the service and of what it works with.
#[derive(Debug, Object)]
#[oai(example)]
struct Readiness {
    /// Whether anything is missing.
    status: Quality,
    /// The database that accepts writes.
    primary: Part,
    /// The database's replica, for reads.
    replica: Part,
    /// The Valkey that several servers share.
    cache: Part,
}

impl Readiness {
    fn new(replica: Part, cache: Part) -> Self {
        let is_whole = [replica, cache]
            .iter()
            .all(|part| matches!(part, Part::Ok | Part::None));
        Self {
            status: if is_whole {
                Quality::Ready
            } else {
                Quality::Degraded
            },
            primary: Part::Ok,
            replica,
            cache,
        }
    }
}

impl Example for Readiness {
    fn example() -> Self {
        Self::new(Part::Ok, Part::Ok)
    }
}

impl From<Option<Standing>> for Part {
    fn from(replica: Option<Standing>) -> Self {
        match replica {
            None => Self::None,
            Some(Standing::Follows) => Self::Ok,
            Some(Standing::Behind) => Self::Behind,
            Some(Standing::Gone) => Self::Gone,
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
    /// The database answers; send requests, also when something is missing.
    #[oai(status = 200)]
    Ready(Json<Readiness>),
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
        cache: Data<&Cache>,
        lifecycle: Data<&Lifecycle>,
    ) -> Result<CheckReadiness> {
        let detail = if lifecycle.is_stopping() {
            "The server is about to stop."
        } else {
            match database.check(READY_LIMIT).await {
                Ok(()) => {
                    let replica = database.replica().into();
                    let cache = match cache.is_up() {
                        None => Part::None,
                        Some(true) => Part::Ok,
                        Some(false) => Part::Gone,
                    };
                    let readiness = Readiness::new(replica, cache);
                    return Ok(CheckReadiness::Ready(Json(readiness)));
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
