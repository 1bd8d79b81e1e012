//! What can go wrong with terraform, each with the next thing to try.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::DIRECTORY_VARIABLE;

/// What went wrong with terraform, and what to do next.
#[derive(Debug, thiserror::Error)]
pub enum TerraformError {
    /// Nothing was run.
    #[error(
        "terraform is not on the PATH: install Terraform 1.11 or newer (https://developer.hashicorp.com/terraform/install), or run `nix develop`"
    )]
    NotInstalled,
    /// Nothing was run.
    #[error(
        "found no terraform configuration (*.tf) in {looked}: name its folder with --terraform-dir or {DIRECTORY_VARIABLE}"
    )]
    NoDirectory {
        /// Where it was looked for.
        looked: String,
    },
    /// Nothing was run.
    #[error("cannot start {} (is it a terraform for this machine? `terraform version` tells)", binary.display())]
    Start {
        /// The executable.
        binary: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Nothing was run.
    #[error(
        "cannot prepare a temporary folder for terraform (see that TMPDIR, or /tmp, can be written and is not full)"
    )]
    Scratch(#[source] std::io::Error),
    /// Terraform ended with an error of its own.
    #[error(
        "`terraform {command}` failed: {message} (mend that and run this again; it goes on from what stands)"
    )]
    Failed {
        /// The subcommand, e.g. `apply`.
        command: String,
        /// Its error lines.
        message: String,
    },
    /// Terraform was asked to stop and ended; for `apply` the state says how far it came.
    #[error("`terraform {command}` took longer than {} s and was stopped; the last line seen: {last} (run this again; it goes on from what stands)", limit.as_secs())]
    TookTooLong {
        /// The subcommand.
        command: String,
        /// How long it was allowed to take.
        limit: Duration,
        /// The last line seen.
        last: String,
    },
    /// Ctrl-C or SIGTERM, passed on; for `apply` the state says how far it came.
    #[error(
        "interrupted while `terraform {command}` ran; run this again, it goes on from what stands"
    )]
    Interrupted {
        /// The subcommand.
        command: String,
    },
    /// Somebody else works on this state; nothing was done.
    #[error(
        "terraform's state is locked by `{operation}` of {who} since {since} (lock {id}): wait for it to end and run this again; only if that terraform is gone for good: `terraform -chdir={} force-unlock {id}`",
        directory.display()
    )]
    Locked {
        /// The lock's id, which `force-unlock` wants.
        id: String,
        /// `user@machine`
        who: String,
        /// What it runs: `apply`, `plan`, `import`, …
        operation: String,
        /// When it took the lock, in Terraform's words: `2026-11-20 19:23:21 +0000 UTC`.
        since: String,
        /// The terraform directory.
        directory: PathBuf,
    },
    /// `terraform init` has not been run here, or lock file, providers or backend have changed since.
    #[error(
        "terraform is not ready in {} ({reason}): run `terraform -chdir={} init`",
        directory.display(), directory.display()
    )]
    NotInitialised {
        /// Terraform's summary, e.g. `Inconsistent dependency lock file`.
        reason: String,
        /// The terraform directory.
        directory: PathBuf,
    },
    /// The plan's own description is not what this program understands.
    #[error(
        "`terraform show -json` describes the plan in another shape (use Terraform 1.11 or a later 1.x): {0}"
    )]
    BadPlan(#[source] serde_json::Error),
    /// The state has no deployment, or one without the output.
    #[error("terraform's state in {} has no output `deployment`: run `terraform -chdir={} init` and `terraform -chdir={} apply` first{}", directory.display(), directory.display(), directory.display(), backup(directory))]
    NotApplied {
        /// The terraform directory.
        directory: PathBuf,
    },
    /// The output is not what this program understands.
    #[error("terraform's output `deployment` {problem}: apply the terraform/ folder that belongs to this version (`terraform -chdir={} apply`)", directory.display())]
    BadOutput {
        /// Which field, and what is wrong with it.
        problem: String,
        /// The terraform directory.
        directory: PathBuf,
    },
}

/// What the error lines of `terraform <command>` mean. Plain ones come in a frame, those of `-json` without.
pub(super) fn of_lines(command: &str, lines: &[String], directory: &Path) -> TerraformError {
    /// More than this many characters of Terraform's words helps nobody.
    const MOST: usize = 2000;
    let frame = |character: char| character.is_whitespace() || "│╷╵".contains(character);
    let lines: Vec<_> = lines
        .iter()
        .map(|line| line.trim_matches(frame))
        .filter(|line| !line.is_empty())
        .collect();
    let text = lines.join(" ");
    if let Some(locked) = locked(&text, directory) {
        return locked;
    }
    // Terraform's only sign are its words: all but one refusal for want of an `init` end with that command.
    let wants_init = ["terraform init", "Required plugins are not installed"];
    if command != "init" && wants_init.iter().any(|sign| text.contains(sign)) {
        let first = lines.first().copied().unwrap_or_default();
        let first = first.strip_prefix("Error: ").unwrap_or(first);
        let reason = first.split([':', ',']).next().unwrap_or(first).to_owned();
        return TerraformError::NotInitialised {
            reason,
            directory: directory.into(),
        };
    }
    let message: String = text.chars().take(MOST).collect();
    TerraformError::Failed {
        command: command.to_owned(),
        message: if message.is_empty() {
            "it gave no reason".to_owned()
        } else {
            message
        },
    }
}

/// Reads the lock's description, the same for every backend: `Lock Info: ID: … Path: … Operation: … Who: … Version: …
/// Created: … Info: …`. Without an id there is nothing to name, and Terraform's own words are better.
fn locked(text: &str, directory: &Path) -> Option<TerraformError> {
    let info = text.split_once("Error acquiring the state lock")?.1;
    let info = info.split_once("Lock Info:")?.1;
    let between = |from: &str, to: &str| {
        let found = info.split_once(from)?.1.split_once(to)?.0.trim();
        (!found.is_empty()).then(|| found.to_owned())
    };
    let unknown = || "unknown".to_owned();
    let operation = between("Operation:", "Who:").unwrap_or_else(unknown);
    Some(TerraformError::Locked {
        id: between("ID:", "Path:")?,
        who: between("Who:", "Version:").unwrap_or_else(unknown),
        operation: operation
            .strip_prefix("OperationType")
            .unwrap_or(&operation)
            .to_lowercase(),
        since: between("Created:", "Info:").unwrap_or_else(unknown),
        directory: directory.into(),
    })
}

/// Terraform writes a local state in place: killed in the middle of that, it leaves half a file, and a whole one beside it.
fn backup(directory: &Path) -> &'static str {
    if directory.join("terraform.tfstate.backup").exists() {
        "; should a terraform have been killed here, terraform.tfstate.backup holds the state before that run"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> TerraformError {
        let lines: Vec<_> = lines.iter().map(|line| (*line).to_owned()).collect();
        of_lines("plan", &lines, Path::new("/t"))
    }

    #[test]
    fn a_lock_in_a_bucket_is_named_with_the_command_that_frees_it() {
        // Words of the S3 backend with `use_lockfile`, Terraform 1.11.
        let error = read(&[
            "Error acquiring the state lock: Error message: operation error S3: PutObject, https response error StatusCode: 412, RequestID: X, HostID: Y, api error PreconditionFailed: At least one of the pre-conditions you specified did not hold Lock Info: ID: 0d4b-1 Path: bucket/drawbridge.tfstate Operation: OperationTypeApply Who: alice@laptop Version: 1.11.4 Created: 2026-11-20 19:23:21.23 +0000 UTC Info: Terraform acquires a state lock",
        ]);
        let text = error.to_string();
        assert!(
            text.contains("`apply` of alice@laptop since 2026-11-20 19:23:21.23 +0000 UTC"),
            "{text}"
        );
        assert!(
            text.ends_with("`terraform -chdir=/t force-unlock 0d4b-1`"),
            "{text}"
        );
    }

    #[test]
    fn a_lock_without_a_description_keeps_terraforms_words() {
        let error = read(&["Error acquiring the state lock: Error message: AccessDenied"]);
        assert!(matches!(&error, TerraformError::Failed { .. }), "{error}");
    }

    #[test]
    fn want_of_an_init_is_one_short_line() {
        let error = read(&[
            "╷",
            "│ Error: Required plugins are not installed",
            "│ ",
            "│ ",
            "│ The installed provider plugins are not consistent with the packages selected",
            "│ in the dependency lock file: […]",
        ]);
        assert_eq!(
            error.to_string(),
            "terraform is not ready in /t (Required plugins are not installed): run `terraform -chdir=/t init`"
        );
    }
}
