//! `drawbridge exec`: a command on one host, or on all of them side by side.

use std::io::{ErrorKind, IsTerminal as _};
use std::sync::Arc;

use clap::Args;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::Mutex;

use super::DeploymentArgs;
use super::access::{AccessArgs, access};
use crate::appliance::Role;
use crate::bastion::exec::command_line;
use crate::bastion::{Access, SshError};
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::progress::{Progress, escape};

/// A shell's status of a program that wrote to a pipe whose reader had seen enough: 128 + SIGPIPE.
const CLOSED_PIPE: u8 = 128 + 13;
/// What is read of a host before it is passed on.
const PIPE_BYTES: usize = 64 * 1024;
/// A longer line is passed on in pieces of this size, so that no host can fill the memory here.
const LONGEST_LINE: usize = 64 * 1024;

const HELP: &str = "\
Examples:
  drawbridge exec backend -- journalctl -u drawbridge-api -n 50
  drawbridge exec backend -- 'df -h / | tail -1'          # one word: a line for the shell there
  drawbridge exec database -- sudo -u postgres pg_dump drawbridge > backup.sql
  drawbridge exec backend -- sh -s < script.sh
  drawbridge exec --all -- uptime                         # a prefix on each line

Exit status: the command's own. 128 + n if signal n ended it there, 141 if whoever reads our output stopped reading,
255 without any (not connected, or lost on the way), 130 for Ctrl-C. With --all 0 if all are 0, else the highest.";

/// Run a command on a host, through the bastion; its exit status becomes ours
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct ExecArgs {
    #[command(flatten)]
    deployment: DeploymentArgs,
    #[command(flatten)]
    access: AccessArgs,
    /// On bastion, backend and database side by side, without input; each line says where it is from
    #[arg(long, conflicts_with = "host")]
    all: bool,
    /// bastion, backend or database
    #[arg(required_unless_present = "all")]
    host: Option<Role>,
    /// One word is a line for the host's shell; several words are run as they are
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

impl ExecArgs {
    /// Runs it; an error is for [`super::report_error`].
    ///
    /// # Errors
    /// None: whatever kept the command from being run to its end is reported, and is a status.
    pub async fn run(self, progress: &Progress, interrupt: &Interrupt) -> anyhow::Result<u8> {
        let line = line(&self.command);
        let work = async {
            let (access, _) = access(&self.deployment, &self.access, progress, interrupt).await?;
            match self.host {
                Some(host) => Ok(Ran::One(one(&access, host, &line, progress).await?)),
                None => {
                    let ended = everywhere(&access, &line, progress).await;
                    Ok(Ran::All(Box::new(ended.map_err(anyhow::Error::from)?)))
                }
            }
        };
        let ended = tokio::select! {
            ended = work => ended,
            () = interrupt.requested() => return Ok(Exit::Interrupted as u8),
        };
        progress.clear();
        Ok(match ended {
            Ok(Ran::All(ended)) => worst(*ended, progress),
            Ok(Ran::One(ended)) => status(Ok(ended), progress, interrupt),
            Err(error) => status(Err(error), progress, interrupt),
        })
    }
}

/// How it ended on each host.
type Everywhere = [(Role, Result<u32, SshError>); 3];

enum Ran {
    One(u32),
    All(Box<Everywhere>),
}

/// The words of a command line as one line for the host's shell.
pub(super) fn line(words: &[String]) -> String {
    match words {
        [line] => line.clone(),
        words => command_line(words),
    }
}

async fn one(access: &Access, host: Role, line: &str, progress: &Progress) -> anyhow::Result<u32> {
    let session = access.connect(host).await?;
    progress.clear();
    let (stdin, stdout, stderr) = (tokio::io::stdin(), tokio::io::stdout(), tokio::io::stderr());
    let ended = session.run(line, stdin, stdout, stderr).await;
    session.close().await;
    Ok(ended?)
}

/// The status that a command's end becomes, and the words for what is not a status.
pub(super) fn status(ended: anyhow::Result<u32>, progress: &Progress, interrupt: &Interrupt) -> u8 {
    let error = match ended {
        Ok(status) => return passed_on(status),
        Err(error) => error,
    };
    let status = error.downcast_ref().map_or(Exit::NoStatus as u8, of_error);
    if status != CLOSED_PIPE {
        let _ = super::report_error(&error, progress, interrupt);
    }
    status
}

// Statuses above 255 do not exist on POSIX hosts; what cannot be passed on is no success.
fn passed_on(status: u32) -> u8 {
    u8::try_from(status).unwrap_or(Exit::NoStatus as u8)
}

fn of_error(error: &SshError) -> u8 {
    match error {
        SshError::Local { source, .. } if source.kind() == ErrorKind::BrokenPipe => CLOSED_PIPE,
        SshError::Signal { signal, .. } => number(signal).map_or(Exit::NoStatus as u8, |n| 128 + n),
        _ => Exit::NoStatus as u8,
    }
}

/// The numbers on the hosts, which run Linux, of the signals that SSH has names for (RFC 4254 section 6.10, and sshd's own).
fn number(signal: &str) -> Option<u8> {
    Some(match signal {
        "HUP" => 1,
        "INT" => 2,
        "QUIT" => 3,
        "ILL" => 4,
        "ABRT" => 6,
        "FPE" => 8,
        "KILL" => 9,
        "USR1" => 10,
        "SEGV" => 11,
        "USR2" => 12,
        "PIPE" => 13,
        "ALRM" => 14,
        "TERM" => 15,
        _ => return None,
    })
}

/// Says which hosts did not end with 0, and returns the highest status.
fn worst(ended: Everywhere, progress: &Progress) -> u8 {
    let mut worst = 0;
    for (role, ended) in ended {
        let status = match ended {
            Ok(0) => 0,
            Ok(status) => {
                progress.say_always(&format!("drawbridge: {role}: exit status {status}"));
                passed_on(status)
            }
            Err(error) => {
                let status = of_error(&error);
                let error = anyhow::Error::new(error);
                progress.say_always(&format!("drawbridge: {role}: {error:#}"));
                status
            }
        };
        worst = worst.max(status);
    }
    worst
}

/// Runs `line` on all hosts at once. An error is a closed pipe of ours, which ends all of them; what else goes wrong is a
/// host's own.
async fn everywhere(
    access: &Access,
    line: &str,
    progress: &Progress,
) -> Result<Everywhere, SshError> {
    let outputs = Outputs {
        stdout: Sink::new(tokio::io::stdout(), std::io::stdout().is_terminal()),
        stderr: Sink::new(tokio::io::stderr(), std::io::stderr().is_terminal()),
    };
    let on = |host: Role| {
        let outputs = &outputs;
        async move {
            match on_one(access, host, line, outputs, progress).await {
                Err(error) if of_error(&error) == CLOSED_PIPE => Err(error),
                ended => Ok((host, ended)),
            }
        }
    };
    let [first, second, third] = Role::ALL;
    let (first, second, third) = tokio::try_join!(on(first), on(second), on(third))?;
    Ok([first, second, third])
}

struct Outputs {
    stdout: Sink<tokio::io::Stdout>,
    stderr: Sink<tokio::io::Stderr>,
}

/// Where lines of several hosts go, whole.
struct Sink<W> {
    to: Arc<Mutex<W>>,
    /// A terminal gets no sequences from a host in lines of ours.
    is_terminal: bool,
}

impl<W: AsyncWrite + Unpin> Sink<W> {
    fn new(to: W, is_terminal: bool) -> Self {
        Self {
            to: Arc::new(Mutex::new(to)),
            is_terminal,
        }
    }

    async fn write(&self, host: Role, line: &[u8]) -> std::io::Result<()> {
        let mut whole = format!("{host:<8} | ").into_bytes();
        if self.is_terminal {
            whole.extend(escape(&String::from_utf8_lossy(line)).bytes());
        } else {
            whole.extend(line);
        }
        whole.push(b'\n');
        let mut to = self.to.lock().await;
        to.write_all(&whole).await?;
        to.flush().await
    }

    /// Passes lines on until there are no more.
    async fn relay(&self, host: Role, from: impl AsyncRead + Unpin) -> std::io::Result<()> {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        loop {
            let read = from.fill_buf().await?;
            if read.is_empty() {
                break;
            }
            let room = read.len().min(LONGEST_LINE - line.len());
            let end = read[..room].iter().position(|byte| *byte == b'\n');
            line.extend(&read[..end.unwrap_or(room)]);
            let is_whole = end.is_some() || line.len() == LONGEST_LINE;
            let taken = end.map_or(room, |end| end + 1);
            from.consume(taken);
            if is_whole {
                self.write(host, &line).await?;
                line.clear();
            }
        }
        if line.is_empty() {
            return Ok(());
        }
        self.write(host, &line).await
    }
}

async fn on_one(
    access: &Access,
    host: Role,
    line: &str,
    outputs: &Outputs,
    progress: &Progress,
) -> Result<u32, SshError> {
    let session = access.connect(host).await?;
    progress.clear();
    let (stdout, out) = tokio::io::duplex(PIPE_BYTES);
    let (stderr, err) = tokio::io::duplex(PIPE_BYTES);
    let (ended, out, err) = tokio::join!(
        session.run(line, tokio::io::empty(), stdout, stderr),
        outputs.stdout.relay(host, out),
        outputs.stderr.relay(host, err),
    );
    session.close().await;
    // What went wrong on our side explains the rest.
    let local = |source| SshError::Local { host, source };
    out.and(err).map_err(local)?;
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_of_a_host_say_where_they_are_from_and_carry_nothing_to_a_terminal() {
        for (is_terminal, shown) in [(true, "\\u{1b}[2J"), (false, "\u{1b}[2J")] {
            let sink = Sink::new(Vec::new(), is_terminal);
            let from = "a\n\u{1b}[2J\nrest";
            sink.relay(Role::Backend, from.as_bytes()).await.unwrap();
            let text = String::from_utf8(sink.to.lock().await.clone()).unwrap();
            assert_eq!(
                text,
                format!("backend  | a\nbackend  | {shown}\nbackend  | rest\n")
            );
        }
    }

    #[tokio::test]
    async fn a_line_without_end_is_passed_on_in_pieces() {
        let sink = Sink::new(Vec::new(), false);
        let from = vec![b'x'; 3 * LONGEST_LINE + 1];
        sink.relay(Role::Database, from.as_slice()).await.unwrap();
        let text = sink.to.lock().await.clone();
        let lines: Vec<_> = text.split(|byte| *byte == b'\n').collect();
        assert_eq!(lines.len(), 5, "four pieces and the end");
        assert_eq!(lines[0].len(), "database | ".len() + LONGEST_LINE);
    }

    #[test]
    fn a_signal_becomes_the_status_a_shell_gives_it() {
        let ended = |signal: &str| {
            of_error(&SshError::Signal {
                host: Role::Backend,
                signal: signal.to_owned(),
            })
        };
        assert_eq!((ended("KILL"), ended("TERM")), (137, 143));
        assert_eq!(ended("SIG@openssh.com"), 255);
    }
}
