//! Finished answers, used again until they are too old or what they show is written.
//!
//! What is never wrong here, in one process: **an answer is used only if it was loaded after the last write of what it
//! shows that was acknowledged before it was asked for.** It holds because
//!
//! 1. each [`Scope`] has a generation, and an answer is filed under its key *and* the generation that was read before its
//!    load began. A load that began before a write can end after it: then its answer lies under a generation nobody asks
//!    for any more, instead of over the new one;
//! 2. a write changes the generation after its commit and before its answer is sent ([`Cache::write`]), also if the
//!    request that wanted it is given up meanwhile;
//! 3. a request reads the generation when it comes, and joins a load under way only under that same generation, so that
//!    no one who has seen a write acknowledged gets the answer of a load that began before it.
//!
//! A change made behind the API's back is seen after `cache.seconds`.

mod generations;
mod local;

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use poem::http::HeaderValue;
use tokio::time::sleep;
use tracing::Instrument as _;
use uuid::Uuid;

use self::local::Local;
use crate::{
    config::CacheSettings,
    db::DbError,
    metrics::{CacheUse, Metrics},
};

/// What is written as one: a row, or all lists of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scope {
    resource: &'static str,
    id: Option<Uuid>,
}

impl Scope {
    /// The row with this id of a resource, which is named as its path is (`items`).
    pub fn row(resource: &'static str, id: Uuid) -> Self {
        Self {
            resource,
            id: Some(id),
        }
    }

    /// Every list of a resource: any write of one of its rows can change any page.
    pub fn lists(resource: &'static str) -> Self {
        Self { resource, id: None }
    }
}

/// Names one answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    scope: Scope,
    page: Option<Box<str>>,
}

impl Key {
    /// The answer that shows one row.
    pub fn row(resource: &'static str, id: Uuid) -> Self {
        Self {
            scope: Scope::row(resource, id),
            page: None,
        }
    }

    /// A page of a list; `page` is everything that decides what is on it, always written the same way.
    pub fn page(resource: &'static str, page: String) -> Self {
        Self {
            scope: Scope::lists(resource),
            page: Some(page.into()),
        }
    }
}

/// A finished answer. Cloning copies nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The body as it is sent.
    pub body: Bytes,
    /// The header `EScope`.
    pub etag: Option<HeaderValue>,
    /// The header `Link`.
    pub link: Option<HeaderValue>,
}

/// The cache, as request handlers see it. Cloning shares it.
#[derive(Clone)]
pub struct Cache {
    local: Option<Arc<Local>>,
    doubt: Duration,
    metrics: Metrics,
}

impl Cache {
    /// As the settings say. A write whose end nobody knows may still be done by the database for at most
    /// `statement_timeout` afterwards.
    pub fn open(settings: &CacheSettings, statement_timeout: Duration, metrics: Metrics) -> Self {
        let local = (settings.seconds > 0).then(|| Arc::new(Local::new(settings)));
        Self {
            local,
            // A second for the way there.
            doubt: statement_timeout + Duration::from_secs(1),
            metrics,
        }
    }

    /// The answer of this key: the one that is there, or what `load` makes, which is kept. Of several that ask at once
    /// one loads and the others wait for it; if it is given up, the next of them loads. An error goes to all who wait for
    /// it, and is not kept.
    ///
    /// # Errors
    /// Those of `load`.
    pub async fn get_or_load<E, F>(&self, key: Key, load: F) -> Result<(Entry, CacheUse), E>
    where
        E: Clone + Send + Sync + 'static,
        F: Future<Output = Result<Entry, E>>,
    {
        let answered = match &self.local {
            Some(local) => local.get_or_load(key, load).await,
            None => load.await.map(|entry| (entry, CacheUse::Bypass)),
        };
        if let Ok((_, outcome)) = &answered {
            self.metrics.cache(*outcome);
        }
        answered
    }

    /// As [`Self::get_or_load`] for what there may not be; that there is no such thing is not kept.
    ///
    /// # Errors
    /// Those of `load`.
    pub async fn get_or_find<E, F>(&self, key: Key, load: F) -> Result<Option<(Entry, CacheUse)>, E>
    where
        E: Clone + Send + Sync + 'static,
        F: Future<Output = Result<Option<Entry>, E>>,
    {
        let load = async { load.await.map_err(Some)?.ok_or(None) };
        match self.get_or_load(key, load).await {
            Ok(found) => Ok(Some(found)),
            Err(None) => Ok(None),
            Err(Some(error)) => Err(error),
        }
    }

    /// Runs `work`, which writes what `scopes` name, and sees to it that no answer loaded before its end is used after
    /// it. Both are done to their end even if the request is given up: a write that the database does all the same would
    /// otherwise be hidden by the cache.
    ///
    /// # Errors
    /// Those of `work`.
    pub async fn write<T, F>(&self, scopes: impl Into<Vec<Scope>>, work: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, DbError>> + Send + 'static,
    {
        let (cache, scopes) = (self.clone(), scopes.into());
        let work = async move {
            let done = work.await;
            cache.invalidate(&scopes);
            if matches!(done, Err(DbError::Interrupted(_))) {
                // Nobody knows whether it is done, or will be: once more when it no longer can be.
                tokio::spawn(async move {
                    sleep(cache.doubt).await;
                    cache.invalidate(&scopes);
                });
            }
            done
        };
        match tokio::spawn(work.in_current_span()).await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime ends, and this with it.
                Err(_) => std::future::pending().await,
            },
        }
    }

    fn invalidate(&self, scopes: &[Scope]) {
        if let Some(local) = &self.local {
            local.invalidate(scopes);
        }
    }
}
