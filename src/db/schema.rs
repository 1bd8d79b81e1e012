//! The tables as `migrations/` leaves them.

diesel::table! {
    items (id) {
        id -> Uuid,
        name -> Text,
        description -> Nullable<Text>,
        created_at -> Timestamptz,
    }
}
