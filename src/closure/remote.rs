//! A host and its `drawbridge-host system`, over a session that is made anew when it is lost.

use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::AsyncRead;
use tokio::time::timeout;

use crate::appliance::Role;
use crate::appliance::system::REFUSED;
use crate::bastion::{Access, Session, SshError};
use crate::image::info::System;

/// The host answers in milliseconds; it may wait some seconds for a lock, and a boot loader takes its time.
pub const ASK_LIMIT: Duration = Duration::from_secs(60);

/// Why a host gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The way there.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// In the host's words, which say that nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// In the host's words.
    #[error("{0}")]
    Failed(String),
    /// Another version's words.
    #[error(
        "{host} answered {said:?}, which this `drawbridge` does not understand: use the one of the same release as the host's system"
    )]
    Answer {
        /// The host.
        host: Role,
        /// The beginning of what it said.
        said: String,
    },
}

impl RemoteError {
    /// Whether another connection may do better.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        use SshError::{Failed, Lost, NoWayThrough, TimedOut, Unreachable};
        matches!(
            self,
            Self::Ssh(
                Failed { .. }
                    | Lost { .. }
                    | NoWayThrough { .. }
                    | TimedOut { .. }
                    | Unreachable { .. }
            )
        )
    }
}

/// A host to ask.
pub struct Remote<'a> {
    access: &'a Access,
    /// Which one.
    pub host: Role,
    session: Option<Session>,
}

impl<'a> Remote<'a> {
    /// Nothing is connected yet.
    #[must_use]
    pub fn new(access: &'a Access, host: Role) -> Self {
        Self {
            access,
            host,
            session: None,
        }
    }

    /// Gives the connection up: what is asked next goes over a fresh one, TCP included.
    pub async fn hang_up(&mut self) {
        if let Some(session) = self.session.take() {
            // A peer that is gone says no goodbye.
            let _ = timeout(Duration::from_secs(2), session.close()).await;
        }
    }

    async fn session(&mut self) -> Result<&Session, SshError> {
        let session = match self.session.take() {
            Some(session) => session,
            None => self.access.connect(self.host).await?,
        };
        Ok(self.session.insert(session))
    }

    /// The host's processor.
    ///
    /// # Errors
    /// [`RemoteError`]
    pub async fn system(&mut self) -> Result<System, RemoteError> {
        let host = self.host;
        let output = self.session().await?.collect("uname -m", ASK_LIMIT).await?;
        match String::from_utf8_lossy(&output.stdout).trim() {
            "x86_64" => Ok(System::X86_64),
            "aarch64" => Ok(System::Aarch64),
            other => Err(RemoteError::Answer {
                host,
                said: other.chars().take(80).collect(),
            }),
        }
    }

    /// Runs `drawbridge-host system` with these words, `input` as its standard input, and reads its answer.
    ///
    /// # Errors
    /// [`RemoteError`]; the session is given up where it was the cause.
    pub async fn ask<T: DeserializeOwned>(
        &mut self,
        words: &str,
        input: impl AsyncRead + Unpin,
    ) -> Result<T, RemoteError> {
        let said = timeout(ASK_LIMIT, self.run(words, input)).await;
        let said = said.unwrap_or_else(|_| {
            self.session = None;
            Err(RemoteError::Ssh(SshError::TimedOut {
                host: self.host,
                step: "drawbridge-host system",
                limit: ASK_LIMIT,
            }))
        })?;
        serde_json::from_slice(&said).map_err(|_| RemoteError::Answer {
            host: self.host,
            said: String::from_utf8_lossy(&said).chars().take(80).collect(),
        })
    }

    /// The same for as long as it takes, with its output as it is.
    ///
    /// # Errors
    /// See [`Self::ask`].
    pub async fn run(
        &mut self,
        words: &str,
        input: impl AsyncRead + Unpin,
    ) -> Result<Vec<u8>, RemoteError> {
        let host = self.host;
        let command = format!("sudo -n drawbridge-host system {words}");
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let ran = self
            .session()
            .await?
            .run(&command, input, &mut stdout, &mut stderr)
            .await;
        let status = match ran {
            Ok(status) => status,
            Err(error) => {
                self.session = None;
                return Err(error.into());
            }
        };
        let said = String::from_utf8_lossy(&stderr);
        let last = said
            .lines()
            .rev()
            .map(message)
            .find(|line| !line.is_empty());
        let last = last.unwrap_or("no word of why");
        match status {
            0 => Ok(stdout),
            status if status == u32::from(REFUSED) => {
                Err(RemoteError::Refused(format!("{host}: {last}")))
            }
            status => Err(RemoteError::Failed(format!(
                "{host}: {last} (exit status {status})"
            ))),
        }
    }
}

/// A line of the host's log without time and level.
fn message(line: &str) -> &str {
    let rest = line
        .trim()
        .split_once(" ERROR ")
        .map(|(_, rest)| rest.trim());
    let rest = rest.unwrap_or(line.trim());
    rest.strip_prefix("drawbridge_host: ").unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::message;

    #[test]
    fn a_line_of_the_log_is_shown_without_its_time() {
        let line = "2026-11-21T18:00:00.123456Z ERROR drawbridge_host: not enough room";
        assert_eq!(message(line), "not enough room");
        assert_eq!(
            message(" sudo: a password is required\r"),
            "sudo: a password is required"
        );
    }
}
