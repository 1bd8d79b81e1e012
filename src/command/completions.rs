//! `drawbridge completions`

use clap::{Args, CommandFactory as _, ValueEnum};
use clap_complete::aot::{Shell as Known, generate};

use super::cli::Cli;
use super::print;

const HELP: &str = "\
Examples:
  drawbridge completions bash >~/.local/share/bash-completion/completions/drawbridge
  drawbridge completions zsh >~/.zfunc/_drawbridge        # with fpath=(~/.zfunc $fpath) before compinit
  drawbridge completions fish >~/.config/fish/completions/drawbridge.fish

The package of the flake brings all three along.

Exit status:
  0    printed
  2    wrong usage";

/// Print completions for a shell
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct CompletionsArgs {
    /// Which shell they are for
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// A shell that completions are made for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Shell {
    /// GNU Bash with bash-completion
    Bash,
    /// Z shell
    Zsh,
    /// fish
    Fish,
}

impl CompletionsArgs {
    /// Prints them.
    pub fn run(self) {
        print(&completions(self.shell));
    }
}

/// What the shell reads.
#[must_use]
pub fn completions(shell: Shell) -> String {
    let known = match shell {
        Shell::Bash => Known::Bash,
        Shell::Zsh => Known::Zsh,
        Shell::Fish => Known::Fish,
    };
    let mut text = Vec::new();
    generate(known, &mut Cli::command(), "drawbridge", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Each shell that is on this machine reads its own without running it; all name the commands, and the hosts as values.
    #[test]
    fn completions_name_commands_and_hosts_and_the_shells_read_them() {
        let folder = tempfile::tempdir().unwrap();
        for (shell, program) in [
            (Shell::Bash, "bash"),
            (Shell::Zsh, "zsh"),
            (Shell::Fish, "fish"),
        ] {
            let text = completions(shell);
            let mut names: Vec<_> = Cli::command()
                .get_subcommands()
                .filter(|command| !command.is_hide_set())
                .map(|command| command.get_name().to_owned())
                .collect();
            names.extend(["bastion", "backend", "database"].map(str::to_owned));
            for name in names {
                assert!(text.contains(&name), "{program}: {name}");
            }
            let file = folder.path().join(program);
            std::fs::write(&file, text).unwrap();
            match Command::new(program).arg("-n").arg(&file).output() {
                Ok(read) => assert!(
                    read.status.success() && read.stderr.is_empty(),
                    "{program}: {}",
                    String::from_utf8_lossy(&read.stderr)
                ),
                // A shell that is not here reads nothing.
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
            }
        }
    }

    /// As `_init_completion` would call it: the words so far in, what may follow out.
    #[test]
    fn bash_completes_a_host() {
        let script = format!(
            "{}\nCOMP_WORDS=(drawbridge exec ba) COMP_CWORD=2\n_drawbridge drawbridge ba exec\necho \"${{COMPREPLY[*]}}\"",
            completions(Shell::Bash)
        );
        let Ok(ended) = Command::new("bash").args(["-c", &script]).output() else {
            return;
        };
        let said = String::from_utf8_lossy(&ended.stdout);
        assert_eq!(said.trim(), "bastion backend", "{ended:?}");
    }
}
