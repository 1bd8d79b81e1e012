//! Sends the paths that a host lacks: one stream, as fast as the host takes it.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use tokio::io::{AsyncWriteExt as _, DuplexStream};
use tokio::runtime::Handle;

use super::pack::pack;
use super::remote::{Remote, RemoteError};
use super::source::Source;
use crate::appliance::store::StorePath;
use crate::appliance::system::{STREAM_MAGIC, Staged};
use crate::progress::Progress;

/// Bytes between the thread that reads files and the connection.
const BUFFER: usize = 1 << 20;
/// Connections that are lost in a row without a single path having arrived.
const MOST_VAIN_TRIES: u32 = 3;

/// Sends what is missing until nothing is: a connection that is lost costs the paths that were on their way. Returns what
/// the host says in the end, and how many bytes of archives were sent.
///
/// # Errors
/// What the host refuses, or the connection that was lost once too often.
pub async fn copy(
    remote: &mut Remote<'_>,
    source: &Source,
    first: Staged,
    progress: &Progress,
) -> Result<(Staged, u64), RemoteError> {
    let list = serde_json::to_vec(&source.closure).unwrap_or_default();
    let (mut staged, mut sent, mut vain) = (first, 0, 0);
    while !staged.missing.is_empty() {
        let lacked = staged.missing.len();
        let ended = send(remote, source, &staged, &mut sent, progress).await;
        if let Err(error) = ended {
            if !error.is_lost() || vain >= MOST_VAIN_TRIES {
                return Err(error);
            }
            progress.line(&format!("{error}; connecting again"));
            remote.hang_up().await;
        }
        staged = restage(remote, &list).await?;
        vain = if staged.missing.len() < lacked {
            0
        } else {
            vain + 1
        };
        if vain > MOST_VAIN_TRIES {
            let left = staged.missing.len();
            return Err(RemoteError::Failed(format!(
                "{left} paths do not arrive at {}",
                remote.host
            )));
        }
    }
    Ok((staged, sent))
}

/// Asks what is missing.
///
/// # Errors
/// [`RemoteError`]
pub async fn stage(remote: &mut Remote<'_>, source: &Source) -> Result<Staged, RemoteError> {
    let list = serde_json::to_vec(&source.closure).unwrap_or_default();
    remote.ask("stage", list.as_slice()).await
}

/// After a lost connection, the receiver over there may hold on for a moment until it notices.
async fn restage(remote: &mut Remote<'_>, list: &[u8]) -> Result<Staged, RemoteError> {
    let mut tries = 0;
    loop {
        match remote.ask("stage", list).await {
            Err(error @ (RemoteError::Refused(_) | RemoteError::Ssh(_))) if tries < 10 => {
                if !error.is_lost() && !error.to_string().contains("is at work") {
                    return Err(error);
                }
                tries += 1;
                tokio::time::sleep(std::time::Duration::from_secs(2)).await;
            }
            ended => return ended,
        }
    }
}

async fn send(
    remote: &mut Remote<'_>,
    source: &Source,
    staged: &Staged,
    sent: &mut u64,
    progress: &Progress,
) -> Result<(), RemoteError> {
    let lacking: BTreeSet<StorePath> = staged.missing.iter().cloned().collect();
    let paths: Vec<(StorePath, PathBuf)> = source
        .closure
        .only(&lacking)
        .into_iter()
        .map(|one| (one.path.clone(), source.place(&one.path)))
        .collect();
    let what = format!("copying {} paths to {}", paths.len(), remote.host);
    let (near, far) = tokio::io::duplex(BUFFER);
    let counted = Counted {
        out: near,
        runtime: Handle::current(),
        done: 0,
        total: staged.missing_bytes,
        what,
        progress: progress.clone(),
    };
    let packing = tokio::task::spawn_blocking(move || stream(&paths, counted));
    let ended = remote.run("receive", far).await;
    // The stream's far end has gone, so this ends by itself.
    let packed = packing
        .await
        .map_err(|error| RemoteError::Failed(error.to_string()))?;
    let (bytes, packed) = packed;
    *sent += bytes;
    match (ended, packed) {
        // The host was told by a stream that breaks off; what it says of that is not the reason.
        (_, Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => Err(RemoteError::Failed(
            format!("cannot read the system here: {error}"),
        )),
        (ended, _) => ended.map(drop),
    }
}

/// Writes everything that [`STREAM_MAGIC`] tells. Bytes that were taken, and how it ended.
fn stream(paths: &[(StorePath, PathBuf)], out: Counted) -> (u64, io::Result<()>) {
    let mut out = BufWriter::with_capacity(BUFFER / 4, out);
    let mut write = || {
        out.write_all(STREAM_MAGIC)?;
        for (path, place) in paths {
            let name = path.name().as_bytes();
            let length = u8::try_from(name.len()).map_err(io::Error::other)?;
            out.write_all(&[length])?;
            out.write_all(name)?;
            pack(place, &mut out)?;
        }
        out.write_all(&[0])?;
        out.flush()
    };
    let written = write();
    let (counted, _) = out.into_parts();
    (counted.done, written)
}

/// Hands bytes over to the runtime, and shows how many.
struct Counted {
    out: DuplexStream,
    runtime: Handle,
    done: u64,
    total: u64,
    what: String,
    progress: Progress,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.runtime.block_on(self.out.write(bytes))?;
        self.done += written as u64;
        self.progress.portion(&self.what, self.done, self.total);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.runtime.block_on(self.out.flush())
    }
}
