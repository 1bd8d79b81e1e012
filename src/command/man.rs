//! `drawbridge man`: pages for man(1), from the same words as `--help`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Command, CommandFactory as _};
use clap_mangen::Man;

use super::cli::Cli;
use super::print;
use crate::exit::{self, Exit};

const HELP: &str = "\
Examples:
  drawbridge man | man -l -
  drawbridge man nat open | man -l -
  drawbridge man --output ~/.local/share/man/man1         drawbridge(1) and a page for each command

The package of the flake brings all pages along.

Exit status:
  0    printed, or written
  1    failed; there is no such command, or the folder cannot be written
  2    wrong usage";

/// Variables that are no option's.
const ENVIRONMENT: [(&str, &str); 8] = [
    (
        "AWS_PROFILE, AWS_ACCESS_KEY_ID, …",
        "Whose credentials: as the AWS SDKs read them, with ~/.aws and SSO.",
    ),
    (
        "AWS_REGION, AWS_DEFAULT_REGION",
        "Where images are published while nothing is deployed; afterwards the deployment's own region counts.",
    ),
    ("AWS_ENDPOINT_URL", "Another AWS than the real one."),
    (
        "BROWSER",
        "What `drawbridge open` starts, instead of the desktop's own program.",
    ),
    (
        "CI",
        "Set: a CI job. `drawbridge up` refuses a state on this machine's disk and opens no browser.",
    ),
    (
        "DRAWBRIDGE_TERRAFORM_MIRROR",
        "A folder to install the AWS provider from, instead of Terraform's registry.",
    ),
    ("SSH_AUTH_SOCK", "The agent whose keys sign in."),
    (
        "TF_DATA_DIR, TF_VAR_…",
        "As Terraform reads them. TF_CLI_ARGS is not passed on.",
    ),
];

const FILES: [(&str, &str); 6] = [
    (
        "terraform/nat.auto.tfvars.json",
        "The position of the NAT window: {\"nat_gateway\": true} or false, or true with the end of a lease.",
    ),
    (
        "terraform/images.auto.tfvars.json",
        "Which AMI each host starts from.",
    ),
    (
        "terraform/terraform.tfvars, terraform/backend_override.tf",
        "What is wanted, and where the state is kept.",
    ),
    (
        ".drawbridge/ssh_config, .drawbridge/known_hosts",
        "The way in for plain OpenSSH, written by `drawbridge ssh-config`.",
    ),
    (
        ".drawbridge/publish/",
        "What of an upload has arrived, for the next run.",
    ),
    (
        "~/.ssh/id_ed25519",
        "The key that signs in, without an agent and without --identity.",
    ),
];

/// Print a manual page, or write them all
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct ManArgs {
    /// The command whose page to print, e.g. nat open; default: drawbridge itself
    #[arg(value_name = "COMMAND", conflicts_with = "output")]
    command: Vec<String>,
    /// Write all pages to this folder instead, which is made if it is missing
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

impl ManArgs {
    /// Prints one, or writes all.
    ///
    /// # Errors
    /// When there is no such command, or the folder cannot be written.
    pub fn run(self) -> anyhow::Result<Exit> {
        let pages = pages()?;
        if let Some(folder) = &self.output {
            write(&pages, folder).with_context(|| {
                let folder = folder.display();
                format!("cannot write the pages to {folder}: name another folder with --output")
            })?;
            return Ok(Exit::Done);
        }
        let words = std::iter::once("drawbridge".to_owned()).chain(self.command);
        let name = words.collect::<Vec<_>>().join("-");
        let page = pages.get(&name).with_context(|| {
            format!("there is no page {name}: `drawbridge --help` lists the commands")
        })?;
        print(page);
        Ok(Exit::Done)
    }
}

/// The text of each page by its name: `drawbridge`, `drawbridge-nat-open`.
///
/// # Errors
/// None in practice: they are written to memory.
pub fn pages() -> io::Result<BTreeMap<String, String>> {
    let mut cli = Cli::command();
    cli.build();
    let mut pages = BTreeMap::new();
    collect(&cli, &mut pages)?;
    Ok(pages)
}

fn write(pages: &BTreeMap<String, String>, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for (name, page) in pages {
        fs::write(folder.join(format!("{name}.1")), page)?;
    }
    Ok(())
}

fn collect(command: &Command, pages: &mut BTreeMap<String, String>) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    pages.insert(name.to_owned(), page(command)?);
    for sub in subcommands(command) {
        collect(sub, pages)?;
    }
    Ok(())
}

/// Those that people call: clap adds `help` to each.
fn subcommands(command: &Command) -> impl Iterator<Item = &Command> {
    command
        .get_subcommands()
        .filter(|sub| sub.get_name() != "help" && !sub.is_hide_set())
}

fn page(command: &Command) -> io::Result<String> {
    // Its own heading for what follows the options would be EXTRA.
    let bare = command.clone().after_help("").after_long_help("");
    let man = Man::new(bare).date("").manual("Drawbridge");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    let mut page = String::from_utf8_lossy(&page).into_owned();
    let subs: Vec<_> = subcommands(command).collect();
    if !subs.is_empty() {
        page.push_str(".SH COMMANDS\n");
        for sub in subs {
            let name = sub.get_display_name().unwrap_or(sub.get_name());
            let about = sub.get_about().map(ToString::to_string);
            tagged(&mut page, &format!("{name}(1)"), &about.unwrap_or_default());
        }
    }
    let extra = Extra::of(command);
    verbatim(&mut page, "EXIT STATUS", &extra.exit_status);
    page.push_str(".SH ENVIRONMENT\n");
    for argument in command.get_arguments() {
        if let Some(variable) = argument.get_env() {
            let option = argument.get_long().unwrap_or_default();
            let text = format!("Instead of --{option}, which wins over it.");
            tagged(&mut page, &variable.to_string_lossy(), &text);
        }
    }
    for (name, text) in ENVIRONMENT {
        tagged(&mut page, name, text);
    }
    page.push_str(".SH FILES\n");
    for (name, text) in FILES {
        tagged(&mut page, name, text);
    }
    verbatim(&mut page, "NOTES", &extra.others);
    verbatim(&mut page, "EXAMPLES", &extra.examples);
    // Not every roff reads UTF-8, but each knows a character by its number.
    let mut ascii = String::with_capacity(page.len());
    for character in page.chars() {
        if character.is_ascii() {
            ascii.push(character);
        } else {
            ascii.push_str(&format!("\\[u{:04X}]", u32::from(character)));
        }
    }
    Ok(ascii)
}

/// What stands below the options in `--help`, by its headings.
#[derive(Debug, Default)]
struct Extra {
    examples: String,
    exit_status: String,
    others: String,
}

impl Extra {
    fn of(command: &Command) -> Self {
        let long = command.get_after_long_help();
        let text = long.or(command.get_after_help());
        let text = text.map(ToString::to_string).unwrap_or_default();
        let mut extra = Self::default();
        for part in text.split("\n\n").map(str::trim_end) {
            let (heading, rest) = part.split_once('\n').unwrap_or((part, ""));
            let (place, part) = match heading.split([':', ',', ' ']).next() {
                Some("Examples") => (&mut extra.examples, rest),
                // One with a condition says it in its heading.
                Some("Exit") if heading == "Exit status:" => (&mut extra.exit_status, rest),
                Some("Exit") => (&mut extra.exit_status, part),
                _ => (&mut extra.others, part),
            };
            if !place.is_empty() {
                place.push_str("\n\n");
            }
            place.push_str(part);
        }
        if extra.exit_status.is_empty() {
            let (_, all) = exit::HELP.split_once('\n').unwrap_or_default();
            all.clone_into(&mut extra.exit_status);
        }
        extra
    }
}

/// A section whose lines stay as they are; none without text.
fn verbatim(page: &mut String, heading: &str, text: &str) {
    if text.trim().is_empty() {
        return;
    }
    page.push_str(&format!(".SH \"{heading}\"\n.nf\n"));
    for line in text.lines() {
        page.push_str(&roff(line));
        page.push('\n');
    }
    page.push_str(".fi\n");
}

fn tagged(page: &mut String, name: &str, text: &str) {
    page.push_str(&format!(".TP\n\\fB{}\\fR\n{}\n", roff(name), roff(text)));
}

/// A line that means to roff nothing but its characters.
fn roff(line: &str) -> String {
    let escaped = line.replace('\\', "\\e").replace('-', "\\-");
    if escaped.starts_with(['.', '\'']) {
        format!("\\&{escaped}")
    } else {
        escaped
    }
}

#[cfg(test)]
mod tests {
    use std::process;

    use super::*;

    #[test]
    fn every_command_has_a_page_with_the_sections_people_look_for() {
        let pages = pages().unwrap();
        for name in ["drawbridge", "drawbridge-up", "drawbridge-nat-open"] {
            assert!(pages.contains_key(name), "{name}: {:?}", pages.keys());
        }
        for (name, page) in &pages {
            for section in [
                "NAME",
                "SYNOPSIS",
                "DESCRIPTION",
                "OPTIONS",
                "ENVIRONMENT",
                "FILES",
            ] {
                assert!(
                    page.contains(&format!(".SH {section}\n")),
                    "{name}: {section}"
                );
            }
            for section in ["EXIT STATUS", "EXAMPLES"] {
                let start = format!(".SH \"{section}\"\n.nf\n");
                let (_, rest) = page
                    .split_once(&start)
                    .unwrap_or_else(|| panic!("{name}: {section}"));
                assert!(!rest.starts_with(".fi"), "{name}: {section} is empty");
            }
        }
    }

    #[test]
    fn the_pages_are_without_a_fault_to_the_programs_that_read_them() {
        let folder = tempfile::tempdir().unwrap();
        write(&pages().unwrap(), folder.path()).unwrap();
        let files: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        // mandoc's warnings are about style as well; its errors are none of taste.
        for check in [
            &["groff", "-man", "-Tutf8", "-ww", "-z"][..],
            &["mandoc", "-Tlint", "-Werror"],
        ] {
            let mut command = process::Command::new(check[0]);
            match command.args(&check[1..]).args(&files).output() {
                Ok(read) => {
                    let said = String::from_utf8_lossy(&read.stderr);
                    let ok = read.status.success() && said.is_empty();
                    let out = String::from_utf8_lossy(&read.stdout);
                    assert!(ok, "{check:?}: {said}{out}");
                }
                // One that is not here finds nothing.
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound),
            }
        }
    }

    #[test]
    fn what_roff_would_read_as_its_own_is_a_text() {
        assert_eq!(roff(".drawbridge/x"), "\\&.drawbridge/x");
        assert_eq!(roff("a\\b --c"), "a\\eb \\-\\-c");
    }
}
