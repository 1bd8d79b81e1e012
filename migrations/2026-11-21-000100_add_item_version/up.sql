-- Counts an item's changes; it is the item's ETag. Whoever inserts without naming it gets 1.
ALTER TABLE items ADD COLUMN version bigint NOT NULL DEFAULT 1;
-- NOT VALID: checked from now on, without reading the whole table under a lock. Every row there is has 1.
ALTER TABLE items ADD CONSTRAINT items_version_check CHECK (version >= 1) NOT VALID;

INSERT INTO schema_compatibility (migration, works_since) VALUES ('20261121000100', '20261120000000');
