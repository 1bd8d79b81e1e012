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

diesel::table! {
    profiles (id) {
        id -> Uuid,
        name -> Text,
        email -> Text,
        password_hash -> Text,
        role -> Text,
        department -> Nullable<Text>,
        batch_year -> Nullable<Integer>,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    sessions (id) {
        id -> Uuid,
        profile_id -> Uuid,
        token_hash -> Binary,
        created_at -> Timestamptz,
        last_used_at -> Timestamptz,
        expires_at -> Timestamptz,
        user_agent -> Nullable<Text>,
    }
}

diesel::joinable!(sessions -> profiles (profile_id));
diesel::allow_tables_to_appear_in_same_query!(profiles, sessions);
