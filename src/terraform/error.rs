//! What can go wrong with terraform, each with the next thing to try.

use std::path::PathBuf;
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
    #[error("cannot start {}", binary.display())]
    Start {
        /// The executable.
        binary: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Nothing was run.
    #[error("cannot prepare a temporary folder for terraform")]
    Scratch(#[source] std::io::Error),
    /// Terraform ended with an error of its own.
    #[error("`terraform {command}` failed: {message}")]
    Failed {
        /// The subcommand, e.g. `apply`.
        command: String,
        /// Its error lines.
        message: String,
    },
    /// Terraform was asked to stop and ended; for `apply` the state says how far it came.
    #[error("`terraform {command}` took longer than {} s and was stopped; the last line seen: {last}", limit.as_secs())]
    TookTooLong {
        /// The subcommand.
        command: String,
        /// How long it was allowed to take.
        limit: Duration,
        /// The last line seen.
        last: String,
    },
    /// Ctrl-C or SIGTERM, passed on; for `apply` the state says how far it came.
    #[error("interrupted while `terraform {command}` ran")]
    Interrupted {
        /// The subcommand.
        command: String,
    },
    /// The state has no deployment, or one without the output.
    #[error("terraform's state in {} has no output `deployment`: run `terraform -chdir={} apply` first", directory.display(), directory.display())]
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
