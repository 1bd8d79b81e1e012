//! The command that `nat open` opens the window for: it has our terminal, and the window's time.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep_until};

use crate::exit::{NOT_RUNNABLE, as_shells_do};
use crate::interrupt::Interrupt;

/// After SIGTERM; `terraform apply` finishes the requests under way in that time (a deletion takes up to a minute), and the
/// lease has more left than this.
const GRACE: Duration = Duration::from_secs(120);

/// What a shell says of a command that it cannot find.
const NOT_FOUND: u8 = 127;

/// How the command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ended {
    /// As a shell tells it: its own exit status; 128 + the signal that killed it; 126 or 127 when it could not be run.
    pub status: u8,
    /// In words, when there is more to say than the status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
}

/// Runs `words` with our stdin, stdout, stderr and process group, so that a terminal's Ctrl-C reaches it as if it had
/// been started by hand. SIGTERM and SIGHUP, which reach us alone, are passed on as SIGTERM. At `end` it gets SIGTERM, 2 min
/// later SIGKILL. `interrupt` has seen no signal before: one that came while the command was being started is passed on too.
pub(super) async fn run(words: &[String], end: Instant, interrupt: &Interrupt) -> Ended {
    let [program, arguments @ ..] = words else {
        return Ended {
            status: NOT_FOUND,
            said: Some("there is no command".to_owned()),
        };
    };
    let mut child = match Command::new(program).args(arguments).spawn() {
        Ok(child) => child,
        Err(error) => {
            let is_missing = error.kind() == std::io::ErrorKind::NotFound;
            return Ended {
                status: if is_missing { NOT_FOUND } else { NOT_RUNNABLE },
                said: Some(format!("cannot run `{program}`: {error}")),
            };
        }
    };
    let mut terminations = 0;
    let mut deadline = end;
    let mut said = None;
    loop {
        tokio::select! {
            ended = child.wait() => return match ended {
                Ok(status) => Ended { status: as_shells_do(status), said },
                Err(error) => Ended { status: NOT_RUNNABLE, said: Some(format!("lost `{program}`: {error}")) },
            },
            () = interrupt.terminated(terminations) => {
                terminations += 1;
                signal(&child, Signal::SIGTERM);
            }
            () = sleep_until(deadline) => {
                signal(&child, if said.is_none() { Signal::SIGTERM } else { Signal::SIGKILL });
                said = Some("the time was over".to_owned());
                deadline = Instant::now() + GRACE;
            }
        }
    }
}

// The child may have ended in between; then there is nobody left to tell.
fn signal(child: &Child, signal: Signal) {
    if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
        let _ = kill(Pid::from_raw(id), signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(script: &str, limit: Duration) -> Ended {
        let words = ["sh", "-c", script].map(str::to_owned);
        run(&words, Instant::now() + limit, &Interrupt::never()).await
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_status_is_the_commands_own_and_a_signal_is_told_as_shells_do() {
        assert_eq!(sh("exit 0", LONG).await.status, 0);
        assert_eq!(sh("exit 7", LONG).await.status, 7);
        assert_eq!(sh("kill -9 $$", LONG).await.status, 137);
    }

    #[tokio::test]
    async fn what_cannot_be_run_is_told_as_shells_do() {
        let end = Instant::now() + LONG;
        let missing = run(&["no-such-program".to_owned()], end, &Interrupt::never()).await;
        assert_eq!(missing.status, 127);
        assert!(missing.said.unwrap().contains("no-such-program"));
        let folder = run(&["/".to_owned()], end, &Interrupt::never()).await;
        assert_eq!(folder.status, 126);
    }

    #[tokio::test]
    async fn at_the_end_of_its_time_it_is_told_so() {
        let ended = sh("exec sleep 30", Duration::from_millis(300)).await;
        assert_eq!(ended.status, 143);
        assert_eq!(ended.said.as_deref(), Some("the time was over"));
        let ended = sh(
            "trap 'exit 5' TERM; while :; do sleep 0.1; done",
            Duration::from_millis(500),
        )
        .await;
        assert_eq!(ended.status, 5);
    }
}
