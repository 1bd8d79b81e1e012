//! Where terraform, its directory and its provider mirror are on this machine.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::TerraformError;

/// Names the terraform directory when `--terraform-dir` is not given.
pub const DIRECTORY_VARIABLE: &str = "DRAWBRIDGE_TERRAFORM_DIR";

/// Names a local provider mirror to install the AWS provider from, instead of the registry.
pub const MIRROR_VARIABLE: &str = "DRAWBRIDGE_TERRAFORM_MIRROR";

/// Where a machine without internet has its mirror, by convention of this project's build machines.
const USUAL_MIRROR: &str = "/opt/tf-plugins";

/// What [`cli_config`] found out about `TF_CLI_CONFIG_FILE`.
#[derive(Debug, PartialEq, Eq)]
pub enum CliConfig {
    /// Leave the variable as it is, set or not.
    Keep,
    /// The variable names a file that is not there; terraform would warn in every command. Remove it.
    Remove,
    /// Point the variable at a generated file with this text.
    Generate(String),
}

/// Finds an executable on the search path `path` (the value of `PATH`).
#[must_use]
pub fn executable(name: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    env::split_paths(path?)
        .map(|folder| folder.join(name))
        .find(|file| {
            fs::metadata(file)
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
}

/// The terraform directory: `given` (flag or environment), else `terraform/` in `start` or the nearest folder above it
/// that has one with `*.tf` files inside.
///
/// # Errors
/// When there is none; says where it looked.
pub fn directory(given: Option<&Path>, start: &Path) -> Result<PathBuf, TerraformError> {
    let candidates: Vec<PathBuf> = match given {
        Some(given) => vec![start.join(given)],
        None => start
            .ancestors()
            .map(|folder| folder.join("terraform"))
            .collect(),
    };
    let found = candidates
        .into_iter()
        .find(|folder| has_configuration(folder));
    found
        .and_then(|folder| folder.canonicalize().ok())
        .ok_or_else(|| TerraformError::NoDirectory {
            looked: given.map_or_else(
                || format!("`terraform` in {} or above it", start.display()),
                |given| given.display().to_string(),
            ),
        })
}

fn has_configuration(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else {
        return false;
    };
    entries
        .flatten()
        .any(|entry| entry.path().extension() == Some(OsStr::new("tf")))
}

/// Decides what `TF_CLI_CONFIG_FILE` should be. A configuration the user has wins over the usual mirror; a mirror named
/// in [`MIRROR_VARIABLE`] wins over both.
#[must_use]
pub fn cli_config() -> CliConfig {
    let current = env::var_os("TF_CLI_CONFIG_FILE")
        .filter(|value| !value.is_empty())
        .map(PathBuf::from);
    let home = env::var_os("HOME").map(|home| Path::new(&home).join(".terraformrc"));
    let named = env::var_os(MIRROR_VARIABLE)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from);
    choose(
        current.as_deref(),
        home.as_deref(),
        named.as_deref(),
        Path::new(USUAL_MIRROR),
    )
}

fn choose(
    current: Option<&Path>,
    home: Option<&Path>,
    named: Option<&Path>,
    usual: &Path,
) -> CliConfig {
    let own = [current, home].into_iter().flatten().any(Path::is_file);
    match named {
        Some(mirror) if mirror.is_dir() => CliConfig::Generate(mirror_config(mirror)),
        _ if own && current.is_none_or(Path::is_file) => CliConfig::Keep,
        _ if !own && usual.is_dir() => CliConfig::Generate(mirror_config(usual)),
        _ if current.is_some() => CliConfig::Remove,
        _ => CliConfig::Keep,
    }
}

/// The text of a CLI configuration that installs the AWS provider from `mirror` and anything else from its registry.
#[must_use]
pub fn mirror_config(mirror: &Path) -> String {
    // JSON's string escapes are a subset of HCL's except for template markers, which must be doubled.
    let path = serde_json::Value::from(mirror.to_string_lossy().as_ref()).to_string();
    let path = path.replace("${", "$${").replace("%{", "%%{");
    // Without the exclude terraform asks the registry as well, and init fails offline.
    format!(
        "provider_installation {{\n  filesystem_mirror {{\n    path    = {path}\n    include = [\"hashicorp/aws\"]\n  }}\n  direct {{\n    exclude = [\"hashicorp/aws\"]\n  }}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_found_from_below_and_a_missing_one_is_named() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        fs::create_dir(root.path().join("terraform")).unwrap();
        assert!(
            directory(None, &deep).is_err(),
            "a folder without *.tf is not it"
        );
        fs::write(root.path().join("terraform/main.tf"), "").unwrap();
        assert_eq!(
            directory(None, &deep).unwrap(),
            root.path().join("terraform").canonicalize().unwrap()
        );
        let error = directory(Some(Path::new("nowhere")), &deep)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("nowhere") && error.contains("--terraform-dir"),
            "{error}"
        );
    }

    #[test]
    fn a_stale_cli_config_is_removed_and_the_users_own_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let (gone, own, mirror) = (
            root.path().join("gone"),
            root.path().join("own"),
            root.path().join("mirror"),
        );
        fs::write(&own, "").unwrap();
        fs::create_dir(&mirror).unwrap();
        assert_eq!(choose(Some(&gone), None, None, &gone), CliConfig::Remove);
        assert_eq!(
            choose(Some(&gone), Some(&own), None, &mirror),
            CliConfig::Remove
        );
        assert_eq!(choose(Some(&own), None, None, &mirror), CliConfig::Keep);
        assert_eq!(choose(None, Some(&own), None, &mirror), CliConfig::Keep);
        assert_eq!(choose(None, None, None, &gone), CliConfig::Keep);
        assert!(matches!(
            choose(Some(&gone), None, None, &mirror),
            CliConfig::Generate(_)
        ));
        assert!(matches!(
            choose(Some(&own), None, Some(&mirror), &gone),
            CliConfig::Generate(_)
        ));
    }

    #[test]
    fn the_mirror_config_excludes_the_provider_from_the_registry() {
        let text = mirror_config(Path::new("/srv/${x}"));
        assert!(
            text.contains("path    = \"/srv/$${x}\"")
                && text.contains("exclude = [\"hashicorp/aws\"]"),
            "{text}"
        );
    }
}
