-- For the search of substrings. Built beside the writes of a large table, so outside of a transaction and alone in its
-- file; one that a killed run left half built is dropped before the next run gets here.
CREATE INDEX CONCURRENTLY IF NOT EXISTS items_text ON items USING gin (name gin_trgm_ops, description gin_trgm_ops);
