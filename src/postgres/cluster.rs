//! One PostgreSQL server of our own: its files, its Unix socket, and its process.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, chown},
    path::{Path, PathBuf},
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use super::{Binaries, Owner, is_alive, is_command_with, owner::make_private_folder};

/// Slower than the slowest start seen; crash recovery after a kill takes longest.
const START_LIMIT: Duration = Duration::from_secs(60);
/// For each of the two ways to stop, the polite one and the abrupt one.
const STOP_LIMIT: Duration = Duration::from_secs(15);
const INTERVAL: Duration = Duration::from_millis(50);
/// The longest path a Unix socket can have on Linux and macOS, less the name Postgres appends.
const SOCKET_FOLDER_LIMIT: usize = 103 - "/.s.PGSQL.65535".len();

/// Why there is no server. None is left running by the call that failed.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A file or folder cannot be made.
    #[error("cannot {doing} {} (see whose it is and that the disk is not full, or name another folder)", path.display())]
    File {
        /// Such as `create the folder`.
        doing: &'static str,
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// One of Postgres' programs cannot be run.
    #[error("cannot run {program} (install PostgreSQL's server programs anew)")]
    Run {
        /// Its name.
        program: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// One of Postgres' programs failed.
    #[error(
        "{program} failed ({status}): {said} (mend that, or remove the data folder to begin anew)"
    )]
    Failed {
        /// Its name.
        program: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The last of what it said.
        said: String,
    },
    /// It runs and does not answer.
    #[error("PostgreSQL is not ready after {limit:?}; the last it said: {said} (run this again, or remove the data folder to begin anew)", limit = START_LIMIT)]
    NotReady {
        /// The end of its log.
        said: String,
    },
    /// Postgres refuses to run as root, and there is nobody else.
    #[error(
        "PostgreSQL refuses to run as root, and this machine has no user `postgres` to run it as; \
         install postgresql by the system's package manager, or start this as an ordinary user"
    )]
    NoOwner,
    /// The folder for the socket belongs to somebody else.
    #[error("{} is not a folder of ours with mode 0700; remove it", path.display())]
    NotOurs {
        /// The folder.
        path: PathBuf,
    },
}

/// The files of one server below one folder: `data/` and, where the path is short enough, `run/` with the socket.
#[derive(Debug, Clone)]
pub struct Cluster {
    binaries: Binaries,
    folder: PathBuf,
    sockets: PathBuf,
    owner: Option<Owner>,
}

impl Cluster {
    /// Prepares `folder` (absolute; made if missing, mode 0700) and the folder for the socket.
    ///
    /// # Errors
    /// [`ClusterError::File`], [`ClusterError::NotOurs`].
    pub fn prepare(
        binaries: Binaries,
        folder: &Path,
        owner: Option<Owner>,
    ) -> Result<Self, ClusterError> {
        let folder = folder.to_owned();
        make_private_folder(&folder, owner)?;
        let mut sockets = folder.join("run");
        if sockets.as_os_str().len() > SOCKET_FOLDER_LIMIT {
            // Short, and the same again at the next start.
            let (device, inode) = fs::metadata(&folder)
                .map(|of| (of.dev(), of.ino()))
                .map_err(file("read", &folder))?;
            sockets = PathBuf::from(format!("/tmp/drawbridge-{device:x}-{inode:x}"));
        }
        make_private_folder(&sockets, owner)?;
        Ok(Self {
            binaries,
            folder,
            sockets,
            owner,
        })
    }

    /// The folder of the Unix socket, as `host` of a connection.
    pub fn sockets(&self) -> &Path {
        &self.sockets
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Where the running server's own log goes; every start begins a new one.
    pub fn log(&self) -> PathBuf {
        self.folder.join("postgresql.log")
    }

    /// Makes the data directory, superuser `postgres`, and runs `statements` in it, each of one line. Does nothing if
    /// it is there; a creation that was interrupted starts over. Returns whether it did anything.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub async fn create_if_missing(&self, statements: &[&str]) -> Result<bool, ClusterError> {
        let data = self.data();
        if data.join("PG_VERSION").exists() {
            return Ok(false);
        }
        let half = self.folder.join("data.new");
        if half.exists() {
            fs::remove_dir_all(&half).map_err(file("remove the unfinished", &half))?;
        }
        let mut initdb = self.command("initdb");
        initdb.args([
            "--username=postgres",
            "--auth=reject",
            "--encoding=UTF8",
            // As the appliance's database has it: C order, and letters beyond ASCII have upper and lower case.
            "--no-locale",
            "--lc-ctype=C.UTF-8",
            "--no-sync",
            "-D",
        ]);
        finish("initdb", initdb.arg(&half), "").await?;
        // Single-user mode needs no listening server and no login.
        let mut single = self.command("postgres");
        single.args([
            "--single".as_ref(),
            "-D".as_ref(),
            half.as_os_str(),
            "postgres".as_ref(),
        ]);
        finish(
            "postgres --single",
            &mut single,
            &format!("{}\n", statements.join("\n")),
        )
        .await?;
        fs::rename(&half, &data).map_err(file("rename", &half))?;
        Ok(true)
    }

    /// Replaces who may log in: `pg_hba.conf` and `pg_ident.conf`.
    ///
    /// # Errors
    /// [`ClusterError::File`].
    pub fn write_access(&self, hba: &str, ident: &str) -> Result<(), ClusterError> {
        for (name, text) in [("pg_hba.conf", hba), ("pg_ident.conf", ident)] {
            let path = self.data().join(name);
            fs::write(&path, text).map_err(file("write", &path))?;
        }
        Ok(())
    }

    /// Puts a file into the data directory that only the server's user can read, such as a TLS key.
    ///
    /// # Errors
    /// [`ClusterError::File`].
    pub fn write_private(&self, name: &str, text: &str) -> Result<(), ClusterError> {
        let path = self.data().join(name);
        fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .and_then(|()| match self.owner {
                Some(owner) => chown(&path, Some(owner.uid), Some(owner.gid)),
                None => Ok(()),
            })
            .map_err(file("write", &path))
    }

    /// Starts the server; settings are those of `postgresql.conf`. It ends when the returned child is dropped, if by
    /// then nobody stopped it properly.
    ///
    /// # Errors
    /// [`ClusterError::File`], [`ClusterError::Run`].
    pub fn spawn(&self, settings: &[(&str, &str)]) -> Result<Child, ClusterError> {
        let path = self.log();
        let log = fs::File::create(&path).map_err(file("create", &path))?;
        let mut server = self.command("postgres");
        server
            .arg("-D")
            .arg(self.data())
            .stderr(log)
            .stdout(Stdio::null());
        server.arg("-c").arg(format!(
            "unix_socket_directories={}",
            self.sockets.display()
        ));
        for (name, value) in settings {
            server.arg("-c").arg(format!("{name}={value}"));
        }
        server.spawn().map_err(|source| ClusterError::Run {
            program: "postgres",
            source,
        })
    }

    /// Waits until the server takes connections, 60 s at most.
    ///
    /// # Errors
    /// [`ClusterError::Failed`] with the end of its log when it has ended, [`ClusterError::NotReady`].
    pub async fn wait_ready(&self, server: &mut Child) -> Result<(), ClusterError> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            // The eighth line of the lock file is the server's own word (what pg_ctl reads as well).
            let lock = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
            let mut lines = lock.lines().map(str::trim);
            let is_this_one = lines.next().and_then(|pid| pid.parse().ok()) == server.id();
            if is_this_one && lines.nth(6) == Some("ready") {
                return Ok(());
            }
            if let Ok(Some(status)) = server.try_wait() {
                return Err(ClusterError::Failed {
                    program: "postgres",
                    status,
                    said: self.log_end(),
                });
            }
            if Instant::now() >= deadline {
                return Err(ClusterError::NotReady {
                    said: self.log_end(),
                });
            }
            sleep(INTERVAL).await;
        }
    }

    /// Stops a server: sessions are ended, data is written out; after 15 s without that.
    pub async fn stop(&self, mut server: Child) {
        for signal in [Signal::SIGINT, Signal::SIGQUIT] {
            if let Some(pid) = server.id() {
                // It may have ended by itself a moment ago.
                let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
            }
            if timeout(STOP_LIMIT, server.wait()).await.is_ok() {
                return;
            }
        }
        drop(server.kill().await);
    }

    /// Clears what a run that was killed left behind. The caller must hold whatever keeps a second one away.
    ///
    /// A server that still runs is stopped. Lock files are removed whose process number now belongs to something else,
    /// or to a server that ended and was never collected: Postgres takes both for a running server. (Its sessions, should
    /// one live on, still keep a new server away by the shared memory they hold.) Returns whether there was a server.
    ///
    /// # Errors
    /// [`ClusterError::File`].
    pub async fn stop_leftover(&self) -> Result<bool, ClusterError> {
        let lock = self.data().join("postmaster.pid");
        let holder = fs::read_to_string(&lock)
            .ok()
            .and_then(|text| text.lines().next()?.trim().parse().ok())
            .map(Pid::from_raw);
        let server = holder.filter(|pid| is_alive(*pid) && is_command_with(*pid, &self.data()));
        if let Some(pid) = server {
            for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGKILL] {
                let _ = kill(pid, signal);
                let deadline = Instant::now() + STOP_LIMIT;
                while is_alive(pid) && Instant::now() < deadline {
                    sleep(INTERVAL).await;
                }
            }
        } else if holder.is_some() {
            fs::remove_file(&lock).map_err(file("remove the stale", &lock))?;
        }
        let sockets = fs::read_dir(&self.sockets).map_err(file("read", &self.sockets))?;
        for path in sockets.flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(".s.PGSQL.") {
                fs::remove_file(&path).map_err(file("remove the stale", &path))?;
            }
        }
        Ok(server.is_some())
    }

    fn log_end(&self) -> String {
        last_lines(&fs::read_to_string(self.log()).unwrap_or_default())
    }

    /// A program of Postgres', as the user it runs as, out of reach of the terminal's Ctrl-C and of our environment.
    /// One of Postgres' programs, as the server's user; it ends with whoever started it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.program(program));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LC_ALL", "C")
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if let Some(owner) = self.owner {
            command.uid(owner.uid).gid(owner.gid);
        }
        command
    }
}

/// Runs a program that ends by itself.
async fn finish(
    program: &'static str,
    command: &mut Command,
    input: &str,
) -> Result<(), ClusterError> {
    let run = |source| ClusterError::Run { program, source };
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(run)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that fails early closes its end; its status and words say more than our broken pipe.
        drop(stdin.write_all(input.as_bytes()).await);
    }
    let output = timeout(START_LIMIT, child.wait_with_output())
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "it did not end")))
        .map_err(run)?;
    let Output {
        status,
        stdout,
        stderr,
    } = output;
    // Single-user mode reports a failed statement and goes on, with status 0.
    let said = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    if status.success() && !said.contains("ERROR:") {
        return Ok(());
    }
    Err(ClusterError::Failed {
        program,
        status,
        said: last_lines(&said),
    })
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines
        .get(lines.len().saturating_sub(4)..)
        .unwrap_or_default()
        .join("; ")
}

pub(super) fn file(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> ClusterError + use<> {
    let path = path.to_owned();
    move |source| ClusterError::File {
        doing,
        path: path.clone(),
        source,
    }
}
