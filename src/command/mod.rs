//! The operator's commands: arguments in, library called, result printed, exit status out.

pub mod access;
pub mod audit;
pub mod cli;
pub mod completions;
pub mod cost;
pub mod deploy;
pub mod doctor;
pub mod elsewhere;
pub mod exec;
pub mod image;
pub mod logs;
pub mod man;
pub mod nat;
pub mod psql;
pub mod rotate;
pub mod ssh;
pub mod status;
pub mod tunnel;
pub mod up;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use crate::appliance::Role;
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::terraform::{DIRECTORY_VARIABLE, Terraform, TerraformError};

/// Which deployment.
#[derive(Args, Clone, Debug)]
pub struct DeploymentArgs {
    /// Folder with the Terraform files; default: `terraform` here or in the nearest folder above
    #[arg(long, value_name = "DIR", env = DIRECTORY_VARIABLE)]
    pub terraform_dir: Option<PathBuf>,
}

impl DeploymentArgs {
    /// Terraform in that folder, showing its lines and passing signals on.
    ///
    /// # Errors
    /// When terraform or the folder is missing.
    pub fn terraform(
        &self,
        progress: &Progress,
        interrupt: &Interrupt,
    ) -> Result<Terraform, TerraformError> {
        let terraform = Terraform::find(self.terraform_dir.as_deref())?;
        Ok(terraform
            .with_progress(progress.clone())
            .with_interrupt(interrupt.clone()))
    }
}

/// On the command line a role is one of three words, which shells complete.
impl ValueEnum for Role {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.as_str()))
    }
}

/// Prints an error with its causes on one line and says how to exit: whatever fails after a signal failed because of it.
#[must_use]
pub fn report_error(error: &anyhow::Error, progress: &Progress, interrupt: &Interrupt) -> Exit {
    progress.clear();
    progress.say_always(&format!("drawbridge: {error:#}"));
    if interrupt.count() > 0 {
        Exit::Interrupted
    } else {
        Exit::Failed
    }
}

/// `--json`: readable by people too, so the control characters that JSON lets stand as they are (DEL and C1, which begin
/// terminal sequences as ESC does) are written as escapes.
fn json(value: &impl serde::Serialize) -> anyhow::Result<String> {
    Ok(without_controls(&serde_json::to_string_pretty(value)?) + "\n")
}

/// The same on one line, for what is read while more may come.
fn json_line(value: &impl serde::Serialize) -> anyhow::Result<String> {
    Ok(without_controls(&serde_json::to_string(value)?) + "\n")
}

fn without_controls(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '\u{7f}'..='\u{9f}' => text.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => text.push(character),
        }
    }
    text
}

// A closed pipe is not an error: whoever read it has seen enough.
fn print(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// Reads `90s`, `15m`, `2h` (whole numbers).
///
/// # Errors
/// A text that says what would be right.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a time like 90s, 15m or 2h");
    let units = [('s', 1), ('m', 60), ('h', 3600)];
    let found = units
        .iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(*unit)?, seconds)));
    let (number, seconds) = found.ok_or_else(wrong)?;
    let number: u32 = number.parse().map_err(|_| wrong())?;
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_holds_no_control_characters_and_means_the_same() {
        let said = ["\u{1b}[2J\u{9b}2J\u{7f}", "grün"];
        let text = json(&said).unwrap();
        assert!(
            text.trim_end()
                .lines()
                .all(|line| !line.contains(char::is_control)),
            "{text:?}"
        );
        let read: Vec<String> = serde_json::from_str(&text).unwrap();
        assert_eq!(read, said);
    }

    #[test]
    fn a_time_needs_its_unit() {
        assert_eq!(duration("15m").unwrap().as_secs(), 900);
        for wrong in ["", "15", "m", "1.5h", "-1s", "1d", "5ss"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
