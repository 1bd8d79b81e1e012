//! Answers kept in this process.

use std::future::Future;

use moka::future::Cache as Moka;

use super::{Entry, Key, Scope, generations::Generations};
use crate::{config::CacheSettings, metrics::CacheUse};

/// What an entry takes beside its texts: its key, the counts of its owners, its places in the maps and queues.
const OVERHEAD_BYTES: u64 = 400;

/// Bounded by entries and by bytes; which entry has to go is decided by how often it was asked for (TinyLFU), so that a
/// walk through all pages does not drive out what everybody reads.
pub(super) struct Local {
    entries: Moka<(Key, u64), Entry>,
    generations: Generations,
}

impl Local {
    pub(super) fn new(settings: &CacheSettings) -> Self {
        // One bound for both: an entry weighs its bytes, and at least its share of all bytes.
        let share = settings.size_bytes / settings.entries;
        let entries = Moka::builder()
            .time_to_live(settings.lifetime())
            .max_capacity(settings.size_bytes)
            .weigher(move |(key, _): &(Key, u64), entry: &Entry| weight(key, entry, share))
            .build();
        Self {
            entries,
            generations: Generations::new(),
        }
    }

    pub(super) async fn get_or_load<E, F>(&self, key: Key, load: F) -> Result<(Entry, CacheUse), E>
    where
        E: Clone + Send + Sync + 'static,
        F: Future<Output = Result<Entry, E>>,
    {
        // Before the load, and anew for each request: see the rules in `cache.rs`.
        let generation = self.generations.of(key.scope);
        let key = (key, generation);
        if let Some(entry) = self.entries.get(&key).await {
            return Ok((entry, CacheUse::Hit));
        }
        let entry = self.entries.entry(key);
        match entry.or_try_insert_with(load).await {
            Ok(entry) => Ok((entry.into_value(), CacheUse::Miss)),
            Err(error) => Err(E::clone(&error)),
        }
    }

    pub(super) fn invalidate(&self, scopes: &[Scope]) {
        for scope in scopes {
            self.generations.advance(*scope);
        }
    }
}

fn weight(key: &Key, entry: &Entry, least: u64) -> u32 {
    let length = |header: &Option<_>| header.as_ref().map_or(0, poem::http::HeaderValue::len);
    let bytes = entry.body.len()
        + length(&entry.etag)
        + length(&entry.link)
        + key.page.as_ref().map_or(0, |page| page.len());
    let bytes = (bytes as u64 + OVERHEAD_BYTES).max(least);
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
