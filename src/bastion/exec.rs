//! Commands on a host: stdout and stderr apart, and an exit status that is true.

use std::time::Duration;

use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, Sig};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::SshError;
use super::session::{Session, within};
use super::transport::feed;
use crate::appliance::Role;

/// Opening a channel and starting a command are one round trip each.
const START_LIMIT: Duration = Duration::from_secs(10);

/// `SSH_EXTENDED_DATA_STDERR`, RFC 4254 section 5.2.
const STDERR: u32 = 1;

/// What a command left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its exit status.
    pub status: u32,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: Vec<u8>,
}

impl Session {
    /// Runs `command` in the login shell without input and collects what it writes, for at most `limit`.
    ///
    /// # Errors
    /// [`SshError::TimedOut`] after `limit`; the command may still be running then. Otherwise as [`Session::run`].
    pub async fn collect(&self, command: &str, limit: Duration) -> Result<Output, SshError> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let run = self.run(command, tokio::io::empty(), &mut stdout, &mut stderr);
        let step = "running a command";
        let host = self.host;
        let ended =
            timeout(limit, run)
                .await
                .map_err(|_| SshError::TimedOut { host, step, limit })?;
        let status = ended?;
        Ok(Output {
            status,
            stdout,
            stderr,
        })
    }

    /// Runs `command` in the login shell, passes `stdin` on to it and its output to `stdout` and `stderr`, and returns
    /// its exit status. Whoever reads slowly here is waited for there: nothing but the connection's own buffers is kept.
    ///
    /// # Errors
    /// [`SshError::Lost`] when the connection ends without a status: never a success. [`SshError::Signal`] when the
    /// command was killed. [`SshError::Local`] when the output cannot be written here.
    pub async fn run(
        &self,
        command: &str,
        stdin: impl AsyncRead + Unpin,
        stdout: impl AsyncWrite + Unpin,
        stderr: impl AsyncWrite + Unpin,
    ) -> Result<u32, SshError> {
        let channel = self.begin().await?;
        self.start(&channel, Some(command)).await?;
        self.attend(channel, stdin, stdout, stderr).await
    }

    /// Runs the login shell as [`Session::run`] runs a command: it reads its commands from `stdin`.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub async fn run_shell(
        &self,
        stdin: impl AsyncRead + Unpin,
        stdout: impl AsyncWrite + Unpin,
        stderr: impl AsyncWrite + Unpin,
    ) -> Result<u32, SshError> {
        let channel = self.begin().await?;
        self.start(&channel, None).await?;
        self.attend(channel, stdin, stdout, stderr).await
    }

    async fn attend(
        &self,
        channel: Channel<Msg>,
        stdin: impl AsyncRead + Unpin,
        stdout: impl AsyncWrite + Unpin,
        stderr: impl AsyncWrite + Unpin,
    ) -> Result<u32, SshError> {
        let (incoming, outgoing) = channel.split();
        let feeding = async {
            // A command that does not read its input is not an error of ours, so the result is not looked at.
            let _ = feed(&outgoing, stdin).await;
            // The command's end is what is waited for.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = drain(self.host, incoming, stdout, stderr) => ended,
            () = feeding => Err(SshError::Lost { host: self.host }),
        }
    }

    pub(super) async fn begin(&self) -> Result<Channel<Msg>, SshError> {
        let (host, step) = (self.host, "starting a command");
        let opened = within(host, step, START_LIMIT, self.handle.channel_open_session()).await?;
        opened.map_err(|source| SshError::Failed { host, step, source })
    }

    /// Asks for `command`, or the login shell. That it was refused is known from the channel.
    pub(super) async fn start(
        &self,
        channel: &Channel<Msg>,
        command: Option<&str>,
    ) -> Result<(), SshError> {
        let (host, step) = (self.host, "starting a command");
        let ask = async {
            match command {
                Some(command) => channel.exec(true, command).await,
                None => channel.request_shell(true).await,
            }
        };
        within(host, step, START_LIMIT, ask)
            .await?
            .map_err(|source| SshError::Failed { host, step, source })
    }
}

/// Passes a command's output on until its channel is closed, and returns how it ended.
pub(super) async fn drain(
    host: Role,
    mut incoming: ChannelReadHalf,
    mut stdout: impl AsyncWrite + Unpin,
    mut stderr: impl AsyncWrite + Unpin,
) -> Result<u32, SshError> {
    let local = |source| SshError::Local { host, source };
    let mut ended = None;
    // Data may follow the status, so the channel is read to its end.
    while let Some(message) = incoming.wait().await {
        match message {
            ChannelMsg::Data { data } => stdout.write_all(&data).await.map_err(local)?,
            ChannelMsg::ExtendedData { data, ext: STDERR } => {
                stderr.write_all(&data).await.map_err(local)?;
            }
            ChannelMsg::Failure => {
                let (step, source) = ("starting a command", russh::Error::RequestDenied);
                return Err(SshError::Failed { host, step, source });
            }
            ChannelMsg::ExitStatus { exit_status } => ended = Some(Ok(exit_status)),
            ChannelMsg::ExitSignal { signal_name, .. } => {
                let signal = name(&signal_name);
                ended = Some(Err(SshError::Signal { host, signal }));
            }
            ChannelMsg::Close => break,
            _ => {}
        }
    }
    stdout.flush().await.map_err(local)?;
    stderr.flush().await.map_err(local)?;
    ended.unwrap_or(Err(SshError::Lost { host }))
}

fn name(signal: &Sig) -> String {
    match signal {
        Sig::Custom(name) => name.clone(),
        known => format!("{known:?}"),
    }
}

/// Joins words into one command line for a POSIX shell, each quoted so that it arrives as it is.
#[must_use]
pub fn command_line<S: AsRef<str>>(words: &[S]) -> String {
    let plain = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_./:=@+,%".contains(&byte))
    };
    let quote = |word: &S| {
        let word = word.as_ref();
        if plain(word) {
            word.to_owned()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    };
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::command_line;

    #[test]
    fn words_arrive_as_they_are() {
        assert_eq!(
            command_line(&["ls", "-l", "/a b", "", "it's", "$HOME"]),
            "ls -l '/a b' '' 'it'\\''s' '$HOME'"
        );
    }
}
