//! How an SSH connection is carried: what it is encrypted with, how much may be on the way, when it counts as dead.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use russh::keys::Algorithm;
use russh::{ChannelWriteHalf, Preferred, cipher, client};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;

/// With [`KEEPALIVES`] a peer that says nothing is given up after 20 s: three go unanswered, the fourth is not sent.
const KEEPALIVE: Duration = Duration::from_secs(5);
const KEEPALIVES: usize = 3;
/// Bytes on the way before the reader must answer: at 50 ms round trip 8 MiB carried three times what 2 MiB did.
const WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Bytes that one look at the socket may bring: sshd's packets have 16 to 32 KiB, and without this each takes two.
const READ_BYTES: usize = 128 * 1024;
/// What is read of a command's input at once: as much as a pipe holds.
const INPUT_BYTES: usize = 64 * 1024;

/// What the hosts' sshd offers (nixos/settings/sshd.json) and russh can, the faster one on this processor first. sshd
/// takes the first of ours that it has.
const WITH_AES: [cipher::Name; 2] = [cipher::AES_256_GCM, cipher::CHACHA20_POLY1305];
const WITHOUT_AES: [cipher::Name; 2] = [cipher::CHACHA20_POLY1305, cipher::AES_256_GCM];

/// The settings of one connection to a host whose key is one of `keys`.
pub(super) fn config(keys: Vec<Algorithm>) -> client::Config {
    let ciphers = if has_aes() { WITH_AES } else { WITHOUT_AES };
    client::Config {
        window_size: WINDOW_BYTES,
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: KEEPALIVES,
        preferred: Preferred {
            // Only keys of the pinned type are asked for; another type could not be judged.
            key: Cow::Owned(keys),
            cipher: Cow::Owned(ciphers.to_vec()),
            ..Preferred::default()
        },
        ..client::Config::default()
    }
}

/// Whether this processor has instructions for AES; in software it is several times slower than ChaCha20.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// A stream that takes at once what is written to it, and passes it on whenever it is written to or read from.
///
/// russh neither reads nor looks at its clock while it writes. Over a plain stream an upload would so never notice that
/// its peer is gone: the keepalive that should tell waits behind the data that nobody takes. What is kept here is bounded
/// by the windows of the channels in the connection, 2 MiB for each with sshd at the other end.
pub(super) struct Eager<S> {
    stream: BufReader<S>,
    backlog: VecDeque<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Eager<S> {
    pub fn new(stream: S) -> Self {
        Self {
            stream: BufReader::with_capacity(READ_BYTES, stream),
            backlog: VecDeque::new(),
        }
    }

    fn pass_on(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.backlog.is_empty() {
            let (first, _) = self.backlog.as_slices();
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, first))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.backlog.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Eager<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // What was not read yet is worth having although nothing can be written any more.
        let _ = self.pass_on(context);
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Eager<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.pass_on(context) {
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => {
                if let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write(context, bytes)
                {
                    return Poll::Ready(written);
                }
            }
            Poll::Pending => {}
        }
        self.backlog.extend(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.pass_on(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Whoever does not take the last words by now does not get them: this must not wait for a dead peer.
        let _ = self.pass_on(context);
        match Pin::new(&mut self.stream).poll_shutdown(context) {
            Poll::Ready(ended) => Poll::Ready(ended),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }
}

/// The operator's end of a TCP connection, which acknowledges at once what arrives.
///
/// The bastion's sshd never turns Nagle's algorithm off for who only passes through, so each second small packet waits
/// there until the first is acknowledged, which Linux else puts off for 40 ms in the hope of an answer to send along.
pub(super) struct Prompt(TcpStream);

impl Prompt {
    /// Without Nagle's algorithm on this side.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    // The kernel forgets it from time to time, so it is told again. Elsewhere there is no such option, and no need.
    fn acknowledge(&self) {
        #[cfg(target_os = "linux")]
        let _ = socket2::SockRef::from(&self.0).set_tcp_quickack(true);
    }
}

impl AsyncRead for Prompt {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.0).poll_read(context, buffer))?;
        self.acknowledge();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prompt {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// Sends all of `input` to a channel, and that it has ended. russh's own way reads 8 KiB at a time, and each such piece
/// would be a packet of both connections; sshd takes up to 32 KiB.
///
/// # Errors
/// When the connection or the command is gone.
pub(super) async fn feed(
    channel: &ChannelWriteHalf<client::Msg>,
    mut input: impl AsyncRead + Unpin,
) -> Result<(), russh::Error> {
    loop {
        let mut bytes = Vec::with_capacity(INPUT_BYTES);
        match input.read_buf(&mut bytes).await {
            // Whoever waits for the end of it there is not left waiting because it cannot be read here.
            Ok(0) | Err(_) => return channel.eof().await,
            Ok(_) => channel.data_bytes(bytes).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[test]
    fn every_host_offers_the_ciphers_that_are_asked_for() {
        let settings = include_str!("../../nixos/settings/sshd.json");
        let settings: serde_json::Value = serde_json::from_str(settings).unwrap();
        let offered = settings["common"]["Ciphers"].as_array().unwrap();
        for name in WITH_AES.iter().chain(&WITHOUT_AES) {
            assert!(
                offered.iter().any(|cipher| cipher == name.as_ref()),
                "{name:?}"
            );
        }
    }

    #[tokio::test]
    async fn what_a_stopped_reader_leaves_does_not_keep_the_writer() {
        let (near, mut far) = tokio::io::duplex(10);
        let mut near = Eager::new(near);
        let sent: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        // The far side reads nothing yet, and holds ten bytes.
        for part in sent.chunks(999) {
            near.write_all(part).await.unwrap();
            near.flush().await.unwrap();
        }
        let reading = async {
            let mut received = vec![0; sent.len()];
            far.read_exact(&mut received).await.unwrap();
            far.write_all(b"!").await.unwrap();
            received
        };
        // Reading passes the rest on, as russh's loop does.
        let (received, answer) = tokio::join!(reading, near.read_u8());
        assert!(received == sent, "it arrives in order and whole");
        assert_eq!(answer.unwrap(), b'!');
    }
}
