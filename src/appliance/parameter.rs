//! Names of the SSM parameters through which the hosts report and hand over what Terraform must not know.
//!
//! Terraform creates every one of them with the value [`PENDING`], so that `terraform destroy` removes them and the
//! instance roles can be limited to exact names. `name` is the deployment's name throughout.

use super::Role;

/// Value of a parameter that no host has written yet.
pub const PENDING: &str = "pending";

/// Bytes a standard-tier parameter holds at most.
/// <https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-advanced-parameters.html>
pub const SIZE_LIMIT_BYTES: usize = 4096;

/// Where a host reports how far its bootstrap is (JSON, [`super::BootstrapReport`]).
pub fn bootstrap_report(name: &str, role: Role) -> String {
    format!("/{name}/hosts/{role}/bootstrap")
}

/// Where a host publishes its SSH host key: one line `ssh-ed25519 AAAA…`, no comment.
pub fn ssh_host_key(name: &str, role: Role) -> String {
    format!("/{name}/hosts/{role}/ssh-host-key")
}

/// Where the database host publishes how the application logs in (SecureString, JSON
/// `{"username":"drawbridge_a","password":"…"}`).
pub fn database_login(name: &str) -> String {
    format!("/{name}/database/login")
}

/// Where the database host publishes the certificate its Postgres shows (PEM).
pub fn database_certificate(name: &str) -> String {
    format!("/{name}/database/certificate")
}
