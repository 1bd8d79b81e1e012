//! `drawbridge rehearse` where there is no Linux to build a network of.

use clap::Args;

use crate::exit::Exit;

/// One line, instead of an unknown command.
pub const SAYS: &str = "drawbridge: the rehearsal is made of Linux namespaces: run `scripts/rehearse` on a Linux machine (a virtual one will do), or `drawbridge dev` here for the API alone; nothing was started";

const HELP: &str = "\
Examples:
  ssh linux-machine sudo drawbridge/scripts/rehearse
  drawbridge dev";

/// The whole deploy on one machine; on Linux only
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct RehearseElsewhere {
    /// Whatever it would take on Linux
    #[arg(
        value_name = "OPTION",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    options: Vec<String>,
}

impl RehearseElsewhere {
    /// Says so.
    #[must_use]
    pub fn run(self) -> Exit {
        eprintln!("{SAYS}");
        Exit::Refused
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Program {
        #[command(flatten)]
        rehearse: RehearseElsewhere,
    }

    #[test]
    fn whatever_linux_would_take_gets_the_one_line() {
        for options in [&["--exit", "--port", "0"][..], &[]] {
            let words = ["rehearse"].iter().chain(options);
            let program = Program::try_parse_from(words).map_err(|error| error.to_string());
            assert_eq!(program.unwrap().rehearse.run(), Exit::Refused);
        }
        assert!(SAYS.contains("`drawbridge dev`") && !SAYS.contains('\n'));
    }
}
