//! The tables as `migrations/` leaves them.

diesel::table! {
    items (id) {
        id -> Uuid,
        name -> Text,
        description -> Nullable<Text>,
        created_at -> Timestamptz,
        version -> BigInt,
    }
}

diesel::table! {
    idempotency_keys (caller, route, key) {
        caller -> Uuid,
        route -> Text,
        key -> Text,
        request_digest -> Binary,
        location -> Nullable<Text>,
        etag -> Nullable<Text>,
        body -> Nullable<Text>,
        expires_at -> Timestamptz,
    }
}
