-- The limits stand here as well as in the API's schema, so that no other writer can get around them.
CREATE TABLE items (
    id uuid PRIMARY KEY,
    name text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 200),
    description text CHECK (char_length(description) <= 4000),
    created_at timestamptz NOT NULL DEFAULT now()
);

-- The list is read newest first; the id settles equal times, so that the order is total.
CREATE INDEX items_newest_first ON items (created_at DESC, id DESC);
