//! Bytes without end or memory, and their sum.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use ring::digest;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Each block begins with its number, so that none can be missing, doubled or out of order.
const BLOCK: usize = 4096;

/// So many bytes.
pub struct Bytes {
    block: [u8; BLOCK],
    at: usize,
    left: usize,
}

impl Bytes {
    pub fn new(length: usize) -> Self {
        let mut block = [0; BLOCK];
        for (index, byte) in block.iter_mut().enumerate() {
            *byte = u8::try_from(index * 31 % 251).unwrap();
        }
        Self {
            block,
            at: 0,
            left: length,
        }
    }

    /// The sum of all that are left, as `sha256sum` writes it.
    pub fn sum(length: usize) -> String {
        let (mut bytes, mut sum) = (Self::new(length), Sum::new());
        loop {
            let part = bytes.take(BLOCK);
            if part.is_empty() {
                return sum.text();
            }
            sum.add(part);
        }
    }

    fn take(&mut self, most: usize) -> &[u8] {
        let offset = self.at % BLOCK;
        if offset == 0 {
            let number = self.at / BLOCK;
            self.block[..8].copy_from_slice(&u64::try_from(number).unwrap().to_le_bytes());
        }
        let count = most.min(self.left).min(BLOCK - offset);
        self.at += count;
        self.left -= count;
        &self.block[offset..offset + count]
    }
}

impl AsyncRead for Bytes {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while buffer.remaining() > 0 && self.left > 0 {
            let part = self.take(buffer.remaining());
            buffer.put_slice(part);
        }
        Poll::Ready(Ok(()))
    }
}

/// Takes everything and keeps its length and SHA-256.
pub struct Sum {
    pub length: usize,
    digest: digest::Context,
}

impl Sum {
    pub fn new() -> Self {
        Self {
            length: 0,
            digest: digest::Context::new(&digest::SHA256),
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.length += bytes.len();
        self.digest.update(bytes);
    }

    /// As `sha256sum` writes it.
    pub fn text(&self) -> String {
        let digest = self.digest.clone().finish();
        digest
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

impl AsyncWrite for Sum {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.add(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Input that does not end, or a place for output that does not; counts in both cases. Clones count together.
#[derive(Clone, Default)]
pub struct Endless {
    bytes: Arc<AtomicUsize>,
}

impl Endless {
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl AsyncRead for Endless {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = buffer.remaining();
        buffer.initialize_unfilled().fill(0);
        buffer.advance(count);
        self.bytes.fetch_add(count, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
