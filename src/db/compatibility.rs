//! Whether this program works with a schema that has migrations it does not know.
//!
//! Going back to the version before runs an older program on a newer schema. Each migration says in the table
//! `schema_compatibility` which programs work with the schema after it: those that know a certain older migration.

use diesel::sql_types::{Bool, Nullable, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::DbError;

/// A migration that the database has.
#[derive(Debug, Clone, PartialEq, Eq, diesel::QueryableByName)]
pub(super) struct Applied {
    /// Fourteen digits, such as `20261120000000`.
    #[diesel(sql_type = Text)]
    pub version: String,
    /// Programs that know this one work with the schema. `None`: it does not say.
    #[diesel(sql_type = Nullable<Text>)]
    pub works_since: Option<String>,
}

/// What a program that knows certain migrations has to do with a schema.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing; of the migrations it has, these are unknown.
    Fits(Vec<String>),
    /// Migrate it.
    Lacks,
    /// Leave it alone: this migration is not known, and does not say that such a program works with it.
    TooNew(String),
}

/// The database's migrations, none if it never had any.
pub(super) async fn applied(mut connection: &AsyncPgConnection) -> Result<Vec<Applied>, DbError> {
    let is_there =
        |table: &str| diesel::dsl::sql::<Bool>(&format!("to_regclass('{table}') IS NOT NULL"));
    let (has_migrations, has_compatibility): (bool, bool) = diesel::select((
        is_there("__diesel_schema_migrations"),
        is_there("schema_compatibility"),
    ))
    .get_result(&mut connection)
    .await?;
    let query = match (has_migrations, has_compatibility) {
        (false, _) => return Ok(Vec::new()),
        (true, false) => "SELECT version, NULL AS works_since FROM __diesel_schema_migrations",
        (true, true) => {
            "SELECT version, works_since FROM __diesel_schema_migrations \
             LEFT JOIN schema_compatibility ON migration = version ORDER BY version"
        }
    };
    let applied = diesel::sql_query(query).load(&mut connection).await?;
    Ok(applied)
}

pub(super) fn judge(known: &[String], applied: &[Applied]) -> Verdict {
    let mut unknown = Vec::new();
    for migration in applied {
        if known.contains(&migration.version) {
            continue;
        }
        let works = migration.works_since.as_ref();
        if !works.is_some_and(|since| known.contains(since)) {
            return Verdict::TooNew(migration.version.clone());
        }
        unknown.push(migration.version.clone());
    }
    let has = |version: &String| {
        applied
            .iter()
            .any(|migration| migration.version == *version)
    };
    if known.iter().all(has) {
        Verdict::Fits(unknown)
    } else {
        Verdict::Lacks
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn known(versions: &[&str]) -> Vec<String> {
        versions.iter().map(ToString::to_string).collect()
    }

    fn has(version: &str, works_since: Option<&str>) -> Applied {
        Applied {
            version: version.to_owned(),
            works_since: works_since.map(ToOwned::to_owned),
        }
    }

    #[test]
    fn an_unknown_migration_is_refused_unless_it_says_that_a_known_one_is_enough() {
        let known = known(&["1", "2"]);
        let both = [has("1", None), has("2", None)];
        assert_eq!(judge(&known, &[]), Verdict::Lacks);
        assert_eq!(judge(&known, &both[..1]), Verdict::Lacks);
        assert_eq!(judge(&known, &both), Verdict::Fits(Vec::new()));
        let with = |third| {
            let [one, two] = both.clone();
            judge(&known, &[one, two, third])
        };
        assert_eq!(with(has("3", None)), Verdict::TooNew("3".to_owned()));
        assert_eq!(with(has("3", Some("3"))), Verdict::TooNew("3".to_owned()));
        assert_eq!(
            with(has("3", Some("2"))),
            Verdict::Fits(vec!["3".to_owned()])
        );
    }

    #[test]
    fn every_migration_says_which_programs_work_with_the_schema_after_it() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        names.sort();
        let version = |path: &Path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.split('_').next().unwrap().replace('-', "")
        };
        let versions: Vec<_> = names.iter().map(|path| version(path)).collect();
        let texts = names.iter().map(|path| path.join("up.sql"));
        let texts: String = texts
            .map(|path| fs::read_to_string(path).unwrap())
            .collect();
        // The first one needs no word: no program is older.
        for (path, own) in names.iter().zip(&versions).skip(1) {
            let says = versions.iter().filter(|since| *since <= own).any(|since| {
                texts.contains(&format!(
                    "INSERT INTO schema_compatibility (migration, works_since) VALUES ('{own}', '{since}');"
                ))
            });
            assert!(
                says,
                "{}: end it with `INSERT INTO schema_compatibility (migration, works_since) VALUES ('{own}', '<the \
                 oldest migration whose programs still work>');`",
                path.display()
            );
        }
    }
}
