-- What was answered to requests that carried an Idempotency-Key. A row is written in the transaction of the effect that
-- it stands for.
CREATE TABLE idempotency_keys (
    -- The caller's profile; all zeros for callers without one.
    caller uuid NOT NULL,
    -- Method and path: 'POST /items'.
    route text NOT NULL CHECK (char_length(route) BETWEEN 1 AND 200),
    key text NOT NULL CHECK (key ~ '^[!-~]{1,200}$'),
    -- SHA-256 of the request's body, as it was understood.
    request_digest bytea NOT NULL CHECK (octet_length(request_digest) = 32),
    -- The answer, as it was sent; empty only inside of the transaction.
    location text,
    etag text,
    body text,
    expires_at timestamptz NOT NULL DEFAULT now() + interval '24 hours',
    PRIMARY KEY (caller, route, key)
);

-- For the sweep.
CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires_at);

INSERT INTO schema_compatibility (migration, works_since) VALUES ('20261121000110', '20261120000000');
