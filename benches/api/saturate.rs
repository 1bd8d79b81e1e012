//! As much as goes through a fixed number of connections: `wrk` for HTTP, `pgbench` for Postgres alone.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use drawbridge::postgres::Binaries;
use nix::unistd::Pid;

use crate::{
    process,
    stage::{self, Stage},
    support::{client, postgres::TestDatabase, run},
};

/// Connections of each load generator: more than are needed to keep two cores busy, fewer than queue for long.
pub const CONNECTIONS: usize = 48;

/// One run.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Requests or transactions.
    pub per_second: f64,
    /// Microseconds of processor time for each of them.
    pub cpu: Cpu,
}

/// Where processor time went.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu {
    /// The API, all its processes; 0 for pgbench.
    pub api: f64,
    /// All of Postgres' processes.
    pub postgres: f64,
    /// `wrk` or `pgbench`.
    pub client: f64,
}

/// What is asked of an API, as a script for `wrk`: `requests` in turn.
pub fn script(stage: &Stage, name: &str, requests: &[Vec<u8>]) -> PathBuf {
    let quoted = |request: &Vec<u8>| format!("{:?}", String::from_utf8_lossy(request));
    let requests: Vec<String> = requests.iter().map(quoted).collect();
    let text = format!(
        "local requests = {{ {} }}\nlocal next = 0\n\
         function request()\n  next = next % #requests + 1\n  return requests[next]\nend\n",
        requests.join(", ")
    );
    stage::file(stage, name, &text)
}

/// Requests for one row each.
pub fn finds(ids: &[String]) -> Vec<Vec<u8>> {
    ids.iter()
        .map(|id| client::get(&format!("/items/{id}")))
        .collect()
}

/// Keeps an API busy for `time`. An answer that is not 2xx or 3xx fails the run.
pub fn wrk(stage: &Stage, api: Pid, address: SocketAddr, script: &Path, time: Duration) -> Sample {
    let mut wrk = Command::new("wrk");
    wrk.args([
        "-t",
        &stage::cores().min(4).to_string(),
        "-c",
        &CONNECTIONS.to_string(),
    ])
    .args([
        "-d",
        &format!("{}s", time.as_secs()),
        "--timeout",
        "20s",
        "-s",
    ])
    .arg(script)
    .arg(format!("http://{address}"));
    let (said, cpu) = account(stage, Some(api), &mut wrk, time);
    for bad in ["Non-2xx", "Socket errors"] {
        assert!(
            !said.contains(bad),
            "{address}, {}: {said}",
            script.display()
        );
    }
    let requests = number(&said, "requests in");
    sample(cpu, number(&said, "Requests/sec:"), requests)
}

/// Keeps Postgres busy for `time` with `queries` in turn, each prepared once per connection.
pub fn pgbench(
    stage: &Stage,
    database: &TestDatabase,
    queries: &[String],
    time: Duration,
) -> Sample {
    let program = Binaries::find().expect("PostgreSQL").program("pgbench");
    let mut pgbench = Command::new(program);
    pgbench
        .args(["-n", "-M", "prepared", "-U", "postgres", "-h"])
        .arg(stage.postgres.sockets());
    pgbench.args(["-p", &stage.postgres.port().to_string()]);
    pgbench.args([
        "-c",
        &CONNECTIONS.to_string(),
        "-j",
        &stage::cores().min(4).to_string(),
    ]);
    pgbench.args(["-T", &time.as_secs().to_string()]);
    for (number, query) in queries.iter().enumerate() {
        pgbench.arg("-f").arg(stage::file(
            stage,
            &format!("{number}.sql"),
            &format!("{query};\n"),
        ));
    }
    pgbench.arg(&database.name);
    let (said, cpu) = account(stage, None, &mut pgbench, time);
    let transactions = number(&said, "number of transactions actually processed:");
    sample(cpu, number(&said, "tps ="), transactions)
}

/// Runs a load generator to its end; what it said, and seconds of processor time meanwhile.
fn account(
    stage: &Stage,
    api: Option<Pid>,
    command: &mut Command,
    time: Duration,
) -> (String, Cpu) {
    let postgres = stage.postgres.pid();
    let now = || Cpu {
        api: api.map_or(0.0, process::cpu_seconds),
        postgres: process::cpu_seconds(postgres),
        client: process::collected_cpu_seconds(),
    };
    let before = now();
    let said = run(command.stdin(Stdio::null()), time + Duration::from_secs(30));
    let after = now();
    let said = said.expect_success(&format!("{command:?}"));
    let cpu = Cpu {
        api: after.api - before.api,
        postgres: after.postgres - before.postgres,
        client: after.client - before.client,
    };
    (said, cpu)
}

fn sample(cpu: Cpu, per_second: f64, count: f64) -> Sample {
    let each = |seconds: f64| seconds / count * 1e6;
    let cpu = Cpu {
        api: each(cpu.api),
        postgres: each(cpu.postgres),
        client: each(cpu.client),
    };
    Sample { per_second, cpu }
}

/// The number beside `label`: behind it after `:` or `=`, else before it.
fn number(said: &str, label: &str) -> f64 {
    let line = said.lines().find(|line| line.contains(label));
    let line = line.unwrap_or_else(|| panic!("no {label}: {said}"));
    let (before, after) = line.split_once(label).unwrap();
    let beside = if label.ends_with([':', '=']) {
        after
    } else {
        before
    };
    let word = beside.split_whitespace().next().unwrap_or_default();
    word.parse().unwrap_or_else(|_| panic!("{label}: {line}"))
}
