-- A trusted extension: who may create in the database may add it, no superuser is needed.
CREATE EXTENSION IF NOT EXISTS pg_trgm;

INSERT INTO schema_compatibility (migration, works_since) VALUES ('20261121000120', '20261120000000');
-- The next one runs outside a transaction and must be a single statement.
INSERT INTO schema_compatibility (migration, works_since) VALUES ('20261121000130', '20261120000000');
