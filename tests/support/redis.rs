//! A real Valkey or Redis, to share, stop, kill and start again.

use std::{
    fs,
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{eventually, free_port, postgres::guard};

const LIMIT: Duration = Duration::from_secs(60);

/// A server on a port of its own that ends with the test, however that ends.
pub struct TestRedis {
    folder: PathBuf,
    port: u16,
    arguments: Vec<String>,
    server: Option<(Child, ChildStdin)>,
}

impl TestRedis {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With further arguments.
    pub fn start_with(arguments: &[&str]) -> Self {
        let mut redis = Self::prepare(arguments);
        redis.start_again();
        redis
    }

    /// Its port and folder, and nobody there.
    pub fn prepare(arguments: &[&str]) -> Self {
        let mut builder = tempfile::Builder::new();
        let folder = builder.prefix("drawbridge-test-redis-").tempdir().unwrap();
        Self {
            folder: folder.keep(),
            port: free_port(),
            arguments: arguments.iter().map(|it| (*it).to_owned()).collect(),
            server: None,
        }
    }

    /// On the same port and the same files.
    pub fn start_again(&mut self) {
        let program = ["valkey-server", "redis-server"]
            .into_iter()
            .find(|program| {
                let path = std::env::var_os("PATH").unwrap();
                std::env::split_paths(&path).any(|folder| folder.join(program).exists())
            })
            .expect("redis-server (Debian package redis-server) or valkey-server");
        let server = Command::new(program)
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--port", &self.port.to_string(), "--dir"])
            .arg(&self.folder)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let guardian = guard(server.id(), &self.folder);
        self.server = Some((server, guardian));
        eventually(LIMIT, "redis-server", || {
            std::net::TcpStream::connect(("127.0.0.1", self.port)).map_err(|e| e.to_string())
        });
    }

    pub fn signal(&self, signal: Signal) {
        let (server, _) = self.server.as_ref().unwrap();
        kill(Pid::from_raw(server.id().cast_signed()), signal).unwrap();
    }

    /// With no time to say anything.
    pub fn kill(&mut self) {
        if let Some((mut server, mut guardian)) = self.server.take() {
            // It would remove the files, and end whoever has this number next.
            std::io::Write::write_all(&mut guardian, b"dismissed\n").unwrap();
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    /// One command and its answer.
    pub fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let client = redis::Client::open(("127.0.0.1", self.port)).unwrap();
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command
            .query(&mut client.get_connection().unwrap())
            .unwrap()
    }

    /// `[cache]` that uses it.
    pub fn config(&self) -> String {
        format!(
            "[cache]\nvalkey_url = \"valkey://127.0.0.1:{}\"\n",
            self.port
        )
    }
}

impl Drop for TestRedis {
    fn drop(&mut self) {
        self.kill();
        drop(fs::remove_dir_all(&self.folder));
    }
}
