//! The status for people: one screen, one fact in one place.

use std::fmt::Write as _;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Answer, Host, Status};
use crate::appliance::Role;
use crate::appliance::status::{ApiUnit, Database, Disk, HostStatus, Known};
use crate::nat::status::for_people;
use crate::progress::escape;

/// Of the window's rows those that are shown here; `drawbridge nat status` has all.
const WINDOW_ROWS: [&str; 3] = ["window", "deadline", "cost"];

pub(super) fn text(status: &Status, now: OffsetDateTime) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: &str| {
        // Row by row: a line break in what a host says must not begin a row of its own.
        let _ = writeln!(text, "{name:<9} {}", escape(value));
    };
    let taken = status.taken_at.0.format(&Rfc3339).unwrap_or_default();
    let seconds = taken
        .split_once('.')
        .map_or(taken.as_str(), |(whole, _)| whole);
    row(
        &status.deployment,
        &format!(
            "in {}, account {}, {} UTC ({:.1} s)",
            status.region,
            status.account,
            seconds.trim_end_matches('Z').replace('T', " "),
            status.seconds
        ),
    );
    for (role, host) in &status.hosts {
        row(role.as_str(), &outside(host, now));
        row("", &image(host, now));
        for line in inside(*role, host, now) {
            row("", &line);
        }
    }
    row(
        "api",
        &answer("through the load balancer", &status.api.load_balancer),
    );
    row("", &answer("directly", &status.api.direct));
    match &status.window {
        Known::Unknown(reason) => row("window", &unknown(reason)),
        Known::Value(window) => {
            for (name, value) in window.rows() {
                if WINDOW_ROWS.contains(&name) {
                    row(name, &value);
                }
            }
        }
    }
    match &status.last_backup {
        Some(at) => row("backup", &ago(at.0, now)),
        None => row("backup", "none; nothing makes backups of the database yet"),
    }
    for finding in &status.findings {
        row("but", &format!("{}: `{}`", finding.means, finding.command));
    }
    text
}

fn unknown(reason: &str) -> String {
    format!("unknown: {reason}")
}

/// A part in a line of parts.
fn part<T>(name: &str, known: &Known<T>, said: impl FnOnce(&T) -> String) -> String {
    match known {
        Known::Value(value) => format!("{name} {}", said(value)),
        Known::Unknown(reason) => format!("{name} {}", unknown(reason)),
    }
}

fn outside(host: &Host, now: OffsetDateTime) -> String {
    let mut parts = vec![host.instance_id.clone(), host.private_ip.clone()];
    parts.extend(host.public_ip.clone());
    parts.push(match &host.instance {
        Known::Value(instance) => {
            let since = for_people(seconds(now - instance.launched_at.0));
            format!("{}, launched {since} ago", instance.state)
        }
        Known::Unknown(reason) => format!("instance {}", unknown(reason)),
    });
    parts.push(match &host.bootstrap {
        Known::Value(bootstrap) => format!("bootstrap {}", bootstrap.said),
        Known::Unknown(reason) => format!("bootstrap {}", unknown(reason)),
    });
    parts.join("  ")
}

fn image(host: &Host, now: OffsetDateTime) -> String {
    let id = &host.image_id;
    match &host.image {
        Known::Value(Some(image)) => {
            let age = now - image.created_at.0;
            format!("image {id}, {} days old ({})", age.whole_days(), image.name)
        }
        Known::Value(None) => format!("image {id}, which does not exist any more"),
        Known::Unknown(reason) => format!("image {id}, age {}", unknown(reason)),
    }
}

fn inside(role: Role, host: &Host, now: OffsetDateTime) -> Vec<String> {
    let inside = match &host.host {
        Known::Value(inside) => inside,
        Known::Unknown(reason) => return vec![format!("inside {}", unknown(reason))],
    };
    let mut lines = vec![machine(inside), units(inside, host)];
    match role {
        Role::Bastion => {}
        Role::Backend => lines.push(part("api unit", &inside.api, |api| {
            api.as_ref().map_or_else(
                || "missing: the host says that it is no backend".to_owned(),
                |api| unit(api, now),
            )
        })),
        Role::Database => {
            let none = || "missing: the host says that it is no database".to_owned();
            let volume = |disk: &Option<Disk>| disk.as_ref().map_or_else(none, usage);
            let postgres =
                |database: &Option<Database>| database.as_ref().map_or_else(none, postgres);
            lines.push(format!(
                "{}, {}",
                part("volume", &inside.volume, volume),
                part("postgres", &inside.database, postgres)
            ));
        }
    }
    lines
}

fn machine(inside: &HostStatus) -> String {
    let load = part("load", &inside.load, |[one, five, fifteen]| {
        format!("{one:.2} {five:.2} {fifteen:.2}")
    });
    let memory = |memory: &crate::appliance::status::Memory| {
        format!(
            "{} % of {}",
            memory.used_percent(),
            bytes(memory.total_bytes)
        )
    };
    [
        part("up", &inside.uptime_seconds, |seconds| for_people(*seconds)),
        part(&format!("{load} on"), &inside.processors, |count| {
            format!("{count} cpu")
        }),
        part("memory", &inside.memory, memory),
        part("disk", &inside.root_disk, usage),
    ]
    .join(", ")
}

fn units(inside: &HostStatus, host: &Host) -> String {
    let failed = match &inside.failed_units {
        Known::Value(units) if units.is_empty() => "no failed units".to_owned(),
        Known::Value(units) => format!("FAILED UNITS {}", units.join(" ")),
        Known::Unknown(reason) => format!("failed units {}", unknown(reason)),
    };
    let system = part("system", &inside.system, |system| {
        let short = |path: &str| path.trim_start_matches("/nix/store/").to_owned();
        if system.booted == system.current {
            short(&system.current)
        } else {
            format!(
                "{} (booted {})",
                short(&system.current),
                short(&system.booted)
            )
        }
    });
    let clock = match (host.clock_ahead_seconds, &inside.time) {
        (Some(ahead), _) if ahead.abs() >= 1.0 => format!(", clock {ahead:+.0} s"),
        (Some(_), _) => String::new(),
        (None, time) => format!(", clock {}", unknown(time.reason().unwrap_or("not told"))),
    };
    format!("{failed}{clock}, {system}")
}

fn unit(api: &ApiUnit, now: OffsetDateTime) -> String {
    let since = api
        .since
        .map(|since| format!(" for {}", for_people(seconds(now - since.0))));
    let program = part("runs", &api.program, String::clone);
    format!(
        "{}{}, restarted {}×, {program}",
        api.state,
        since.unwrap_or_default(),
        api.restarts
    )
}

fn postgres(database: &Database) -> String {
    let recovery = if database.is_in_recovery {
        ", IN RECOVERY"
    } else {
        ""
    };
    format!(
        "{}: {}, {} of {} connections{recovery}",
        database.version,
        bytes(database.size_bytes),
        database.connections,
        database.max_connections
    )
}

fn answer(how: &str, answer: &Known<Answer>) -> String {
    match answer {
        Known::Value(Answer {
            is_ready: true,
            seen,
        }) => format!("ready {how}: {seen}"),
        Known::Value(Answer { seen, .. }) => format!("NOT READY {how}: {seen}"),
        Known::Unknown(reason) => format!("{how} {}", unknown(reason)),
    }
}

fn usage(disk: &Disk) -> String {
    format!("{} % of {}", disk.used_percent(), bytes(disk.total_bytes))
}

fn ago(at: OffsetDateTime, now: OffsetDateTime) -> String {
    format!("{} ago", for_people(seconds(now - at)))
}

fn seconds(time: time::Duration) -> u64 {
    u64::try_from(time.whole_seconds()).unwrap_or(0)
}

/// `1234567` as `1.2 MB`.
fn bytes(bytes: u64) -> String {
    let units = [("TB", 40), ("GB", 30), ("MB", 20), ("kB", 10)];
    for (unit, shift) in units {
        let tenths = (u128::from(bytes) * 10) >> shift;
        if tenths >= 10 {
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn a_size_is_said_in_its_unit() {
        assert_eq!(
            [0, 1023, 1536, 9 << 20, 10 << 30, 3 << 40].map(bytes),
            ["0 B", "1023 B", "1.5 kB", "9.0 MB", "10.0 GB", "3.0 TB"]
        );
    }
}
