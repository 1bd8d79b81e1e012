//! What processes take, from `/proc`.

use std::fs;

use nix::unistd::Pid;

use crate::support::process::{children, stat};

/// `of`, its children, their children, and so on.
pub fn family(of: Pid) -> Vec<Pid> {
    let mut family = vec![of];
    let mut asked = 0;
    while asked < family.len() {
        family.extend(children(family[asked]));
        asked += 1;
    }
    family
}

/// Seconds of processor time of a family, of those too that ended and were collected by a parent who lives.
pub fn cpu_seconds(of: Pid) -> f64 {
    let family = family(of).into_iter();
    // utime, stime, and both of the children that were waited for; in proc(5) they are numbers 14 to 17.
    let ticks: i64 = family
        .filter_map(stat)
        .map(|fields| fields[11..15].iter().sum::<i64>())
        .sum();
    #[allow(clippy::cast_precision_loss)]
    let ticks = ticks as f64;
    ticks / TICKS_PER_SECOND
}

/// Linux tells them to everybody as 100 a second, whatever it counts with (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

/// Bytes of memory of a family: each process' own pages and its share of those it has with others (PSS).
pub fn memory_bytes(of: Pid) -> u64 {
    let kibibytes = |pid| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        number.unwrap_or(0)
    };
    family(of).into_iter().map(kibibytes).sum::<u64>() * 1024
}

/// Seconds of processor time of all children of this process that have ended and were waited for.
pub fn collected_cpu_seconds() -> f64 {
    let fields = stat(Pid::this()).expect("this process");
    #[allow(clippy::cast_precision_loss)]
    let ticks = fields[13..15].iter().sum::<i64>() as f64;
    ticks / TICKS_PER_SECOND
}
