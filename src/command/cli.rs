//! The command line as clap reads it: what there is. What each does is in its own file.

use clap::{Parser, Subcommand};

use super::access::SshConfigArgs;
use super::audit::AuditArgs;
use super::completions::CompletionsArgs;
use super::cost::CostArgs;
use super::deploy::DeployArgs;
use super::doctor::DoctorArgs;
#[cfg(not(target_os = "linux"))]
use super::elsewhere::RehearseElsewhere;
use super::exec::ExecArgs;
use super::image::ImageCommand;
use super::logs::LogsArgs;
use super::man::ManArgs;
use super::nat::NatCommand;
use super::psql::PsqlArgs;
use super::rotate::RotateArgs;
use super::ssh::SshArgs;
use super::status::StatusArgs;
use super::tunnel::TunnelArgs;
use super::up::{OpenArgs, UpArgs};
use crate::dev::DevArgs;
#[cfg(target_os = "linux")]
use crate::rehearsal::RehearseArgs;

const HELP: &str = "\
Examples:
  drawbridge up                          from nothing, or from an interrupted run, to /docs in the browser
  drawbridge nat status                  the window; what it has cost
  drawbridge exec backend -- uptime
  drawbridge up --help                   each command has examples and its exit statuses

";

/// A Rust API and its Postgres on EC2, behind a NAT gateway that stands only while they bootstrap
#[derive(Parser)]
#[command(name = "drawbridge", version, after_help = HELP.to_owned() + crate::exit::HELP)]
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
    Status(StatusArgs),
    Doctor(DoctorArgs),
    #[command(subcommand)]
    Nat(NatCommand),
    #[command(subcommand)]
    Image(ImageCommand),
    Audit(AuditArgs),
    Cost(CostArgs),
    Ssh(SshArgs),
    Deploy(DeployArgs),
    Exec(ExecArgs),
    Logs(LogsArgs),
    Psql(PsqlArgs),
    Tunnel(TunnelArgs),
    SshConfig(SshConfigArgs),
    RotatePassword(RotateArgs),
    #[cfg(target_os = "linux")]
    Rehearse(RehearseArgs),
    #[cfg(not(target_os = "linux"))]
    Rehearse(RehearseElsewhere),
    Dev(DevArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// Every command that people call, with its words: `drawbridge nat open`.
    fn commands() -> Vec<clap::Command> {
        fn collect(command: &clap::Command, all: &mut Vec<clap::Command>) {
            all.push(command.clone());
            let subs = command.get_subcommands();
            for sub in subs.filter(|sub| sub.get_name() != "help" && !sub.is_hide_set()) {
                collect(sub, all);
            }
        }
        let mut cli = Cli::command();
        cli.build();
        let mut all = Vec::new();
        collect(&cli, &mut all);
        all
    }

    fn words(command: &clap::Command) -> String {
        let words = command.get_bin_name();
        words.unwrap_or(command.get_name()).to_owned()
    }

    #[test]
    fn the_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does_and_shows_an_example_of_itself() {
        let mut findings = Vec::new();
        for command in commands() {
            let words = words(&command);
            if command.get_about().is_none() {
                findings.push(format!("{words} has no about"));
            }
            let long = command.get_after_long_help();
            let after = long.or(command.get_after_help());
            let after = after.map(ToString::to_string).unwrap_or_default();
            let examples = after.split_once("Examples:\n").unwrap_or_default().1;
            let mut own = examples.lines().take_while(|line| !line.is_empty());
            // Some are called by another, a pipe or a variable.
            if !own.any(|line| line.contains(&words)) {
                findings.push(format!("{words} shows no example of itself"));
            }
        }
        assert_eq!(findings, Vec::<String>::new());
    }

    #[test]
    fn every_argument_has_a_help_text_and_a_name_for_its_value() {
        let mut findings = Vec::new();
        for command in commands() {
            for argument in command.get_arguments().filter(|one| !one.is_hide_set()) {
                let name = format!("{} {}", words(&command), argument.get_id());
                if argument.get_help().is_none() {
                    findings.push(format!("{name} has no help"));
                }
                let is_flag = !argument.get_action().takes_values();
                let names = argument.get_value_names().unwrap_or_default();
                if !is_flag && names.is_empty() {
                    findings.push(format!("{name} has no value name"));
                }
            }
        }
        assert_eq!(findings, Vec::<String>::new());
    }

    /// What examples show is taken by the parser; a placeholder is none.
    #[test]
    fn the_examples_are_command_lines_that_are_taken() {
        let (mut tried, mut findings) = (0, Vec::new());
        for command in commands() {
            let long = command.get_after_long_help();
            let after = long.or(command.get_after_help());
            let after = after.map(ToString::to_string).unwrap_or_default();
            let Some((_, examples)) = after.split_once("Examples:\n") else {
                continue;
            };
            for line in examples.lines().take_while(|line| !line.is_empty()) {
                let line = line.trim();
                // Lines of a shell with quotes or expansions are the shell's.
                if !line.starts_with("drawbridge ") || line.contains(['\'', '"', '$', '…']) {
                    continue;
                }
                // The example ends where its remark, a pipe or a redirection begins.
                let line = line.split("  ").next().unwrap_or(line);
                let line = line.split(['|', '<', '>', '#', '&']).next().unwrap_or(line);
                let taken = Cli::try_parse_from(line.split_whitespace());
                use clap::error::ErrorKind::{DisplayHelp, DisplayVersion};
                if let Err(error) = taken
                    && ![DisplayHelp, DisplayVersion].contains(&error.kind())
                {
                    findings.push(format!("{line}: {error}"));
                }
                tried += 1;
            }
        }
        assert_eq!(findings, Vec::<String>::new());
        assert!(tried > 20, "only {tried} examples were tried");
    }
}
