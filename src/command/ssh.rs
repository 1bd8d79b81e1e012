//! `drawbridge ssh`: a shell or a command at a terminal there.

use std::io::{self, IsTerminal as _};

use anyhow::Context as _;
use clap::Args;

use super::DeploymentArgs;
use super::access::{AccessArgs, access};
use super::exec::{line, status};
use crate::appliance::Role;
use crate::bastion::shell::{Ended, Terminal};
use crate::bastion::terminal::{Mode, Resizes, Size};
use crate::bastion::{Session, SshError};
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::progress::Progress;

const HELP: &str = "\
Examples:
  drawbridge ssh backend
  drawbridge ssh database -- sudo -u postgres psql drawbridge -c 'select 1'
  drawbridge ssh -t backend -- sudo systemctl edit --runtime drawbridge-api
  drawbridge ssh backend < script.sh                      # without a terminal, as ssh does

At a terminal all keys go to the host, Ctrl-C too; Enter ~ . leaves a session that hangs, Enter ~ ? tells more.

Exit status: that of the shell or command. 128 + n if signal n ended it there, 255 without any (not connected, lost on
the way, or left with ~.), 130 if this program was told to end.";

/// Open a shell on a host, through the bastion, or run a command at a terminal there
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct SshArgs {
    #[command(flatten)]
    deployment: DeploymentArgs,
    #[command(flatten)]
    access: AccessArgs,
    /// Give a command a terminal too; without it only a shell has one
    #[arg(short = 't', long)]
    terminal: bool,
    /// bastion, backend or database
    host: Role,
    /// As for `exec`: one word is a line for the host's shell; several words are run as they are
    #[arg(last = true)]
    command: Vec<String>,
}

impl SshArgs {
    /// Runs it; an error is for [`super::report_error`].
    ///
    /// # Errors
    /// None: whatever kept the shell or command from being run to its end is reported, and is a status.
    pub async fn run(self, progress: &Progress, interrupt: &Interrupt) -> anyhow::Result<u8> {
        let work = async {
            let (access, _) = access(&self.deployment, &self.access, progress, interrupt).await?;
            let session = access.connect(self.host).await?;
            progress.clear();
            let ended = self.attend(&session).await;
            session.close().await;
            ended
        };
        let ended = tokio::select! {
            ended = work => ended,
            () = interrupt.requested() => return Ok(Exit::Interrupted as u8),
        };
        progress.clear();
        if let Ok(Ended::Left) = ended {
            progress.say_always(&format!(
                "drawbridge: left {}; what ran there may still run",
                self.host
            ));
            return Ok(Exit::NoStatus as u8);
        }
        let ended = ended.map(|ended| match ended {
            Ended::Status(status) => status,
            Ended::Left => Exit::NoStatus as u32,
        });
        Ok(status(ended, progress, interrupt))
    }

    async fn attend(&self, session: &Session) -> anyhow::Result<Ended> {
        let command = (!self.command.is_empty()).then(|| line(&self.command));
        let here = io::stdin().is_terminal();
        let (stdin, stdout) = (tokio::io::stdin(), tokio::io::stdout());
        if self.terminal || (command.is_none() && here) {
            return at_terminal(session, command.as_deref(), here).await;
        }
        let stderr = tokio::io::stderr();
        let status = match command {
            Some(command) => session.run(&command, stdin, stdout, stderr).await?,
            None => session.run_shell(stdin, stdout, stderr).await?,
        };
        Ok(Ended::Status(status))
    }
}

async fn at_terminal(
    session: &Session,
    command: Option<&str>,
    here: bool,
) -> anyhow::Result<Ended> {
    let mut resizes = Resizes::listen().context("cannot listen for changes of the window")?;
    // Dropped with this future, however it ends, and so before anything is printed about that.
    let raw = here.then(|| Mode::raw(io::stdin())).transpose();
    let raw = raw.context("cannot make the terminal raw")?;
    let terminal = Terminal {
        name: std::env::var("TERM").unwrap_or_else(|_| "dumb".to_owned()),
        size: Size::of(io::stdin()),
        modes: raw.as_ref().map(Mode::for_the_far_side).unwrap_or_default(),
        escapes: here,
    };
    let (stdin, stdout) = (tokio::io::stdin(), tokio::io::stdout());
    let ended = session.interact(command, &terminal, stdin, stdout, &mut resizes);
    ended.await.map_err(|error: SshError| error.into())
}
