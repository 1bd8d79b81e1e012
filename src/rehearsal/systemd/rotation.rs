//! `drawbridge rotate-password` while the window is open and the API is in use.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::Trial;
use crate::appliance::{DATABASE_NAME, DATABASE_PORT, Role};
use crate::rehearsal::authority::Authority;
use crate::rehearsal::boot::Fleet;
use crate::rehearsal::machine::Machine;
use crate::rehearsal::probe;
use crate::rehearsal::proofs::{self, Login};
use crate::rehearsal::report::Current;
use crate::rehearsal::site::Site;

/// A rotation takes ten seconds, the half of them to see that the backend stays with the new login.
const LIMIT: Duration = Duration::from_secs(600);
/// Above the hosts' own limit.
const COMMAND_LIMIT: Duration = Duration::from_secs(700);
/// Clients that ask one request after the other.
const CLIENTS: usize = 4;
/// Between two requests of a client.
const PAUSE: Duration = Duration::from_millis(100);
/// Debian's own; the one in the PATH is a wrapper that looks for a database of this host's.
const PSQL: &str = "/usr/lib/postgresql/17/bin/psql";
/// For one try to sign in to Postgres.
const SIGN_IN_LIMIT: Duration = Duration::from_secs(120);

impl Trial<'_> {
    /// Rotates the password as an operator does, with requests through the load balancer all the time.
    ///
    /// # Errors
    /// If the command or the clients cannot be run, or a login cannot be read.
    pub fn rotate(
        &self,
        step: &mut Current<'_>,
        fleet: &Fleet,
        authority: &Authority,
    ) -> Result<()> {
        let backend = fleet.instance(Role::Backend)?;
        let (host, _) = self
            .topology
            .instance_host(Role::Database)
            .context("the state holds no database")?;
        let site = proofs::entrance(self.topology, authority)?;
        let before = proofs::login(self.topology, self.operator, self.machine)?;
        // Else its refusal afterwards would say nothing.
        let opened = sign_in(backend, host.address, &before)?;
        ensure!(
            opened.is_ok(),
            "the login before the rotation does not open the database: {}",
            opened.unwrap_or_else(|problem| problem)
        );
        let limit = LIMIT.as_secs().to_string();
        let words = ["drawbridge", "rotate-password", "--timeout", &limit].map(str::to_owned);
        let (output, took, answers) = self.under_load(&site, &words, COMMAND_LIMIT)?;
        let said = String::from_utf8_lossy(&output.stdout)
            .trim()
            .replace('\n', "; ");
        let problem = String::from_utf8_lossy(&output.stderr);
        let problem = problem.lines().last().unwrap_or_default();
        let rotated = if output.status.success() {
            Ok(format!("{said}; {took:.1} s"))
        } else {
            Err(anyhow::anyhow!("{}: {said} {problem}", output.status))
        };
        step.prove_result("drawbridge rotate-password does both halves", rotated);
        step.prove_result(
            "internet → API: no request fails while the password is replaced",
            no_failure(answers),
        );
        let after = proofs::login(self.topology, self.operator, self.machine)?;
        step.prove(
            "another login with another password is published",
            before.username != after.username && before.password != after.password,
            format!("{} after {}", after.username, before.username),
        );
        let opened = sign_in(backend, host.address, &after)?;
        step.prove(
            "the database lets the new login in",
            opened.is_ok(),
            opened.unwrap_or_else(|problem| problem),
        );
        let refused = sign_in(backend, host.address, &before)?;
        step.prove(
            "the database refuses the login of before",
            refused
                .as_ref()
                .is_err_and(|problem| problem.contains("FATAL")),
            refused.unwrap_or_else(|problem| problem),
        );
        Ok(())
    }

    /// How an operator's command ended, after how many seconds, and what became of every request meanwhile.
    ///
    /// # Errors
    /// If the command cannot be run.
    pub(super) fn under_load(
        &self,
        site: &Site,
        words: &[String],
        limit: Duration,
    ) -> Result<(Output, f64, Vec<Result<String>>)> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let over = AtomicBool::new(false);
        let ask = || {
            let mut answers = Vec::new();
            while !over.load(Ordering::Relaxed) {
                // A search is never kept: each asks the database.
                answers.push(site.get("/items?q=rotation"));
                std::thread::sleep(PAUSE);
            }
            answers
        };
        std::thread::scope(|scope| {
            let clients = (0..CLIENTS).map(|_| scope.spawn(ask)).collect();
            let begun = Instant::now();
            let output = self
                .machine
                .command(&words, limit)
                .environment(self.operator.environment.clone())
                .output();
            let took = begun.elapsed().as_secs_f64();
            over.store(true, Ordering::Relaxed);
            let answers = probe::join(clients).into_iter().flatten().collect();
            Ok((output?, took, answers))
        })
    }
}

/// Every one of some requests was answered.
pub(super) fn no_failure(answers: Vec<Result<String>>) -> Result<String> {
    let all = answers.len();
    ensure!(all > CLIENTS, "only {all} requests were made");
    let mut problems = answers.into_iter().filter_map(Result::err);
    match problems.next() {
        None => Ok(format!("{all} requests were all answered with 200")),
        Some(first) => Err(first.context(format!(
            "{} of {all} requests failed; the first",
            problems.count() + 1
        ))),
    }
}

/// Tries a login from the backend, over TLS. What Postgres answers, or what psql complains of.
fn sign_in(backend: &Machine, database: Ipv4Addr, login: &Login) -> Result<Result<String, String>> {
    let connection = format!(
        "host={database} port={DATABASE_PORT} dbname={DATABASE_NAME} user={} sslmode=require connect_timeout=100",
        login.username
    );
    // By stdin: arguments are for everybody to see.
    let script = r#"IFS= read -r PGPASSWORD; export PGPASSWORD; exec "$0" "$@""#;
    let mut child = backend
        .command(
            &[
                "sh",
                "-c",
                script,
                PSQL,
                "--no-psqlrc",
                "--no-password",
                "--tuples-only",
                "--no-align",
                "--command",
                "SELECT 'signed in as ' || session_user",
                &connection,
            ],
            SIGN_IN_LIMIT,
        )
        .build()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run psql on the backend")?;
    if let Some(mut stdin) = child.stdin.take() {
        writeln!(stdin, "{}", login.password).context("cannot hand psql the password")?;
    }
    let output = child.wait_with_output().context("cannot wait for psql")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().replace('\n', " / ");
    Ok(if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("{} ({})", text(&output.stderr), output.status))
    })
}
