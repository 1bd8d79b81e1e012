//! One connection, from its first byte to its last. HTTP/1.1 only: that is what a load balancer speaks to its targets,
//! and one request at a time is what [`Pace`] can time.

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use poem::{
    Endpoint, Request, Response,
    http::{self, HeaderValue, header, uri::Scheme},
    web::{LocalAddr, RemoteAddr},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    door::Door,
    pace::{Limits, Pace, Slow},
};
use crate::api::{Crowded, Lifecycle};

/// A larger head is answered 431 by the HTTP library, without a body. As much as nginx takes by default.
const HEAD_LIMIT_BYTES: usize = 32 * 1024;

/// What all connections share.
pub struct Shared<E> {
    /// Answers the requests.
    pub app: E,
    /// Where the server listens.
    pub address: LocalAddr,
    /// Once it is stopping, every answer is its connection's last.
    pub lifecycle: Lifecycle,
    /// What each step may take.
    pub limits: Limits,
}

/// Serves `io` until the client closes it, it is too slow, or the door is [`Door::Ending`] and its request answered.
/// A `crowded` connection gets one answer.
pub async fn serve<E: Endpoint<Output = Response>>(
    shared: Arc<Shared<E>>,
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: RemoteAddr,
    is_crowded: bool,
    mut door: watch::Receiver<Door>,
) {
    let limits = shared.limits;
    let pace = Arc::new(Pace::new(limits, Instant::now()));
    if is_crowded {
        // It waits in nobody's way for its one request.
        pace.has_read(Instant::now());
    }
    let service = service_fn({
        let (pace, peer) = (pace.clone(), peer.clone());
        move |request: http::Request<Incoming>| {
            pace.has_request();
            let (pace, shared) = (pace.clone(), shared.clone());
            let address = shared.address.clone();
            let mut request = Request::from((request, address, peer.clone(), Scheme::HTTP));
            if is_crowded {
                request.extensions_mut().insert(Crowded);
            }
            async move {
                let mut response = shared.app.get_response(request).await;
                if is_crowded || shared.lifecycle.is_stopping() {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                pace.has_answer(Instant::now());
                Ok::<http::Response<_>, Infallible>(response.into())
            }
        }
    });
    let io = TokioIo::new(Paced {
        io,
        pace: pace.clone(),
    });
    let mut builder = http1::Builder::new();
    let mut connection = pin!(
        builder
            .max_header_size(HEAD_LIMIT_BYTES)
            // Who has said everything may end that direction and still wait for the answer, as through `ssh -W`.
            .half_close(true)
            .serve_connection(io, service)
    );
    let mut is_ending = false;
    // An error means that nobody can move the door any more: it stays as it is.
    let mut ending = pin!(async { drop(door.wait_for(|door| *door == Door::Ending).await) });
    let mut timer = pin!(sleep_until(Instant::now() + limits.keep_alive));
    let slow = poll_fn(|cx| {
        if !is_ending && ending.as_mut().poll(cx).is_ready() {
            is_ending = true;
            connection.as_mut().graceful_shutdown();
        }
        // How it ended is the client's business.
        if connection.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        // After the connection, which may have moved the deadline.
        while let Some((deadline, slow)) = pace.deadline() {
            if Instant::now() >= deadline {
                return Poll::Ready(Some(slow));
            }
            // A deadline that moves away costs nothing: the timer fires early and is set again.
            if deadline < timer.deadline() || timer.is_elapsed() {
                timer.as_mut().reset(deadline);
            }
            if timer.as_mut().poll(cx).is_pending() {
                break;
            }
        }
        Poll::Pending
    })
    .await;
    match slow {
        None => {}
        Some(Slow::Idle) => tracing::debug!(%peer, "closed an idle connection"),
        Some(Slow::Head) => tracing::debug!(%peer, "cut a connection: no whole request head came"),
        Some(Slow::Answer) => tracing::debug!(%peer, "cut a connection: its answer was not taken"),
    }
}

/// Tells the [`Pace`] what happens.
struct Paced<Io> {
    io: Io,
    pace: Arc<Pace>,
}

impl<Io: AsyncRead + Unpin> AsyncRead for Paced<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.pace.has_read(Instant::now());
        }
        Poll::Ready(Ok(()))
    }
}

impl<Io> Paced<Io> {
    fn note(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(count)) => self.pace.has_written(*count, Instant::now()),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.pace.is_blocked(Instant::now()),
        }
        written
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Paced<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, parts);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    // Called once everything has been written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.pace.is_flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
