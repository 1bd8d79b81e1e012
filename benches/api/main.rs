//! The API beside a FastAPI service on the same table, and beside Postgres alone.
//!
//! ```sh
//! scripts/bench                     # installs what is missing, then runs this; about six minutes
//! cargo bench --bench api -- --quick
//! cargo bench --bench api -- --rounds 7 --json
//! ```
//!
//! The servers' programs, Postgres and the load generators share this machine's cores, and a fixed number of
//! connections; all take turns within one run, so that the ratios of the medians mean something on any machine. Ends
//! with 1 if one misses its target. The peer is `benches/peer/app.py`.
#![allow(missing_docs, clippy::expect_used, clippy::unwrap_used)]

mod figure;
mod process;
mod saturate;
mod stage;
mod steady;
// The tests need more of it.
#[allow(dead_code, unused_imports)]
#[path = "../../tests/support/mod.rs"]
mod support;

use std::{fs, process::ExitCode, time::Duration};

use clap::Parser;
use figure::{Figure, HEAD, Target, median};
use saturate::{CONNECTIONS, Cpu, Sample, finds, pgbench, script, wrk};
use serde_json::json;
use stage::{Ours, Peer, Stage, UNCACHED, compare, cores};
use support::{client, postgres::TestDatabase};

/// Items in the database that is measured, except where their number is what is measured.
const ROWS: u64 = 10_000;
/// What a list selects, as the API does: the one row more tells whether there is a next page.
const LIST: &str = "SELECT id, name, description, created_at, version FROM items \
                    ORDER BY created_at DESC, id DESC LIMIT 51";

/// The API beside a FastAPI service and beside Postgres alone.
#[derive(Parser)]
struct Arguments {
    /// Turns of each comparison.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Two short turns, and no table of a million rows; for a first impression.
    #[arg(long)]
    quick: bool,
    /// Only the comparisons under full load whose name has this text.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Another value of a key of our servers' configuration, such as database.read_connections=1.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    /// Print the figures as JSON in place of the tables.
    #[arg(long)]
    json: bool,
}

/// The name and value of the environment variable that sets a key.
fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("it takes KEY=VALUE")?;
    let name = key.to_uppercase().replace('.', "__");
    Ok((format!("DRAWBRIDGE_{name}"), value.to_owned()))
}

/// One comparison under as much load as goes.
struct Race {
    what: &'static str,
    ours: Vec<Sample>,
    peer: Vec<Sample>,
    ceiling: Vec<Sample>,
    /// Times the peer's speed, at least.
    target: Target,
    /// Times the speed of Postgres alone, at least.
    ceiling_target: Target,
}

/// Who takes a turn: our server and the peer with the requests of a script, and queries of pgbench.
struct Entrants<'a> {
    ours: &'a Ours,
    peer: &'a Peer,
    script: &'a std::path::Path,
    queries: &'a [String],
}

fn main() -> ExitCode {
    let arguments =
        Arguments::parse_from(std::env::args().filter(|argument| argument != "--bench"));
    let rounds = if arguments.quick { 2 } else { arguments.rounds };
    let turn = Duration::from_secs(if arguments.quick { 1 } else { 3 });
    let load_before = load();
    let cores = cores();
    eprintln!(
        "{rounds} rounds of {turn:?}; {cores} cores for servers, Postgres and load together, {CONNECTIONS} connections; \
         load average {load_before}"
    );

    let stage = Stage::start(arguments.set);
    let database = stage.database(ROWS);
    let ids = stage.ids(&database);
    let uncached = Ours::start(&stage, &database, UNCACHED);
    let logging = Ours::start_logging(&stage, &database, UNCACHED, "info");
    let cached = Ours::start(&stage, &database, "");
    let peer = Peer::start(&stage, &database);
    for ours in [&uncached, &cached] {
        compare(ours.address, peer.address, &ids);
    }
    eprintln!("both give the same answers");

    let find = script(&stage, "find.lua", &finds(&ids));
    let list = script(&stage, "list.lua", &[client::get("/items")]);
    let create = script(&stage, "create.lua", &[stage::create()]);
    let find_rows: Vec<String> = ids
        .iter()
        .map(|id| {
            format!(
                "SELECT id, name, description, created_at, version FROM items WHERE id = '{id}'"
            )
        })
        .collect();
    let list_rows = [LIST.to_owned()];
    let create_row = ["INSERT INTO items (id, name, description) VALUES (gen_random_uuid(), 'An item', \
                       'What there is to say about it, in about as many words as people use for it.') \
                       RETURNING id, name, description, created_at, version"
        .to_owned()];
    let race = |what, target, ceiling_target| Race {
        what,
        ours: Vec::new(),
        peer: Vec::new(),
        ceiling: Vec::new(),
        target,
        ceiling_target,
    };
    let with = |ours, script, queries| Entrants {
        ours,
        peer: &peer,
        script,
        queries,
    };
    let (at_least, none) = (Target::AtLeast, Target::None);
    let races = [
        (
            race("GET /items/{id}, not cached", at_least(8.0), at_least(0.75)),
            with(&uncached, &find, &find_rows),
        ),
        (
            race(
                "GET /items/{id}, not cached, with a log line each",
                none,
                none,
            ),
            with(&logging, &find, &[]),
        ),
        (
            race("GET /items/{id}, cached", at_least(20.0), none),
            with(&cached, &find, &[]),
        ),
        (
            race(
                "GET /items, a list of 50, not cached",
                at_least(8.0),
                at_least(0.65),
            ),
            with(&uncached, &list, &list_rows),
        ),
        (
            race("GET /items, a list of 50, cached", none, none),
            with(&cached, &list, &[]),
        ),
        (
            race("POST /items", at_least(4.0), none),
            with(&uncached, &create, &create_row),
        ),
    ];
    let mut races = Vec::from(races);
    let only = arguments.only.as_deref();
    races.retain(|(race, _)| only.is_none_or(|text| race.what.contains(text)));
    assert!(!races.is_empty(), "no comparison has {only:?} in its name");
    for round in 1..=rounds {
        for (race, entrants) in &mut races {
            race.turn(&stage, &database, entrants, turn);
            eprintln!("round {round}: {}", race.last());
        }
    }
    let mut figures: Vec<Figure> = races.iter().flat_map(|(race, _)| race.figures()).collect();
    let cpu: Vec<(&str, [Option<Cpu>; 3])> = races
        .iter()
        .map(|(race, _)| (race.what, race.cpu()))
        .collect();

    if only.is_none() {
        // At its fullest: a worker's memory grows with what it has served.
        figures.extend(memory(
            &[("with the cache", &cached), ("without", &uncached)],
            &peer,
        ));
        let (find, _) = &races[0];
        let full = [&find.ours, &find.peer]
            .map(|samples| median(samples.iter().map(|sample| sample.per_second)));
        figures.push(calm(&uncached, &peer, &finds(&ids), full, rounds, turn));
        figures.push(start_up(&stage, &database, &peer));
    }
    drop(races);
    drop((logging, cached, uncached, peer));
    if only.is_none() {
        figures.extend(growth(&stage, rounds, arguments.quick));
    }

    let load_after = load();
    let missed = figures
        .iter()
        .filter(|figure| figure.is_met() == Some(false))
        .count();
    if arguments.json {
        let cpu = cpu.iter().map(|(what, cpu)| {
            let of = |cpu: &Option<Cpu>| {
                cpu.map(
                    |cpu| json!({"api": cpu.api, "postgres": cpu.postgres, "client": cpu.client}),
                )
            };
            let [ours, peer, ceiling] = cpu.each_ref().map(of);
            json!({"what": what, "drawbridge": ours, "fastapi": peer, "pgbench": ceiling})
        });
        let figures = figures.iter().map(Figure::json);
        println!(
            "{:#}",
            json!({
                "cores": cores, "connections": CONNECTIONS, "rounds": rounds, "turn_seconds": turn.as_secs(),
                "load_average": {"before": load_before, "after": load_after}, "missed": missed,
                "figures": figures.collect::<Vec<_>>(), "cpu_microseconds_per_request": cpu.collect::<Vec<_>>(),
            })
        );
    } else {
        println!(
            "medians of {rounds} rounds, {cores} cores shared by servers, Postgres and load; load average {load_before} \
             before and {load_after} after\n\n{HEAD}"
        );
        figures
            .iter()
            .for_each(|figure| println!("{}", figure.row()));
        print_cpu(&cpu);
    }
    ExitCode::from(u8::from(missed > 0))
}

impl Race {
    fn turn(&mut self, stage: &Stage, database: &TestDatabase, who: &Entrants, time: Duration) {
        let (ours, peer) = (who.ours, who.peer);
        self.ours
            .push(wrk(stage, ours.pid(), ours.address, who.script, time));
        self.peer
            .push(wrk(stage, peer.pid(), peer.address, who.script, time));
        if !who.queries.is_empty() {
            self.ceiling
                .push(pgbench(stage, database, who.queries, time));
        }
    }

    fn last(&self) -> String {
        let of = |samples: &[Sample]| {
            let last = samples
                .last()
                .map(|sample| format!("{:.0}/s", sample.per_second));
            last.unwrap_or_else(|| "-".to_owned())
        };
        let (ours, peer, ceiling) = (of(&self.ours), of(&self.peer), of(&self.ceiling));
        format!(
            "{}: Drawbridge {ours}, FastAPI {peer}, pgbench {ceiling}",
            self.what
        )
    }

    fn figures(&self) -> Vec<Figure> {
        let speed = |samples: &[Sample]| median(samples.iter().map(|sample| sample.per_second));
        let beside = |beside: &str, theirs: &[Sample], target| {
            (!theirs.is_empty()).then(|| Figure {
                what: self.what.to_owned(),
                beside: beside.to_owned(),
                ours: speed(&self.ours),
                theirs: speed(theirs),
                unit: "/s",
                target,
            })
        };
        [
            beside("FastAPI", &self.peer, self.target),
            beside("pgbench", &self.ceiling, self.ceiling_target),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Of each, the medians of what a request costs.
    fn cpu(&self) -> [Option<Cpu>; 3] {
        [&self.ours, &self.peer, &self.ceiling].map(|samples| {
            let of = |part: fn(&Cpu) -> f64| median(samples.iter().map(|sample| part(&sample.cpu)));
            (!samples.is_empty()).then(|| Cpu {
                api: of(|cpu| cpu.api),
                postgres: of(|cpu| cpu.postgres),
                client: of(|cpu| cpu.client),
            })
        })
    }
}

fn memory(ours: &[(&str, &Ours)], peer: &Peer) -> Vec<Figure> {
    #[allow(clippy::cast_precision_loss)]
    let of = |pid| process::memory_bytes(pid) as f64 / 1e6;
    let figure = |(name, ours): &(&str, &Ours)| Figure {
        what: format!("memory after all that, {name} (PSS, all processes)"),
        beside: "FastAPI".into(),
        ours: of(ours.pid()),
        theirs: of(peer.pid()),
        unit: "MB",
        target: Target::AtMost(0.25),
    };
    ours.iter().map(figure).collect()
}

/// Each at half of what it can do.
fn calm(
    ours: &Ours,
    peer: &Peer,
    requests: &[Vec<u8>],
    full: [f64; 2],
    rounds: u32,
    turn: Duration,
) -> Figure {
    let (mut slowest, mut typical) = (Vec::new(), Vec::new());
    for round in 1..=rounds.min(3) {
        let ours = steady::at_rate(ours.address, requests, full[0] / 2.0, turn * 2);
        let theirs = steady::at_rate(peer.address, requests, full[1] / 2.0, turn * 2);
        eprintln!(
            "round {round}: at half of its best: Drawbridge {ours:.0?} µs, FastAPI {theirs:.0?} µs"
        );
        slowest.push(ours.p99 / 1e3);
        typical.push(theirs.p50 / 1e3);
    }
    Figure {
        what: format!(
            "p99 of GET /items/{{id}}, not cached, at {:.0}/s, half of its best",
            full[0] / 2.0
        ),
        beside: format!("FastAPI's p50 at {:.0}/s, half of its", full[1] / 2.0),
        ours: median(slowest),
        theirs: median(typical),
        unit: "ms",
        target: Target::AtMost(1.0),
    }
}

fn start_up(stage: &Stage, database: &TestDatabase, peer: &Peer) -> Figure {
    let times = (0..5).map(|_| Ours::start(stage, database, "").ready_after.as_secs_f64() * 1e3);
    Figure {
        what: "start to ready, schema in place".into(),
        beside: "FastAPI".into(),
        ours: median(times),
        theirs: peer.ready_after.as_secs_f64() * 1e3,
        unit: "ms",
        target: Target::OursAtMost(150.0),
    }
}

/// One request after the other beside many more rows.
fn growth(stage: &Stage, rounds: u32, quick: bool) -> Vec<Figure> {
    let sizes: &[u64] = if quick {
        &[1_000, 100_000]
    } else {
        &[1_000, 100_000, 1_000_000]
    };
    let grown: Vec<_> = sizes
        .iter()
        .map(|rows| {
            eprintln!("making {rows} rows");
            let database = stage.database(*rows);
            let ids = stage.ids(&database);
            let server = Ours::start(stage, &database, UNCACHED);
            (server, finds(&ids))
        })
        .collect();
    let mut figures = Vec::new();
    let list = [client::get("/items")];
    for what in ["GET /items/{id}", "GET /items, a list of 50"] {
        let mut latencies = vec![Vec::new(); sizes.len()];
        for _ in 0..rounds {
            for ((server, finds), latencies) in grown.iter().zip(&mut latencies) {
                let requests = if what.contains("{id}") {
                    finds.as_slice()
                } else {
                    &list
                };
                let latency =
                    steady::one_by_one(server.address, requests, Duration::from_millis(700));
                latencies.push(latency.p50);
            }
        }
        let typical: Vec<f64> = latencies.into_iter().map(median).collect();
        for (rows, latency) in sizes.iter().zip(&typical).skip(1) {
            figures.push(Figure {
                what: format!("{what}: one after the other, {rows} rows"),
                beside: format!("{} rows", sizes[0]),
                ours: *latency,
                theirs: typical[0],
                unit: "µs",
                target: Target::AtMost(1.5),
            });
        }
    }
    figures
}

fn print_cpu(cpu: &[(&str, [Option<Cpu>; 3])]) {
    println!(
        "\nµs of processor time for one request: API + Postgres + load generator\n\
         | | Drawbridge | FastAPI | pgbench |\n|---|---|---|---|"
    );
    for (what, cpu) in cpu {
        let of = |cpu: &Option<Cpu>| {
            let cpu =
                cpu.map(|cpu| format!("{:.0} + {:.0} + {:.0}", cpu.api, cpu.postgres, cpu.client));
            cpu.unwrap_or_default()
        };
        let [ours, peer, ceiling] = cpu.each_ref().map(of);
        println!("| {what} | {ours} | {peer} | {ceiling} |");
    }
}

/// The load average; a busy machine's says so.
fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = text
        .split_whitespace()
        .next()
        .unwrap_or("unknown")
        .to_owned();
    #[allow(clippy::cast_precision_loss)]
    if load
        .parse()
        .is_ok_and(|load: f64| load > 0.5 * cores() as f64)
    {
        format!(
            "{load} (BUSY: {} cores; the figures are worth little)",
            cores()
        )
    } else {
        load
    }
}
