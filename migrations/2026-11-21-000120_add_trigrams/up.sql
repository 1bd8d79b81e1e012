-- A trusted extension: who may create in the database may add it, no superuser is needed.
CREATE EXTENSION IF NOT EXISTS pg_trgm;
