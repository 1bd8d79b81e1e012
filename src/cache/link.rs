//! The one connection to Valkey, and what is known of it.
//!
//! Nobody waits for it to come back but a write in the first second of an outage: who finds it away goes on without.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, RedisError, RedisResult, Script, aio::MultiplexedConnection,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

/// How long one answer may take; slower is as good as away.
pub(super) const LIMIT: Duration = Duration::from_millis(100);

/// How long the epoch lasts that no process renews.
pub(super) const LEASE: Duration = Duration::from_secs(1);

/// How often each process renews it: several times per lease, so that one lost does no harm.
const BEAT: Duration = Duration::from_millis(250);

/// Between two attempts to connect in the first [`LEASE`] of an outage, for which writes wait.
const SOON: Duration = Duration::from_millis(100);

/// Between two attempts after that.
const LATER: Duration = Duration::from_secs(1);

/// Renews the epoch if it is still there, or else begins another: never revives one.
const RENEW: &str = "if redis.call('PEXPIRE', KEYS[1], ARGV[2]) == 0 then \
                     redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end";

/// Why Valkey was not asked, or has not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("no answer within {LIMIT:?}")]
    Slow,
    #[error("{0}")]
    Failed(#[from] RedisError),
    #[error("it is away")]
    Away,
}

/// What is known of the connection.
#[derive(Clone)]
pub(super) enum State {
    /// It answers.
    Up(Connection),
    /// It does not, since then. Said anew after each attempt to connect.
    Down(Instant),
}

/// One connection; each has a number of its own.
#[derive(Clone)]
pub(super) struct Connection {
    number: u64,
    multiplexed: MultiplexedConnection,
}

impl Connection {
    /// A way to ask; questions of several channels go out together.
    pub(super) fn channel(&self) -> MultiplexedConnection {
        self.multiplexed.clone()
    }
}

/// The connection, kept up by a task of its own that ends with it.
pub(super) struct Link {
    state: watch::Receiver<State>,
    signs: Arc<Signs>,
}

#[derive(Default)]
struct Signs {
    /// The number of the last connection that somebody found broken.
    broken: AtomicU64,
    trouble: Notify,
    knock: Notify,
}

impl Link {
    /// Begins to connect. The key `epoch` is changed on each new connection before anybody uses it.
    pub(super) fn open(client: Client, epoch: String) -> Self {
        let (sender, state) = watch::channel(State::Down(Instant::now()));
        let signs = Arc::<Signs>::default();
        let keeper = Keeper {
            client,
            epoch,
            renew: Script::new(RENEW),
            signs: signs.clone(),
        };
        tokio::spawn(async move {
            tokio::select! {
                () = keeper.keep(&sender) => {}
                () = sender.closed() => {}
            }
        });
        Self { state, signs }
    }

    pub(super) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// A receiver of each change of [`Self::state`].
    pub(super) fn changes(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Asks for an attempt to connect now.
    pub(super) fn knock(&self) {
        self.signs.knock.notify_one();
    }

    /// One question and its answer over a [`Connection::channel`], within [`LIMIT`]. After a failure the connection is given up, for all.
    pub(super) async fn ask<T>(
        &self,
        connection: &Connection,
        ask: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, Trouble> {
        let answer = within(ask).await;
        if answer.is_err() {
            self.signs
                .broken
                .fetch_max(connection.number, Ordering::AcqRel);
            self.signs.trouble.notify_one();
        }
        answer
    }
}

async fn within<T>(ask: impl Future<Output = RedisResult<T>>) -> Result<T, Trouble> {
    match timeout(LIMIT, ask).await {
        Ok(answer) => answer.map_err(Trouble::from),
        Err(_) => Err(Trouble::Slow),
    }
}

struct Keeper {
    client: Client,
    epoch: String,
    renew: Script,
    signs: Arc<Signs>,
}

impl Keeper {
    async fn keep(&self, state: &watch::Sender<State>) {
        let (mut since, mut number, mut said) = (Instant::now(), 0, false);
        loop {
            let trouble = match self.connect().await {
                Ok(multiplexed) => {
                    number += 1;
                    tracing::info!("the cache is in Valkey from now on");
                    let connection = Connection {
                        number,
                        multiplexed,
                    };
                    state.send_replace(State::Up(connection.clone()));
                    let trouble = self.watch_over(connection).await;
                    (since, said) = (Instant::now(), false);
                    trouble
                }
                Err(trouble) => trouble,
            };
            if !said {
                tracing::warn!(
                    "Valkey cannot be used, so answers come from the database: {trouble}"
                );
                said = true;
            }
            state.send_replace(State::Down(since));
            let pause = if since.elapsed() < 2 * LEASE {
                SOON
            } else {
                LATER
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = self.signs.knock.notified() => {}
            }
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, Trouble> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(LIMIT))
            .set_response_timeout(Some(LIMIT));
        let mut connection = self
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        let begin = redis::cmd("SET")
            .arg(&self.epoch)
            .arg(token())
            .arg("PX")
            .arg(milliseconds(LEASE))
            .to_owned();
        within(begin.query_async::<()>(&mut connection)).await?;
        Ok(connection)
    }

    /// Renews the epoch until the connection is no good any more, and says why.
    async fn watch_over(&self, mut connection: Connection) -> Trouble {
        loop {
            tokio::select! {
                () = sleep(BEAT) => {
                    let mut renew = self.renew.key(&self.epoch);
                    renew.arg(token()).arg(milliseconds(LEASE));
                    if let Err(trouble) = within(renew.invoke_async::<()>(&mut connection.multiplexed)).await {
                        return trouble;
                    }
                }
                () = self.signs.trouble.notified() => {
                    if self.signs.broken.load(Ordering::Acquire) >= connection.number {
                        return Trouble::Slow;
                    }
                }
            }
        }
    }
}

/// A word that was never used before.
pub(super) fn token() -> Vec<u8> {
    Uuid::now_v7().into_bytes().to_vec()
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
