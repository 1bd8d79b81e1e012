//! A session at a terminal: what is typed goes there as it is, what comes is shown as it is.

use std::io;

use russh::{ChannelWriteHalf, client::Msg};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::SshError;
use super::escape::{Escapes, Wish};
use super::exec::drain;
use super::session::Session;
use super::terminal::{Resizes, Size};

/// What is read from the terminal at once.
const TYPED_BYTES: usize = 4096;
/// Pieces on their way to a far side that does not take them: 1 MiB at most. Until they are full, `~.` is heard.
const TYPED_PIECES: usize = 256;

const HELP: &[u8] = b"~?\r\n\
  ~.  leave: end the connection, also one that hangs\r\n\
  ~~  a tilde\r\n\
  ~?  this\r\n\
Only after Enter.\r\n";

/// The terminal that the far side is to have.
#[derive(Clone, Debug)]
pub struct Terminal {
    /// The kind of terminal: the variable `TERM`.
    pub name: String,
    /// Its window.
    pub size: Size,
    /// Keys and modes, see [`super::terminal::Mode::for_the_far_side`].
    pub modes: Vec<(russh::Pty, u32)>,
    /// Whether `~.` leaves: for somebody who types, not for what comes out of a file.
    pub escapes: bool,
}

/// How a session at a terminal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The shell or command ended with this status.
    Status(u32),
    /// Left with `~.`; what ran there may still run.
    Left,
}

impl Session {
    /// Runs `command`, or the login shell, at a terminal of its own there. stdout and stderr are one there.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub async fn interact(
        &self,
        command: Option<&str>,
        terminal: &Terminal,
        stdin: impl AsyncRead + Unpin,
        mut stdout: impl AsyncWrite + Unpin,
        resizes: &mut Resizes,
    ) -> Result<Ended, SshError> {
        let host = self.host;
        let channel = self.begin().await?;
        let Size { columns, rows } = terminal.size;
        // Answered as the command is: a refusal of either ends the session with an error.
        channel
            .request_pty(true, &terminal.name, columns, rows, 0, 0, &terminal.modes)
            .await
            .map_err(|source| SshError::Failed {
                host,
                step: "asking for a terminal",
                source,
            })?;
        self.start(&channel, command).await?;
        let (incoming, outgoing) = channel.split();
        let (pieces, typed) = mpsc::channel(TYPED_PIECES);
        let (notes, mut noted) = mpsc::channel::<()>(1);
        let local = |source| SshError::Local { host, source };
        let show = async {
            let (shown, mut arriving) = tokio::io::duplex(TYPED_BYTES);
            // With its end of the pipe: a terminal that is gone ends `drain` too.
            let relay = async move {
                let mut piece = vec![0; TYPED_BYTES];
                loop {
                    tokio::select! {
                        read = arriving.read(&mut piece) => match read.map_err(local)? {
                            0 => return Ok(()),
                            bytes => stdout.write_all(&piece[..bytes]).await.map_err(local)?,
                        },
                        Some(()) = noted.recv() => stdout.write_all(HELP).await.map_err(local)?,
                    }
                    stdout.flush().await.map_err(local)?;
                }
            };
            // And the relay ends when the other end, which goes with `drain`, is gone.
            let (ended, relayed) =
                tokio::join!(drain(host, incoming, shown, tokio::io::sink()), relay);
            relayed.and(ended)
        };
        let keep_size = async {
            loop {
                let Size { columns, rows } = resizes.next().await;
                // Fails only if the connection is gone, which the output says as well.
                let _ = outgoing.window_change(columns, rows, 0, 0).await;
            }
        };
        tokio::select! {
            status = show => status.map(Ended::Status),
            left = listen(stdin, terminal.escapes, pieces, notes) => left.map(|()| Ended::Left).map_err(local),
            () = send(&outgoing, typed) => Err(SshError::Lost { host }),
            () = keep_size => Err(SshError::Lost { host }),
        }
    }
}

/// Takes what is typed, until somebody wishes to leave. Apart from what is sent, so that it goes on when nothing is taken.
async fn listen(
    mut stdin: impl AsyncRead + Unpin,
    hears_escapes: bool,
    pieces: mpsc::Sender<Vec<u8>>,
    notes: mpsc::Sender<()>,
) -> io::Result<()> {
    let mut escapes = Escapes::default();
    let mut piece = vec![0; TYPED_BYTES];
    loop {
        let bytes = match stdin.read(&mut piece).await {
            // The terminal is gone, or was none: the far side hears of it, and its end is waited for.
            Ok(0) | Err(_) => {
                drop(pieces);
                return std::future::pending().await;
            }
            Ok(bytes) => bytes,
        };
        let mut passed = Vec::with_capacity(bytes);
        if !hears_escapes {
            passed.extend(&piece[..bytes]);
        } else {
            match escapes.pass(&piece[..bytes], &mut passed) {
                Some(Wish::Leave) => return Ok(()),
                Some(Wish::Help) => drop(notes.try_send(())),
                None => {}
            }
        }
        if pieces.send(passed).await.is_err() {
            return std::future::pending().await;
        }
    }
}

async fn send(outgoing: &ChannelWriteHalf<Msg>, mut typed: mpsc::Receiver<Vec<u8>>) {
    while let Some(piece) = typed.recv().await {
        // A connection that is gone shows in the output.
        let _ = outgoing.data_bytes(piece).await;
    }
    let _ = outgoing.eof().await;
    std::future::pending::<()>().await;
}
