//! Finished answers, used again until they are too old or what they show is written.
//!
//! What is never wrong here: **an answer is used only if it was loaded after the last write of what it
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
//! Several processes hold to it together only if they share a Valkey (`valkey.rs` says how); without, each sees the others'
//! writes after `cache.seconds` at the latest, as all do what is changed behind the API's back.

mod generations;
mod kept;
mod link;
mod valkey;

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use poem::http::HeaderValue;
use tokio::time::sleep;
use tracing::Instrument as _;
use uuid::Uuid;

use self::{
    generations::Generations,
    kept::{Kept, Stamp},
    valkey::{Look, Valkey},
};
use crate::{
    config::{CacheSettings, ConfigError},
    db::{DbError, Lsn},
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
    place: Arc<Place>,
    doubt: Duration,
    metrics: Metrics,
}

/// Where answers are kept.
enum Place {
    Nowhere,
    Here(Kept, Generations),
    /// Beside it, the loads under way here.
    Shared(Valkey, Kept),
}

impl Cache {
    /// As the settings say; needs tokio's runtime. A write whose end nobody knows may still be done by the database for
    /// at most `statement_timeout` afterwards. `version` makes what changes with the shape of the answers: only servers
    /// with the same one share them.
    ///
    /// # Errors
    /// [`ConfigError`]: `cache.valkey_url` is no address.
    pub fn open(
        settings: &CacheSettings,
        statement_timeout: Duration,
        version: impl FnOnce() -> String,
        metrics: Metrics,
    ) -> Result<Self, ConfigError> {
        let place = if settings.seconds == 0 {
            Place::Nowhere
        } else if let Some(client) = settings.valkey()? {
            Place::Shared(
                Valkey::open(client, settings, &version()),
                Kept::new(settings),
            )
        } else {
            Place::Here(Kept::new(settings), Generations::new())
        };
        Ok(Self {
            place: Arc::new(place),
            // A second for the way there.
            doubt: statement_timeout + Duration::from_secs(1),
            metrics,
        })
    }

    /// What a load must have seen, of which this process knows `known`. Of writes in the others it knows nothing, and an
    /// answer that is shared must not be older than those: only the primary will do.
    pub fn at_least(&self, known: Option<Lsn>) -> Option<Lsn> {
        match &*self.place {
            Place::Shared(..) => Some(Lsn::UNKNOWN),
            Place::Nowhere | Place::Here(..) => known,
        }
    }

    /// Whether the shared one does its work, if it is one; nothing is wrong but the speed while it does not.
    pub fn is_up(&self) -> Option<bool> {
        match &*self.place {
            Place::Shared(valkey, _) => Some(valkey.is_up()),
            Place::Nowhere | Place::Here(..) => None,
        }
    }

    /// The answer of this key: the one that is there, or what `load` makes, which is kept. Of several that ask at once
    /// one loads and the others wait for it; if it is given up, the next of them loads. An error goes to all who wait for
    /// it, and is not kept. No key: it is loaded and not kept, for what is seldom asked twice (a search).
    ///
    /// # Errors
    /// Those of `load`.
    pub async fn get_or_load<E, F>(
        &self,
        key: impl Into<Option<Key>>,
        load: F,
    ) -> Result<(Entry, CacheUse), E>
    where
        E: Clone + Send + Sync + 'static,
        F: Future<Output = Result<Entry, E>>,
    {
        let answered = match (&*self.place, key.into()) {
            (Place::Nowhere, _) | (_, None) => bypass(load).await,
            (Place::Here(kept, generations), Some(key)) => {
                // Before the load, and anew for each request: see the rules above.
                let stamp = Stamp(0, generations.of(key.scope).into());
                kept.get_or_load(key, stamp, load).await
            }
            (Place::Shared(valkey, kept), Some(key)) => match valkey.look(&key).await {
                Ok(Look::Kept(entry)) => Ok((entry, CacheUse::Hit)),
                Ok(Look::Nothing(stamp)) => {
                    let load = async {
                        let entry = load.await?;
                        valkey.put(&key, stamp, &entry).await;
                        Ok(entry)
                    };
                    kept.get_or_load(key.clone(), stamp, load).await
                }
                // Each for itself: who came after a write in another process must not join a load from before it.
                Err(_) => bypass(load).await,
            },
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
            cache.invalidate(&scopes).await;
            if matches!(done, Err(DbError::Interrupted(_))) {
                // Nobody knows whether it is done, or will be: once more when it no longer can be.
                tokio::spawn(async move {
                    sleep(cache.doubt).await;
                    cache.invalidate(&scopes).await;
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

    async fn invalidate(&self, scopes: &[Scope]) {
        match &*self.place {
            Place::Nowhere => {}
            Place::Here(_, generations) => {
                for scope in scopes {
                    generations.advance(*scope);
                }
            }
            Place::Shared(valkey, _) => valkey.invalidate(scopes).await,
        }
    }
}

async fn bypass<E>(load: impl Future<Output = Result<Entry, E>>) -> Result<(Entry, CacheUse), E> {
    load.await.map(|entry| (entry, CacheUse::Bypass))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_write_that_nobody_waits_for_any_more_ends_and_is_seen() {
        let settings = CacheSettings::default();
        let cache = Cache::open(&settings, Duration::ZERO, String::new, Metrics::new()).unwrap();
        let show = async |body: &'static str| {
            let entry = Entry {
                body: body.into(),
                etag: None,
                link: None,
            };
            let load = async { Ok::<_, ()>(entry) };
            let shown = cache.get_or_load(Key::page("items", String::new()), load);
            shown.await.unwrap().0.body
        };
        assert_eq!(show("before").await, "before");
        assert_eq!(show("not asked").await, "before");
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let (ended, end) = tokio::sync::oneshot::channel();
        let scopes = [Scope::lists("items")];
        let write = cache.write(scopes, async move {
            gone.await.unwrap();
            ended.send(()).unwrap();
            Ok(())
        });
        let mut write = Box::pin(write);
        assert!(futures_util::poll!(&mut write).is_pending());
        drop(write);
        go.send(()).unwrap();
        end.await.unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        while show("after").await != "after" {
            assert!(tokio::time::Instant::now() < deadline, "never seen");
            tokio::task::yield_now().await;
        }
    }
}
