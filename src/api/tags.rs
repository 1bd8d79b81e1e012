//! The groups in which the documentation shows the operations.

use poem_openapi::Tags;

/// One for each `Api` of this folder, or for several that a reader looks for in one place.
#[derive(Tags)]
pub enum Tag {
    /// Who is asking: profiles, and the sessions of those who have signed in. Answers are never kept on the way.
    Accounts,
    /// What the service keeps: reads are public, writes need a session.
    Items,
    /// The service itself: is it alive, is it ready?
    Service,
}
