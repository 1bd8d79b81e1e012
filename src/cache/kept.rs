//! Answers kept in this process, and the loads under way.

use std::future::Future;

use moka::future::Cache as Moka;

use super::{Entry, Key};
use crate::{config::CacheSettings, metrics::CacheUse};

/// What an entry takes beside its texts: its key, the counts of its owners, its places in the maps and queues.
const OVERHEAD_BYTES: u64 = 400;

/// Bounded by entries and by bytes; which entry has to go is decided by how often it was asked for (TinyLFU), so that a
/// walk through all pages does not drive out what everybody reads.
pub(super) struct Kept(Moka<(Key, Stamp), Entry>);

/// What a load is filed under beside its key; see the rules in `cache.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Stamp(pub(super) u128, pub(super) u128);

impl Kept {
    pub(super) fn new(settings: &CacheSettings) -> Self {
        // One bound for both: an entry weighs its bytes, and at least its share of all bytes.
        let share = settings.size_bytes / settings.entries;
        let entries = Moka::builder()
            .time_to_live(settings.lifetime())
            .max_capacity(settings.size_bytes)
            .weigher(move |(key, _): &(Key, Stamp), entry: &Entry| weight(key, entry, share))
            .build();
        Self(entries)
    }

    /// The answer filed under both, or what `load` makes.
    pub(super) async fn get_or_load<E, F>(
        &self,
        key: Key,
        stamp: Stamp,
        load: F,
    ) -> Result<(Entry, CacheUse), E>
    where
        E: Clone + Send + Sync + 'static,
        F: Future<Output = Result<Entry, E>>,
    {
        let key = (key, stamp);
        if let Some(entry) = self.0.get(&key).await {
            return Ok((entry, CacheUse::Hit));
        }
        match self.0.entry(key).or_try_insert_with(load).await {
            Ok(entry) => Ok((entry.into_value(), CacheUse::Miss)),
            Err(error) => Err(E::clone(&error)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn neither_more_entries_nor_more_bytes_are_kept_than_the_settings_say() {
        let settings = CacheSettings {
            entries: 100,
            size_bytes: 1 << 20,
            ..CacheSettings::default()
        };
        for (length, most) in [(10, 100), (200_000, 5)] {
            let kept = Kept::new(&settings);
            for number in 0..1000 {
                let key = Key::page("items", number.to_string());
                let entry = Entry {
                    body: vec![0; length].into(),
                    etag: None,
                    link: None,
                };
                let load = async { Ok::<_, ()>(entry) };
                let loaded = kept.get_or_load(key, Stamp(0, 0), load).await.unwrap();
                assert_eq!(loaded.1, CacheUse::Miss);
            }
            kept.0.run_pending_tasks().await;
            let count = kept.0.entry_count();
            assert!((1..=most).contains(&count), "{count} of {length} bytes");
            assert!(kept.0.weighted_size() <= settings.size_bytes);
        }
    }

    #[tokio::test]
    async fn who_waits_for_a_load_that_is_given_up_loads() {
        let kept = std::sync::Arc::new(Kept::new(&CacheSettings::default()));
        let key = Key::page("items", String::new());
        let (began, begun) = tokio::sync::oneshot::channel();
        let first = tokio::spawn({
            let (kept, key) = (kept.clone(), key.clone());
            async move {
                let load = async {
                    began.send(()).unwrap();
                    std::future::pending::<Result<Entry, ()>>().await
                };
                kept.get_or_load(key, Stamp(0, 0), load).await
            }
        });
        begun.await.unwrap();
        let entry = Entry {
            body: "mine".into(),
            etag: None,
            link: None,
        };
        let load = async { Ok::<_, ()>(entry.clone()) };
        let mut second = std::pin::pin!(kept.get_or_load(key, Stamp(0, 0), load));
        assert!(
            futures_util::poll!(&mut second).is_pending(),
            "it did not wait"
        );
        first.abort();
        let loaded = tokio::time::timeout(std::time::Duration::from_secs(60), second).await;
        assert_eq!(loaded.unwrap().unwrap().0, entry);
    }
}
