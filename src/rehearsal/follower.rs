//! Lets the network follow the state, as AWS's would: whatever writes the state, also a script that runs meanwhile,
//! the routes and rules are what it says a moment later.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};

use super::namespaces::Network;
use super::network::Stray;
use super::state::State;
use super::topology::Topology;

/// Well below the seconds that a command takes between writing the state and looking at the network.
const INTERVAL: Duration = Duration::from_millis(100);

/// Where the state is, and what the network was last made of.
pub struct Follower {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    file: PathBuf,
    stray: Stray,
    stop: AtomicBool,
    seen: Mutex<Seen>,
}

struct Seen {
    topology: Arc<Topology>,
    error: Option<anyhow::Error>,
}

impl Follower {
    /// Follows `file` from now on; `network` stands for `topology` already.
    pub fn start(file: PathBuf, network: Network, topology: Topology, stray: Stray) -> Follower {
        let seen = Mutex::new(Seen {
            topology: Arc::new(topology),
            error: None,
        });
        let shared = Arc::new(Shared {
            file,
            stray,
            stop: AtomicBool::new(false),
            seen,
        });
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.follow(network)
        });
        Follower {
            shared,
            thread: Some(thread),
        }
    }

    /// What the network stands for now.
    ///
    /// # Errors
    /// If the network could not be made what the state says.
    pub fn topology(&self) -> Result<Arc<Topology>> {
        let mut seen = self.shared.seen();
        match seen.error.take() {
            Some(error) => Err(error).context("the network does not follow the state"),
            None => Ok(Arc::clone(&seen.topology)),
        }
    }

    /// The rehearsal's own machine.
    pub fn stray(&self) -> &Stray {
        &self.shared.stray
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed by then.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(&self, mut network: Network) {
        let mut last = self.modified();
        while !self.stop.load(Ordering::Relaxed) {
            std::thread::sleep(INTERVAL);
            let now = self.modified();
            if now == last {
                continue;
            }
            // Terraform writes the file in place, so it may be half-written: the next look finds the rest.
            let Ok(state) = read_state(&self.file) else {
                continue;
            };
            last = now;
            let followed = Topology::read(&state)
                .map_err(anyhow::Error::from)
                .and_then(|topology| network.follow(&topology, &self.stray).map(|()| topology));
            let mut seen = self.seen();
            match followed {
                Ok(topology) => {
                    *seen = Seen {
                        topology: Arc::new(topology),
                        error: None,
                    }
                }
                Err(error) => seen.error = Some(error),
            }
        }
    }

    fn modified(&self) -> Option<SystemTime> {
        fs::metadata(&self.file)
            .and_then(|metadata| metadata.modified())
            .ok()
    }
}

/// Reads the state file that Terraform keeps.
///
/// # Errors
/// If it is missing or not a state.
pub fn read_state(file: &std::path::Path) -> Result<State> {
    let text = fs::read_to_string(file).with_context(|| {
        format!(
            "no state in {}; the rehearsal needs Terraform's local backend",
            file.display()
        )
    })?;
    Ok(State::parse(&text)?)
}
