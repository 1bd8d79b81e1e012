//! What systemd is told (`Type=notify`, `WatchdogSec=`). Where nobody asked to be told (no `NOTIFY_SOCKET`), nothing is.

use sd_notify::NotifyState;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    sync::{mpsc, watch},
    time::{interval, timeout},
};

use super::door::Door;

/// One question to the own server: whether the accept loop, the HTTP library and the handlers come round at all. It asks
/// for nothing that could be away, the database least of all: restarting this process does not bring that back.
const QUESTION: &[u8] =
    b"GET /health HTTP/1.1\r\nHost: watchdog\r\nX-Request-Id: watchdog\r\nConnection: close\r\n\r\n";

/// Says `READY=1` once connections are accepted, and from then on `WATCHDOG=1` as long as the server answers, three times
/// per `WatchdogSec`. `inside` leads to the accept loop.
pub async fn keep_informed(mut door: watch::Receiver<Door>, inside: mpsc::Sender<DuplexStream>) {
    if door.wait_for(|door| *door >= Door::Open).await.is_err() {
        return;
    }
    tell(NotifyState::Ready);
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    let every = limit / 3;
    let mut ticks = interval(every);
    // systemd's watch ends with STOPPING=1, and the accept loop with the door.
    while *door.borrow() == Door::Open {
        ticks.tick().await;
        match timeout(every, answers(&inside)).await {
            Ok(true) => tell(NotifyState::Watchdog),
            Ok(false) if *door.borrow() != Door::Open => {}
            _ => tracing::error!(
                "the server does not answer itself; the service manager's watchdog is not told that it lives"
            ),
        }
    }
}

/// Says `STOPPING=1`.
pub fn stopping() {
    tell(NotifyState::Stopping);
}

async fn answers(inside: &mpsc::Sender<DuplexStream>) -> bool {
    let (mut near, far) = tokio::io::duplex(4096);
    let mut answer = Vec::new();
    inside.send(far).await.is_ok()
        && near.write_all(QUESTION).await.is_ok()
        && near.read_to_end(&mut answer).await.is_ok()
        && answer.starts_with(b"HTTP/1.1 200 ")
}

fn tell(what: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[what]) {
        tracing::warn!("cannot tell the service manager (NOTIFY_SOCKET): {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn only_a_200_from_the_accept_loop_counts_as_an_answer() {
        let (inside, mut asked) = mpsc::channel::<DuplexStream>(1);
        let limit = Duration::from_secs(60);
        for (said, expected) in [
            (&b"HTTP/1.1 200 OK\r\n\r\n"[..], true),
            (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", false),
            (b"", false),
        ] {
            let answer = async {
                let mut far = asked.recv().await.unwrap();
                let mut question = vec![0; QUESTION.len()];
                far.read_exact(&mut question).await.unwrap();
                far.write_all(said).await.unwrap();
            };
            let (found, ()) = tokio::join!(timeout(limit, answers(&inside)), answer);
            assert_eq!(found, Ok(expected));
        }
        // A loop that does not turn.
        assert!(
            timeout(Duration::from_millis(20), answers(&inside))
                .await
                .is_err()
        );
        drop(asked);
        assert_eq!(timeout(limit, answers(&inside)).await, Ok(false));
    }
}
