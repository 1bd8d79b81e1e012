//! `drawbridge-host status`: what this host says of itself, for `drawbridge status` through ssh.
//!
//! Reads and asks, changes nothing. Whoever asks without being root is told less, each part with its reason.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use time::OffsetDateTime;
use tokio::time::timeout;

use super::command::{self, CommandError};
use super::steps::postgresql;
use super::{Host, file, memory};
use crate::appliance::status::{
    ApiUnit, Database, Disk, HostStatus, Known, Memory, Moment, System,
};
use crate::appliance::{BootstrapReport, DATABASE_NAME, ReportState, Role, path};
use crate::error_chain::chain;

/// The operator's machine waits ten seconds for everything, the way here included.
const LIMIT: Duration = Duration::from_secs(4);
/// More failed units than this say no more than these.
const MOST_UNITS: usize = 50;
const API_UNIT: &str = "drawbridge-api.service";

/// Looks at everything; never fails as a whole.
pub async fn status(host: &Host) -> HostStatus {
    let bootstrap = bootstrap(host);
    let role = match &bootstrap {
        Known::Value(report) => Known::from(
            report
                .role
                .ok_or_else(|| "first boot has not learnt its role yet".to_owned()),
        ),
        Known::Unknown(reason) => Known::Unknown(format!("the role is not known: {reason}")),
    };
    let (failed_units, api, database) = tokio::join!(
        failed_units(),
        of_role(&role, Role::Backend, api()),
        of_role(&role, Role::Database, database(host)),
    );
    HostStatus {
        time: Known::Value(Moment(OffsetDateTime::now_utc())),
        version: Known::Value(env!("CARGO_PKG_VERSION").to_owned()),
        bootstrap,
        system: system(host).into(),
        uptime_seconds: proc(host, "/proc/uptime", uptime).into(),
        processors: processors().into(),
        load: proc(host, "/proc/loadavg", load).into(),
        memory: proc(host, memory::FILE, memory).into(),
        root_disk: disk(&host.path("/")).into(),
        failed_units: failed_units.into(),
        api,
        volume: of_role(&role, Role::Database, async { volume(host) }).await,
        database,
    }
}

/// `None` on a host of another role.
async fn of_role<T>(
    role: &Known<Role>,
    wanted: Role,
    look: impl Future<Output = Result<T, String>>,
) -> Known<Option<T>> {
    match role {
        Known::Value(role) if *role == wanted => look.await.map(Some).into(),
        Known::Value(_) => Known::Value(None),
        Known::Unknown(reason) => Known::Unknown(reason.clone()),
    }
}

fn bootstrap(host: &Host) -> Known<BootstrapReport> {
    let none = "no bootstrap report on this host; see `systemctl status drawbridge-bootstrap`";
    let read = match file::read(&host.path(path::REPORT)) {
        Ok(Some(text)) => match ReportState::parse(&text) {
            ReportState::Reported(report) => Ok(report),
            ReportState::Pending => Err(none.to_owned()),
            ReportState::Unreadable { reason } => Err(format!("{}: {reason}", path::REPORT)),
        },
        Ok(None) => Err(none.to_owned()),
        Err(error) => Err(chain(&error)),
    };
    read.into()
}

fn system(host: &Host) -> Result<System, String> {
    let target = |link: &str| {
        let read = fs::read_link(host.path(link));
        read.map(|target| target.to_string_lossy().into_owned())
            .map_err(|error| format!("this is no NixOS: {link}: {error}"))
    };
    Ok(System {
        booted: target("/run/booted-system")?,
        current: target("/run/current-system")?,
    })
}

fn processors() -> Result<u32, String> {
    let counted = std::thread::available_parallelism().map_err(|error| error.to_string())?;
    u32::try_from(counted.get()).map_err(|error| error.to_string())
}

/// Reads a file of the kernel's.
fn proc<T>(host: &Host, file: &str, read: impl Fn(&str) -> Option<T>) -> Result<T, String> {
    let text = fs::read_to_string(host.path(file))
        .map_err(|error| format!("cannot read {file}: {error}"))?;
    read(&text).ok_or_else(|| format!("{file} has another shape than Linux gives it"))
}

fn uptime(text: &str) -> Option<u64> {
    let (whole, _) = text.split_once('.')?;
    whole.parse().ok()
}

fn load(text: &str) -> Option<[f64; 3]> {
    let mut words = text.split_whitespace().map(str::parse);
    let mut next = || words.next()?.ok();
    Some([next()?, next()?, next()?])
}

fn memory(text: &str) -> Option<Memory> {
    Some(Memory {
        total_bytes: memory::bytes(text, "MemTotal")?,
        available_bytes: memory::bytes(text, "MemAvailable")?,
    })
}

fn disk(place: &Path) -> Result<Disk, String> {
    let seen =
        statvfs(place).map_err(|error| format!("cannot look at {}: {error}", place.display()))?;
    // The C types differ between platforms.
    #[allow(clippy::useless_conversion)]
    let block = u64::from(seen.fragment_size());
    #[allow(clippy::useless_conversion)]
    let bytes = |blocks| u64::from(blocks) * block;
    Ok(Disk {
        total_bytes: bytes(seen.blocks()),
        available_bytes: bytes(seen.blocks_available()),
    })
}

fn volume(host: &Host) -> Result<Disk, String> {
    let place = host.path(path::DATABASE_VOLUME);
    let device = |place: &Path| {
        let seen = fs::metadata(place);
        seen.map(|seen| seen.dev())
            .map_err(|error| format!("cannot look at {}: {error}", place.display()))
    };
    // Without the mount it would be the root disk that is measured.
    if device(&place)? == device(place.parent().unwrap_or(&place))? {
        return Err(format!(
            "the database's volume is not mounted at {}: see `systemctl status {}`",
            path::DATABASE_VOLUME,
            path::DATABASE_VOLUME_UNIT
        ));
    }
    disk(&place)
}

async fn failed_units() -> Result<Vec<String>, String> {
    let arguments = [
        "list-units",
        "--failed",
        "--plain",
        "--no-legend",
        "--no-pager",
    ];
    let listed = systemctl(&arguments).await?;
    Ok(units(&listed))
}

fn units(listed: &str) -> Vec<String> {
    let names = listed
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    names.map(str::to_owned).take(MOST_UNITS).collect()
}

async fn api() -> Result<ApiUnit, String> {
    let arguments = [
        "show",
        API_UNIT,
        "--timestamp=unix",
        "--property=LoadState,ActiveState,StateChangeTimestamp,NRestarts,MainPID",
    ];
    let shown = systemctl(&arguments).await?;
    let (unit, process) = api_unit(&shown)?;
    let program = match process {
        0 => Err("it does not run".to_owned()),
        process => fs::read_link(format!("/proc/{process}/exe"))
            .map(|file| file.to_string_lossy().into_owned())
            .map_err(|error| format!("cannot see what process {process} runs: {error}")),
    };
    Ok(ApiUnit {
        program: program.into(),
        ..unit
    })
}

/// Reads `systemctl show`; returns the process too, 0 for none.
fn api_unit(shown: &str) -> Result<(ApiUnit, u32), String> {
    let property = |name: &str| {
        let mut lines = shown.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.ok_or_else(|| format!("systemd does not tell {name} of {API_UNIT}"))
    };
    if property("LoadState")? == "not-found" {
        return Err(format!("systemd knows no {API_UNIT}"));
    }
    let number = |name: &str| {
        let value = property(name)?;
        let read = value.parse::<u32>();
        read.map_err(|_| format!("systemd says {name} of {API_UNIT} is no number"))
    };
    // `n/a`, or nothing, for a unit that never was in another state.
    let since = property("StateChangeTimestamp")?;
    let since = since.strip_prefix('@').and_then(|text| text.parse().ok());
    let unit = ApiUnit {
        state: property("ActiveState")?.to_owned(),
        since: since
            .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
            .map(Moment),
        restarts: number("NRestarts")?,
        program: Known::Unknown("not looked at".to_owned()),
    };
    Ok((unit, number("MainPID")?))
}

async fn systemctl(arguments: &[&str]) -> Result<String, String> {
    let answer = command::run("systemctl", arguments, None, LIMIT)
        .await
        .and_then(command::Answer::checked)
        .map_err(|error: CommandError| chain(&error))?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

const DATABASE: &str = "\
    SELECT current_setting('server_version'), pg_postmaster_start_time(), pg_is_in_recovery(), \
           current_setting('max_connections')::int8, \
           (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), \
           (SELECT pg_database_size(oid) FROM pg_database WHERE datname = $1)";

async fn database(host: &Host) -> Result<Database, String> {
    let asked = timeout(LIMIT, async {
        let client = postgresql::connect(host).await?;
        client.query_one(DATABASE, &[&DATABASE_NAME]).await
    });
    let row = match asked.await {
        Ok(Ok(row)) => row,
        Ok(Err(error)) => {
            let error = chain(&error);
            let reason = format!("Postgres does not let this user in or fails: {error}");
            return Err(match nix::unistd::geteuid().is_root() {
                true => format!("Postgres cannot be asked: {error}"),
                false => format!("{reason} (root may ask)"),
            });
        }
        Err(_) => {
            return Err(format!(
                "Postgres did not answer within {} s",
                LIMIT.as_secs()
            ));
        }
    };
    read_database(&row)
        .map_err(|error| format!("Postgres answers in another shape: {}", chain(&error)))?
        .ok_or_else(|| format!("there is no database {DATABASE_NAME} yet"))
}

fn read_database(row: &tokio_postgres::Row) -> Result<Option<Database>, tokio_postgres::Error> {
    let number = |column| row.try_get::<_, i64>(column);
    let started: std::time::SystemTime = row.try_get(1)?;
    let Some(size) = row.try_get::<_, Option<i64>>(5)? else {
        return Ok(None);
    };
    // Counts and sizes are never negative, and no server has room for four thousand million connections.
    let count = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(Some(Database {
        version: row.try_get(0)?,
        started_at: Moment(started.into()),
        size_bytes: u64::try_from(size).unwrap_or_default(),
        connections: count(number(4)?),
        max_connections: count(number(3)?),
        is_in_recovery: row.try_get(2)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        assert_eq!(uptime("3601.25 7000.00\n"), Some(3601));
        assert_eq!(
            load("0.52 0.58 0.59 2/911 12345\n"),
            Some([0.52, 0.58, 0.59])
        );
        let text = "MemTotal:        1000 kB\nMemFree:  10 kB\nMemAvailable:     400 kB\n";
        assert_eq!(
            memory(text),
            Some(Memory {
                total_bytes: 1_024_000,
                available_bytes: 409_600
            })
        );
        for wrong in ["", "a b c", "MemTotal: 1 kB"] {
            assert!(uptime(wrong).is_none(), "{wrong}");
            assert!(load(wrong).is_none(), "{wrong}");
            assert!(memory(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn failed_units_are_named() {
        let listed =
            "a.service loaded failed failed An A\nvar-b.mount not-found failed failed B\n\n";
        assert_eq!(units(listed), ["a.service", "var-b.mount"]);
        assert!(units("").is_empty());
    }

    #[test]
    fn the_apis_unit_is_read_and_one_that_is_not_there_is_said_to_be() {
        let shown = "LoadState=loaded\nActiveState=active\nStateChangeTimestamp=@1763744400\nNRestarts=2\nMainPID=77\n";
        let (unit, process) = api_unit(shown).unwrap();
        assert_eq!(
            (unit.state.as_str(), unit.restarts, process),
            ("active", 2, 77)
        );
        let since = unit.since.unwrap().0;
        assert_eq!(since, time::macros::datetime!(2025-11-21 17:00 UTC));
        let never = shown.replace("@1763744400", "n/a");
        assert_eq!(api_unit(&never).unwrap().0.since, None);
        let gone = shown.replace("loaded", "not-found");
        assert!(api_unit(&gone).unwrap_err().contains("knows no"));
        let odd = shown.replace("=77", "=x");
        assert!(api_unit(&odd).unwrap_err().contains("MainPID"));
    }

    #[tokio::test]
    async fn a_folder_that_is_no_host_is_unknown_part_by_part() {
        let folder = tempfile::tempdir().unwrap();
        let seen = status(&Host::under(folder.path())).await;
        for (part, reason, word) in [
            ("bootstrap", seen.bootstrap.reason(), "report"),
            ("system", seen.system.reason(), "NixOS"),
            ("memory", seen.memory.reason(), memory::FILE),
            ("database", seen.database.reason(), "role"),
            ("volume", seen.volume.reason(), "role"),
            ("api", seen.api.reason(), "role"),
        ] {
            let reason = reason.unwrap_or_else(|| panic!("{part} is known: {seen:?}"));
            assert!(reason.contains(word), "{part}: {reason}");
        }
        assert!(seen.root_disk.value().unwrap().total_bytes > 0);
        assert!(seen.time.value().is_some());
    }

    #[test]
    fn a_volume_that_is_not_mounted_is_not_taken_for_the_root_disk() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::under(folder.path());
        fs::create_dir_all(host.path(path::DATABASE_VOLUME)).unwrap();
        let error = volume(&host).unwrap_err();
        assert!(error.contains("not mounted"), "{error}");
    }
}
