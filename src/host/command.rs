//! Running the machine's own tools. Secrets go in and out through pipes, never as arguments.

use std::ffi::{OsStr, OsString};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::Secret;

/// A tool did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Not on PATH, or not executable.
    #[error("cannot run {program}; it belongs to the image")]
    Start {
        /// The program's name.
        program: String,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// Ran too long and was killed.
    #[error("{line} did not end within {seconds} s and was stopped", seconds = limit.as_secs())]
    Timeout {
        /// Program and arguments.
        line: String,
        /// The limit.
        limit: Duration,
    },
    /// Ended with another status than expected.
    #[error("{line} failed ({status}): {said}")]
    Failed {
        /// Program and arguments.
        line: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote to its standard error.
        said: String,
    },
}

/// Status and standard output of a tool.
pub struct Answer {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    line: String,
    said: String,
}

impl Answer {
    /// Turns any status but 0 into an error.
    pub fn checked(self) -> Result<Vec<u8>, CommandError> {
        if self.status.success() {
            Ok(self.stdout)
        } else {
            Err(self.into_error())
        }
    }

    /// The error for a status that the caller did not expect.
    pub fn into_error(self) -> CommandError {
        CommandError::Failed {
            line: self.line,
            status: self.status,
            said: self.said,
        }
    }
}

/// Runs a tool, found on PATH if it is only a name, to its end, for at most `limit`, with nothing or a secret as its standard input.
pub async fn run<A: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    arguments: &[A],
    input: Option<&Secret>,
    limit: Duration,
) -> Result<Answer, CommandError> {
    let arguments: Vec<OsString> = arguments.iter().map(|a| a.as_ref().into()).collect();
    let program = program.as_ref();
    let failed = |source| CommandError::Start {
        program: program.to_string_lossy().into_owned(),
        source,
    };
    let line = std::iter::once(program.to_string_lossy())
        .chain(arguments.iter().map(|a| a.to_string_lossy()))
        .collect::<Vec<_>>()
        .join(" ");
    let mut child = Command::new(program)
        .args(&arguments)
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let pipe = child.stdin.take();
    let work = async {
        if let (Some(mut pipe), Some(secret)) = (pipe, input) {
            // A tool that ends without reading says why on its standard error; the broken pipe adds nothing.
            let _ = pipe.write_all(secret.expose().as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = timeout(limit, work)
        .await
        .map_err(|_| CommandError::Timeout {
            line: line.clone(),
            limit,
        })?
        .map_err(failed)?;
    let said = tail(&String::from_utf8_lossy(&output.stderr));
    let said = input.map_or(said.clone(), |secret| secret.redact(&said));
    Ok(Answer {
        status: output.status,
        stdout: output.stdout,
        line,
        said,
    })
}

/// The last lines of what a tool said, on one line and at most 400 characters.
fn tail(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let excess = words.chars().count().saturating_sub(400);
    words.chars().skip(excess).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_tool_gets_its_secret_through_the_pipe() {
        let secret = Secret::new("sesame");
        let answer = run::<&str>("cat", &[], Some(&secret), SOON).await.unwrap();
        assert_eq!(answer.checked().unwrap(), b"sesame");
    }

    #[tokio::test]
    async fn a_failure_says_what_the_tool_said_but_not_the_secret() {
        let secret = Secret::new("sesame");
        let script = "cat >&2; echo ' is wrong' >&2; exit 3";
        let error = run("sh", &["-c", script], Some(&secret), SOON)
            .await
            .unwrap()
            .checked()
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("exit status: 3") && error.ends_with("[redacted] is wrong"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_tool_that_hangs_is_stopped() {
        let limit = Duration::from_millis(50);
        let error = run("sleep", &["60"], None, limit).await.err().unwrap();
        assert!(matches!(error, CommandError::Timeout { .. }));
        let error = run::<&str>("no-such-tool", &[], None, SOON)
            .await
            .err()
            .unwrap();
        assert!(matches!(error, CommandError::Start { .. }));
    }
}
