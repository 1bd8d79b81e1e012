//! The way in beside OpenSSH's `ssh -J`: how long a command takes, how fast files go each way, what it needs of memory.
//!
//! ```sh
//! cargo bench --bench ssh                # needs root: three machines as network namespaces; about ten minutes
//! cargo bench --bench ssh -- ROUNDS      # 5 if not given
//! cargo bench --bench ssh -- 3 '50 ms'   # only the lines with this text
//! ```
//!
//! Real sshds with the images' settings, here and 50 ms away; both clients in turn within one run and with the same key,
//! so that the ratios of the medians mean something on any machine. Ends with 1 if one misses its target. It is the SSH
//! that is compared: both know the hosts' addresses and keys beforehand, so `drawbridge exec` takes as much longer as it
//! needs to ask Terraform's state and SSM.
#![allow(missing_docs, clippy::expect_used, clippy::unwrap_used)]

// The tests need more of both.
#[allow(dead_code)]
#[path = "../tests/bastion/network/stage.rs"]
mod stage;
#[allow(dead_code, unused_imports)]
#[path = "../tests/support/mod.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use drawbridge::appliance::Role;
use drawbridge::bastion::ssh_config::SshConfig;
use stage::{Conditions, Stage};

/// Bytes of a transfer.
const SIZE: usize = 300_000_000;
/// Commands in a row.
const COMMANDS: usize = 20;
/// Milliseconds there and back, of the far stage.
const FAR: u32 = 50;
/// Says that this program is to be the client, and where the stage is.
const CLIENT: &str = "--client-of";

/// Who connects.
#[derive(Clone, Copy, PartialEq)]
enum Who {
    /// This program's library.
    Ours,
    /// As it comes.
    OpenSsh,
    /// With the cipher that ours chooses on a processor that has instructions for it.
    OpenSshAes,
    /// With a connection that stays for the next.
    OpenSshMaster,
}

/// What is done.
#[derive(Clone, Copy)]
enum What {
    True,
    Row,
    Get,
    Put,
}

/// One comparison.
struct Row {
    what: What,
    far: bool,
    peer: Who,
    /// Peer's seconds by ours, at least, if the project promises something.
    target: Option<f64>,
    ours: Vec<Sample>,
    theirs: Vec<Sample>,
}

/// One measurement.
#[derive(Clone, Copy)]
struct Sample {
    seconds: f64,
    /// Peak memory of all of the client's processes together.
    kibibytes: u64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    if let [flag, folder, what] = arguments.as_slice()
        && flag == CLIENT
    {
        return client(Path::new(folder), what);
    }
    let rounds = arguments.first();
    let rounds: usize = rounds.map_or(5, |rounds| rounds.parse().expect("ROUNDS is a number"));
    assert!(rounds > 0, "ROUNDS is at least 1");
    let at = |round_trip| {
        Stage::start(Conditions {
            round_trip,
            ..Conditions::default()
        })
    };
    let (Some(near), Some(far)) = (at(0), at(FAR)) else {
        eprintln!("run it as root: it makes network namespaces");
        return ExitCode::from(2);
    };
    for stage in [&near, &far] {
        configure(stage);
    }
    let begun = load();
    println!(
        "{rounds} rounds; the far link is delayed by {}; load average {begun}",
        far.delayed_by
    );

    let row = |what, far, peer, target| Row {
        what,
        far,
        peer,
        target,
        ours: Vec::new(),
        theirs: Vec::new(),
    };
    let wanted = arguments.get(1).map_or("", String::as_str);
    let rows = [
        row(What::True, false, Who::OpenSsh, Some(1.0 / 0.6)),
        row(What::True, true, Who::OpenSsh, Some(1.0 / 0.6)),
        row(What::Row, false, Who::OpenSsh, None),
        row(What::Row, false, Who::OpenSshMaster, None),
        row(What::Row, true, Who::OpenSsh, None),
        row(What::Row, true, Who::OpenSshMaster, None),
        row(What::Get, false, Who::OpenSsh, Some(1.3)),
        row(What::Get, false, Who::OpenSshAes, None),
        row(What::Put, false, Who::OpenSsh, Some(1.0)),
        row(What::Put, false, Who::OpenSshAes, None),
        row(What::Get, true, Who::OpenSsh, Some(2.0)),
        row(What::Put, true, Who::OpenSsh, None),
    ];
    let mut rows: Vec<Row> = rows
        .into_iter()
        .filter(|row| row.name().contains(wanted))
        .collect();
    assert!(!rows.is_empty(), "no line contains {wanted}");
    for round in 1..=rounds {
        for row in &mut rows {
            let stage = if row.far { &far } else { &near };
            let (ours, theirs) = (
                measure(stage, Who::Ours, row.what),
                measure(stage, row.peer, row.what),
            );
            println!(
                "round {round}: {}: {:.2} s, theirs {:.2} s",
                row.name(),
                ours.seconds,
                theirs.seconds
            );
            row.ours.push(ours);
            row.theirs.push(theirs);
        }
    }

    println!(
        "\nmedians of {rounds} rounds, load average {begun} before and {} after",
        load()
    );
    println!("| | drawbridge | OpenSSH | ratio | target | memory, MB |\n|---|---|---|---|---|---|");
    let mut missed = 0;
    for row in &rows {
        missed += u8::from(!row.print());
    }
    ExitCode::from(u8::from(missed > 0))
}

impl Row {
    fn name(&self) -> String {
        let what = match self.what {
            What::True => "`exec backend -- true`".to_owned(),
            What::Row => format!("{COMMANDS} commands in a row"),
            What::Get => "300 MB from the backend".to_owned(),
            What::Put => "300 MB to the backend".to_owned(),
        };
        let far = if self.far {
            format!(", {FAR} ms away")
        } else {
            String::new()
        };
        let peer = match self.peer {
            Who::Ours | Who::OpenSsh => "`ssh -J`",
            Who::OpenSshAes => "`ssh -J` with AES-256-GCM",
            Who::OpenSshMaster => "`ssh -J` with ControlMaster",
        };
        format!("{what}{far}, by {peer}")
    }

    /// Prints the line and says whether the target is met.
    fn print(&self) -> bool {
        let seconds = |samples: &[Sample]| median(samples.iter().map(|s| s.seconds).collect());
        let memory = |samples: &[Sample]| {
            samples.iter().map(|s| s.kibibytes).max().unwrap_or(0) * 1024 / 1_000_000
        };
        let (ours, theirs) = (seconds(&self.ours), seconds(&self.theirs));
        let speed = theirs / ours;
        // Times as times, transfers as speeds.
        let is_time = matches!(self.what, What::True | What::Row);
        let ratio = if is_time { 1.0 / speed } else { speed };
        let (target, is_met) = match self.target {
            None => (String::new(), true),
            Some(target) if is_time => (format!("≤ {:.1}", 1.0 / target), speed >= target),
            Some(target) => (format!("≥ {target:.1}"), speed >= target),
        };
        let missed = if is_met { "" } else { ", missed" };
        println!(
            "| {} | {ours:.2} s | {theirs:.2} s | {ratio:.2} | {target}{missed} | {} : {} |",
            self.name(),
            memory(&self.ours),
            memory(&self.theirs)
        );
        is_met
    }
}

/// The command that is run on the far side.
fn command(what: What) -> String {
    match what {
        What::True | What::Row => "true".to_owned(),
        What::Get => format!("exec head -c {SIZE} /dev/zero"),
        What::Put => "exec cat >/dev/null".to_owned(),
    }
}

fn measure(stage: &Stage, who: Who, what: What) -> Sample {
    let begun = Instant::now();
    let mut kibibytes = 0;
    // Ours does them all over one session.
    let times = if matches!(what, What::Row) && who != Who::Ours {
        COMMANDS
    } else {
        1
    };
    for _ in 0..times {
        kibibytes = kibibytes.max(run(stage, start(stage, who, what)));
    }
    let seconds = begun.elapsed().as_secs_f64();
    if who == Who::OpenSshMaster {
        // The first one starts it, so it is part of each row.
        let mut end = ssh(stage, who);
        end.args(["-O", "exit", "backend"]).stderr(Stdio::null());
        assert!(stage.operator.inside(|| end.status()).unwrap().success());
    }
    Sample { seconds, kibibytes }
}

fn start(stage: &Stage, who: Who, what: What) -> Command {
    if who != Who::Ours {
        let mut client = ssh(stage, who);
        client.args(["backend", &command(what)]);
        return client;
    }
    let mut client = Command::new(std::env::current_exe().expect("this program"));
    client.arg(CLIENT).arg(stage.folder.path());
    client.arg(match what {
        What::True => "true",
        What::Row => "row",
        What::Get => "get",
        What::Put => "put",
    });
    client
}

fn ssh(stage: &Stage, who: Who) -> Command {
    let name = if who == Who::OpenSshAes {
        "aes"
    } else {
        "openssh"
    };
    let mut command = Command::new("ssh");
    command
        .env_remove("SSH_AUTH_SOCK")
        .arg("-F")
        .arg(stage.folder.path().join(name).join("ssh_config"))
        .args(["-o", "BatchMode=yes", "-J", "tunnel@bastion"]);
    if who == Who::OpenSshMaster {
        command
            .args(["-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-S"])
            .arg(stage.folder.path().join("master"));
    }
    command
}

/// Runs it to its end; the peak memory of its processes together.
fn run(stage: &Stage, mut client: Command) -> u64 {
    let put = client
        .get_args()
        .any(|argument| argument == "put" || argument == "exec cat >/dev/null");
    let mut source = put.then(|| {
        let mut source = Command::new("head");
        source
            .args(["-c", &SIZE.to_string(), "/dev/zero"])
            .stdout(Stdio::piped());
        source.spawn().expect("head")
    });
    client.stdout(Stdio::null()).stderr(Stdio::null());
    client.stdin(match &mut source {
        Some(source) => Stdio::from(source.stdout.take().unwrap()),
        None => Stdio::null(),
    });
    let mut child = stage
        .operator
        .inside(|| client.spawn().expect("the client"));
    let mut most = 0;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{client:?}: {status}");
            break;
        }
        // A look costs too much to take it often; the end is seen at once.
        let pids = stage.operator.processes();
        most = most.max(pids.iter().map(|pid| peak(*pid)).sum());
        wait(&mut child, Duration::from_millis(200));
    }
    if let Some(mut source) = source {
        source.wait().unwrap();
    }
    most
}

fn wait(child: &mut std::process::Child, limit: Duration) {
    let end = Instant::now() + limit;
    while Instant::now() < end && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// `VmHWM` of a client's process; not of what makes the link slow.
fn peak(pid: i32) -> u64 {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/status")) else {
        return 0;
    };
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default()
            .split_whitespace()
            .next()
            .unwrap_or_default()
    };
    if field("Name:").starts_with("python") {
        return 0;
    }
    field("VmHWM:").parse().unwrap_or(0)
}

/// What OpenSSH reads: the files that `drawbridge ssh-config` writes, once with another choice of cipher.
fn configure(stage: &Stage) {
    for name in ["openssh", "aes"] {
        let folder = stage.folder.path().join(name);
        let (written, _) = SshConfig(&stage.access())
            .write(&folder, &[])
            .expect("its files");
        if name == "aes" {
            let text = fs::read_to_string(&written.ssh_config).unwrap();
            let text = format!("Ciphers aes256-gcm@openssh.com\n{text}");
            fs::write(&written.ssh_config, text).unwrap();
        }
    }
}

/// This program as the client, as `drawbridge exec` is once it knows the hosts.
#[tokio::main]
async fn client(folder: &Path, what: &str) -> ExitCode {
    let access = stage::access(PathBuf::from(folder).as_path());
    let session = access.connect(Role::Backend).await.expect("a session");
    let (times, line) = match what {
        "true" => (1, command(What::True)),
        "row" => (COMMANDS, command(What::Row)),
        "get" => (1, command(What::Get)),
        "put" => (1, command(What::Put)),
        _ => panic!("{what}"),
    };
    for _ in 0..times {
        let status = session
            .run(
                &line,
                tokio::io::stdin(),
                tokio::io::stdout(),
                tokio::io::stderr(),
            )
            .await;
        assert_eq!(status.expect("a status"), 0);
    }
    session.close().await;
    ExitCode::SUCCESS
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = text
        .split_whitespace()
        .next()
        .unwrap_or("unknown")
        .to_owned();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    #[allow(clippy::cast_precision_loss)]
    if load
        .parse()
        .is_ok_and(|load: f64| load > 0.5 * cores as f64)
    {
        format!("{load} (BUSY: {cores} cores; the figures are worth little)")
    } else {
        load
    }
}

/// Of an even number the lower one in the middle.
fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[(seconds.len() - 1) / 2]
}
