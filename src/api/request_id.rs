//! The id that ties an answer, its problem body and its log lines together.

use std::future::Future;

use poem::Request;
use uuid::Uuid;

/// Carries the id in both directions.
pub const HEADER: &str = "x-request-id";

/// A longer id of a client's is replaced.
const LIMIT: usize = 64;

tokio::task_local! {
    static CURRENT: String;
}

/// The client's own id if it is harmless to repeat in headers and logs (1 to 64 of `A-Z a-z 0-9 . _ -`), or a new one.
pub fn of(request: &Request) -> String {
    request
        .header(HEADER)
        .filter(|id| {
            (1..=LIMIT).contains(&id.len())
                && id
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        })
        .map_or_else(|| Uuid::now_v7().to_string(), ToOwned::to_owned)
}

/// Runs `work` with `id` as its [`current`].
pub async fn scope<F: Future>(id: String, work: F) -> F::Output {
    CURRENT.scope(id, work).await
}

/// The id of the request being handled; empty outside of one.
pub fn current() -> String {
    CURRENT.try_with(Clone::clone).unwrap_or_default()
}
