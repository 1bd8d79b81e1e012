//! The command line as clap reads it: what there is. What each does is in its own file.

use clap::{Parser, Subcommand};

use super::access::SshConfigArgs;
use super::audit::AuditArgs;
use super::cost::CostArgs;
use super::exec::ExecArgs;
use super::image::ImageCommand;
use super::logs::LogsArgs;
use super::nat::NatCommand;
use super::psql::PsqlArgs;
use super::rotate::RotateArgs;
use super::ssh::SshArgs;
use super::tunnel::TunnelArgs;
use super::up::{OpenArgs, UpArgs};
use crate::dev::DevArgs;
use crate::exit;
#[cfg(target_os = "linux")]
use crate::rehearsal::RehearseArgs;

/// A Rust API and its Postgres on EC2, behind a NAT gateway that stands only while they bootstrap
#[derive(Parser)]
#[command(name = "drawbridge", version, after_help = exit::HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands, in the order of `--help`.
#[derive(Subcommand)]
#[allow(
    missing_docs,
    reason = "each variant is documented where its arguments are"
)]
pub enum Command {
    Up(UpArgs),
    Open(OpenArgs),
    #[command(subcommand)]
    Nat(NatCommand),
    #[command(subcommand)]
    Image(ImageCommand),
    Audit(AuditArgs),
    Cost(CostArgs),
    Ssh(SshArgs),
    Exec(ExecArgs),
    Logs(LogsArgs),
    Psql(PsqlArgs),
    Tunnel(TunnelArgs),
    SshConfig(SshConfigArgs),
    RotatePassword(RotateArgs),
    #[cfg(target_os = "linux")]
    Rehearse(RehearseArgs),
    Dev(DevArgs),
}
