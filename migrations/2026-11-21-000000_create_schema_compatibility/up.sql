-- Which programs work with the schema after a migration they do not know: those that know `works_since`. A program that
-- finds a migration it does not know, and no row here that it satisfies, refuses to start.
CREATE TABLE schema_compatibility (
    migration text PRIMARY KEY,
    works_since text NOT NULL
);

INSERT INTO schema_compatibility (migration, works_since) VALUES ('20261121000000', '20261120000000');
