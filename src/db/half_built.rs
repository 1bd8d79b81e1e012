//! Indexes that a run which was killed left half built: `CREATE INDEX CONCURRENTLY` is not undone by itself, and what is
//! left of it has the index's name, slows every write, and serves no read.

use diesel::sql_types::{Array, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use tracing::warn;

/// The indexes that migrations build CONCURRENTLY. Others may be somebody's who is building them by hand.
const NAMES: [&str; 1] = ["items_text"];

#[derive(diesel::QueryableByName)]
struct HalfBuilt {
    /// Quoted where it must be.
    #[diesel(sql_type = Text)]
    name: String,
}

/// Drops what is left of them, so that a migration finds either a whole index or none. For the holder of the migration
/// lock: nobody else builds one of them then.
pub(super) async fn drop_half_built(connection: &mut AsyncPgConnection) -> diesel::QueryResult<()> {
    let found: Vec<HalfBuilt> = diesel::sql_query(
        "SELECT indexrelid::regclass::text AS name FROM pg_index JOIN pg_class c ON c.oid = indexrelid \
         WHERE NOT indisvalid AND c.relname = ANY($1) AND pg_table_is_visible(c.oid)",
    )
    .bind::<Array<Text>, _>(NAMES.as_slice())
    .load(connection)
    .await?;
    for HalfBuilt { name } in found {
        warn!(
            name,
            "dropping index {name}, which a killed migration left half built"
        );
        diesel::sql_query(format!("DROP INDEX CONCURRENTLY {name}"))
            .execute(connection)
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn every_index_that_is_built_concurrently_is_named_and_built_only_where_it_is_missing() {
        let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        let mut built = Vec::new();
        for migration in fs::read_dir(migrations).unwrap() {
            let text = fs::read_to_string(migration.unwrap().path().join("up.sql")).unwrap();
            for rest in text.split("INDEX CONCURRENTLY ").skip(1) {
                let rest = rest.strip_prefix("IF NOT EXISTS ").unwrap();
                built.push(rest.split(' ').next().unwrap().to_owned());
            }
        }
        assert_eq!(built, NAMES);
    }
}
