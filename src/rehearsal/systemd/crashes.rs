//! What dies comes back: systemd starts it again, and it serves.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::{ask, properties};
use crate::appliance::API_PORT;
use crate::rehearsal::hosts::{API_UNIT, SSHD_UNIT};
use crate::rehearsal::machine::Machine;
use crate::rehearsal::report::Current;

/// Postgres itself; `postgresql.target` is what others wait for.
const POSTGRES_UNIT: &str = "postgresql.service";
/// systemd starts the API again after a second, Postgres after recovery.
const BACK_LIMIT: Duration = Duration::from_secs(300);
/// Below what the API needs for its next request.
const TOO_LITTLE_MEMORY: &str = "262144";
/// Enough to make the API use memory it has not used yet: forty requests at once, with as much in them as it takes.
const REQUESTS: &str = r#"ask() {
    exec 3<>/dev/tcp/127.0.0.1/8000 || return 0
    printf 'POST /items HTTP/1.1\r\nHost: backend\r\nContent-Type: application/json\r\nContent-Length: 60000\r\nConnection: close\r\n\r\n' >&3
    head -c 60000 /dev/zero >&3
    timeout 5 cat <&3 >/dev/null
}
for i in $(seq 40); do ask 2>/dev/null & done
wait"#;

/// The API dies of a signal, and of a lack of memory.
pub fn prove_api(step: &mut Current<'_>, backend: &Machine) {
    step.prove_result(
        "backend: the API is back after kill -9",
        killed_and_back(backend, API_UNIT, &|| ready(backend)),
    );
    step.prove_result(
        "backend: the API is back after the kernel has killed it for its memory",
        starved_and_back(backend),
    );
}

/// One of Postgres's processes dies, then all of it; the API reaches it again each time.
pub fn prove_postgres(step: &mut Current<'_>, database: &Machine, backend: &Machine) {
    step.prove_result(
        "database: Postgres is back after one of its processes was killed with -9",
        session_killed(database).and_then(|seen| {
            until_ok(&|| ready(backend))?;
            Ok(seen)
        }),
    );
    step.prove_result(
        "database: Postgres is back after kill -9 of its first process",
        killed_and_back(database, POSTGRES_UNIT, &|| ready(backend)),
    );
}

/// sshd dies; `sign_in` then works again.
pub fn prove_sshd(step: &mut Current<'_>, machine: &Machine, sign_in: &dyn Fn() -> Result<String>) {
    step.prove_result(
        format!("{}: sshd is back after kill -9", machine.name()),
        killed_and_back(machine, SSHD_UNIT, sign_in),
    );
}

/// The API's own word, asked on its host.
pub fn ready(backend: &Machine) -> Result<String> {
    let script = format!(
        "exec 3<>/dev/tcp/127.0.0.1/{API_PORT} && printf 'GET /ready HTTP/1.0\\r\\nHost: backend\\r\\n\\r\\n' >&3 && head -n 1 <&3"
    );
    let answer = ask(backend, &["timeout", "60", "bash", "-c", &script])?;
    ensure!(answer.contains(" 200 "), "/ready answers {answer:?}");
    Ok("/ready answers 200".to_owned())
}

fn main_pid(machine: &Machine, unit: &str) -> Result<u32> {
    let seen = properties(machine, unit, &["MainPID", "ActiveState"])?;
    ensure!(
        seen["ActiveState"] == "active",
        "{unit} is {}",
        seen["ActiveState"]
    );
    seen["MainPID"]
        .parse()
        .with_context(|| format!("{unit} has no process"))
}

fn killed_and_back(
    machine: &Machine,
    unit: &str,
    serves: &dyn Fn() -> Result<String>,
) -> Result<String> {
    let killed = main_pid(machine, unit)?;
    ask(machine, &["kill", "-KILL", &killed.to_string()])?;
    back_after(machine, unit, killed, serves)
}

/// Waits until another process serves in the place of `killed`.
fn back_after(
    machine: &Machine,
    unit: &str,
    killed: u32,
    serves: &dyn Fn() -> Result<String>,
) -> Result<String> {
    let begun = Instant::now();
    until_ok(&|| {
        let now = main_pid(machine, unit)?;
        ensure!(now != killed, "process {killed} is still the one of {unit}");
        Ok(String::new())
    })?;
    let seen = until_ok(serves)?;
    Ok(format!(
        "{seen} {:.1} s later",
        begun.elapsed().as_secs_f64()
    ))
}

fn until_ok(look: &dyn Fn() -> Result<String>) -> Result<String> {
    let begun = Instant::now();
    loop {
        match look() {
            Ok(seen) => return Ok(seen),
            Err(error) if begun.elapsed() > BACK_LIMIT => {
                return Err(error.context(format!("not after {} s", BACK_LIMIT.as_secs())));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// The process that serves one of the API's connections; Postgres then starts all others anew.
fn session_killed(database: &Machine) -> Result<String> {
    let postmaster = main_pid(database, POSTGRES_UNIT)?;
    let find = ["pgrep", "--newest", "--full", "^postgres: drawbridge"];
    let session = ask(database, &find).context("no session of the API")?;
    ask(database, &["kill", "-KILL", &session])?;
    until_ok(&|| {
        let log = database.log(POSTGRES_UNIT)?;
        ensure!(
            log.contains(&format!("(PID {session}) was terminated by signal 9")),
            "Postgres does not say that process {session} was killed"
        );
        Ok(String::new())
    })?;
    ensure!(
        main_pid(database, POSTGRES_UNIT)? == postmaster,
        "its first process did not survive"
    );
    Ok("all sessions were reset, the first process stayed".to_owned())
}

/// Puts a limit around the API's process as `MemoryMax=` would, which a container's systemd cannot on this machine, and
/// makes it work.
fn starved_and_back(backend: &Machine) -> Result<String> {
    let killed = main_pid(backend, API_UNIT)?;
    let (first, cgroups) = backend.systemd().context("no systemd runs there")?;
    let process = outside(first, killed)?;
    let (host, limit) = cgroups.memory()?;
    let group = host.join("starved");
    fs::create_dir_all(&group).with_context(|| format!("cannot make {}", group.display()))?;
    let write = |file: &str, text: &str| {
        let path = group.join(file);
        fs::write(&path, text).with_context(|| format!("cannot write {text} to {}", path.display()))
    };
    write(limit, TOO_LITTLE_MEMORY)?;
    write("cgroup.procs", &process.to_string())?;
    let begun = Instant::now();
    while main_pid(backend, API_UNIT).is_ok_and(|now| now == killed) {
        if begun.elapsed() > BACK_LIMIT {
            bail!("with {TOO_LITTLE_MEMORY} bytes left the API goes on");
        }
        // Whatever becomes of the requests: the process is what is looked at.
        backend
            .command(&["bash", "-c", REQUESTS], Duration::from_secs(60))
            .output()?;
    }
    let kills = ["memory.oom_control", "memory.events"]
        .iter()
        .find_map(|file| fs::read_to_string(group.join(file)).ok())
        .context("the kernel does not count what it kills for memory")?;
    let counted = kills
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "));
    ensure!(
        counted.is_some_and(|count| count != "0"),
        "it ended, but not for its memory: {kills}"
    );
    back_after(backend, API_UNIT, killed, &|| ready(backend))
}

/// Number, in the rehearsal, of a process that the host with the first process `first` numbers `inside`.
fn outside(first: u32, inside: u32) -> Result<u32> {
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let wanted = namespace(first);
    let processes = fs::read_dir("/proc").context("cannot list processes")?;
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| namespace(*pid) == wanted)
        .find(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            numbers.and_then(|line| line.split_whitespace().last()) == Some(&inside.to_string())
        })
        .with_context(|| format!("process {inside} has ended"))
}
