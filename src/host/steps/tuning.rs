//! Postgres's settings that follow from the size of the machine, written at every boot: an instance that was given
//! another type comes up with settings that fit it.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use crate::appliance::path;
use crate::host::Host;
use crate::host::file::{self, FileError, Owner};
use crate::host::memory;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Writes the settings for this machine's memory and processors. Postgres reads most of them only when it starts.
pub fn write(host: &Host, postgres: Owner) -> Result<(), FileError> {
    let text = file::read(&host.path(memory::FILE))?.unwrap_or_default();
    let total = memory_bytes(&text).ok_or_else(|| {
        let error = io::Error::new(io::ErrorKind::InvalidData, "it has no line MemTotal in kB");
        FileError::while_doing("find this machine's memory in", Path::new(memory::FILE))(error)
    })?;
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let target = host.path(path::PG_TUNING);
    if let Some(parent) = target.parent() {
        file::folder(parent, 0o750, Some((0, postgres.1)))?;
    }
    let text = text_for(total, processors);
    file::write(&target, text.as_bytes(), 0o640, Some((0, postgres.1)))
}

/// This machine's memory, in bytes.
fn memory_bytes(meminfo: &str) -> Option<u64> {
    memory::bytes(meminfo, "MemTotal").filter(|bytes| *bytes > 0)
}

fn text_for(memory: u64, processors: u64) -> String {
    let mut text = format!(
        "# Written by drawbridge-host at every boot, for {} MB of memory and {processors} processors.\n",
        memory / MIB
    );
    for (name, value) in settings(memory, processors) {
        // Into a text; it cannot fail.
        let _ = writeln!(text, "{name} = {value}");
    }
    text
}

/// The settings for a machine that does nothing but Postgres. Fractions as PostgreSQL's manual recommends them
/// ("Resource Consumption", a quarter for shared_buffers), bounded at both ends.
fn settings(memory: u64, processors: u64) -> [(&'static str, String); 12] {
    let share = |part: u64, least: u64, most: u64| {
        let bytes = (memory / part).clamp(least, most);
        format!("{}MB", bytes / MIB)
    };
    // Half the processors for one statement, so that a report does not stop the API's requests.
    let for_one_statement = (processors / 2).min(4).to_string();
    [
        ("shared_buffers", share(4, 64 * MIB, 16 * GIB)),
        // A hint to the planner: what the kernel caches, shared_buffers included. Reserves nothing.
        (
            "effective_cache_size",
            format!("{}MB", memory / 8 * 5 / MIB),
        ),
        // For every sort or hash of every session, so far below the share that sessions have of the memory.
        ("work_mem", share(400, 2 * MIB, 64 * MIB)),
        ("maintenance_work_mem", share(16, 16 * MIB, GIB)),
        // For each of the workers below.
        ("autovacuum_work_mem", share(32, 8 * MIB, 512 * MIB)),
        ("autovacuum_max_workers", processors.clamp(2, 5).to_string()),
        // It lies on the data volume, of which nothing is known here: never more than a small one can spare.
        ("max_wal_size", share(1, 512 * MIB, 4 * GIB)),
        ("min_wal_size", share(8, 80 * MIB, 512 * MIB)),
        // Room for parallel queries beside autovacuum's launcher, replication's and what extensions start.
        ("max_worker_processes", (processors + 8).to_string()),
        ("max_parallel_workers", processors.to_string()),
        ("max_parallel_workers_per_gather", for_one_statement.clone()),
        ("max_parallel_maintenance_workers", for_one_statement),
    ]
}

#[cfg(test)]
#[path = "tuning_tests.rs"]
mod tests;
