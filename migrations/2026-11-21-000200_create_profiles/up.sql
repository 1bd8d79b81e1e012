-- Everybody who can sign in, whatever their role. The limits stand here as well as in the API's schema.
CREATE TABLE profiles (
    id uuid PRIMARY KEY,
    name text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 200),
    -- As it was entered, trimmed.
    email text NOT NULL CHECK (char_length(email) BETWEEN 3 AND 254),
    -- A PHC string, which names its own algorithm and parameters.
    password_hash text NOT NULL,
    role text NOT NULL DEFAULT 'student' CHECK (role IN ('student', 'alumni', 'admin')),
    department text CHECK (char_length(department) BETWEEN 1 AND 200),
    batch_year integer CHECK (batch_year BETWEEN 1900 AND 2200),
    created_at timestamptz NOT NULL DEFAULT now()
);

-- One profile per address, however it is capitalised; also what signing in looks for.
CREATE UNIQUE INDEX profiles_email ON profiles (lower(email));

CREATE TABLE sessions (
    id uuid PRIMARY KEY,
    profile_id uuid NOT NULL REFERENCES profiles ON DELETE CASCADE,
    -- SHA-256 of the token, which is nowhere but at the client. Unique: this is the look-up of every request.
    token_hash bytea NOT NULL UNIQUE CHECK (octet_length(token_hash) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    user_agent text CHECK (char_length(user_agent) <= 200)
);

-- A profile's own sessions, the last used first.
CREATE INDEX sessions_of_profile ON sessions (profile_id, last_used_at DESC);
-- Both for the sweep of what nobody can use any more.
CREATE INDEX sessions_expiring ON sessions (expires_at);
CREATE INDEX sessions_idle ON sessions (last_used_at);

INSERT INTO schema_compatibility (migration, works_since) VALUES ('20261121000200', '20261120000000');
