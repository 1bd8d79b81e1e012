//! How `drawbridge` ends: a small number that scripts can rely on.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};

/// Exit status of `drawbridge`. `exec` passes the remote command's own status on instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything asked for is done and seen to be true.
    Done = 0,
    /// Something failed; the message says what and what to do.
    Failed = 1,
    /// The command line is wrong (clap's own status).
    Usage = 2,
    /// A private host is not complete; nothing was changed.
    NotReady = 3,
    /// Something stands in the way, and the message names it; nothing was changed.
    Refused = 4,
    /// The change was made, but not everything could be proven; `status`, `doctor`: not everything is known.
    Unproven = 5,
    /// `audit`: something is left over, or differs from what Terraform made; `status`, `doctor`: something is wrong.
    Found = 6,
    /// `exec`: no exit status of the remote command, as `ssh` does it.
    NoStatus = 255,
    /// Ctrl-C or SIGTERM; running the command again goes on.
    Interrupted = 130,
}

/// The same list for `--help`.
pub const HELP: &str = "\
Exit status:
  0    done
  1    failed: the message says what, and the next thing to try
  2    wrong usage
  3    a private host is not complete yet; nothing was changed
  4    refused: the message names what stands in the way; nothing was changed
  5    changed, but not everything could be proven; status, doctor: not everything is known
  6    audit, doctor, status: found something
  130  interrupted; run it again and it goes on
  255  exec, ssh: no exit status of the remote command";

impl Exit {
    /// How a look ends. What was found weighs more than what could not be learnt: it is certain.
    #[must_use]
    pub fn of_look(is_found: bool, is_unknown: bool) -> Self {
        match (is_found, is_unknown) {
            (true, _) => Self::Found,
            (false, true) => Self::Unproven,
            (false, false) => Self::Done,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What a shell says of a command that it found and cannot run.
pub(crate) const NOT_RUNNABLE: u8 = 126;

/// How a command of ours ended, as a shell tells it: its own status, or 128 + the signal that killed it.
pub(crate) fn as_shells_do(status: ExitStatus) -> u8 {
    let signal = status.signal().map(|signal| 128 + signal);
    let status = status.code().or(signal);
    // Both fit: statuses are a byte, signals end at 64.
    status
        .and_then(|status| u8::try_from(status).ok())
        .unwrap_or(NOT_RUNNABLE)
}
