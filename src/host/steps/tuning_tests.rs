use std::collections::BTreeMap;
use std::process::Command;

use super::*;

/// Memory in MiB as `MemTotal` shows it is a little less than the type's; processors of AWS's types of that size.
const SIZES: [(u64, u64); 6] = [
    (512, 2),
    (1024, 2),
    (2048, 2),
    (4096, 2),
    (16 * 1024, 4),
    (64 * 1024, 16),
];

fn numbers(memory: u64, processors: u64) -> BTreeMap<&'static str, u64> {
    let parse = |(name, value): (_, String)| {
        let digits = value.trim_end_matches("MB");
        (
            name,
            digits
                .parse()
                .unwrap_or_else(|_| panic!("{name} = {value}")),
        )
    };
    settings(memory, processors)
        .into_iter()
        .map(parse)
        .collect()
}

#[test]
fn every_size_gets_its_settings() {
    let expected: [[u64; 12]; 6] = [
        // autovacuum workers and memory, cache, maintenance, parallel (3), wal (max, min), workers, buffers, work_mem:
        // the order of their names.
        [2, 16, 320, 32, 1, 2, 1, 512, 10, 80, 128, 2],
        [2, 32, 640, 64, 1, 2, 1, 1024, 10, 128, 256, 2],
        [2, 64, 1280, 128, 1, 2, 1, 2048, 10, 256, 512, 5],
        [2, 128, 2560, 256, 1, 2, 1, 4096, 10, 512, 1024, 10],
        [4, 512, 10240, 1024, 2, 4, 2, 4096, 12, 512, 4096, 40],
        [5, 512, 40960, 1024, 4, 16, 4, 4096, 24, 512, 16384, 64],
    ];
    for ((memory, processors), expected) in SIZES.into_iter().zip(expected) {
        let numbers = numbers(memory * MIB, processors);
        let seen: Vec<u64> = numbers.values().copied().collect();
        assert_eq!(seen, expected, "{memory} MB: {numbers:?}");
    }
}

#[test]
fn a_busy_database_stays_within_its_memory() {
    // What EC2 and the kernel keep of 512 MB for themselves leaves some 420.
    for (memory, processors) in SIZES.into_iter().chain([(420, 2), (420, 1)]) {
        let of = numbers(memory * MIB, processors);
        // The API's pool, twice while it is replaced, and some people; each in the middle of two sorts.
        let sessions = 20 * (2 * of["work_mem"] + 4);
        let vacuum = of["autovacuum_max_workers"] * of["autovacuum_work_mem"];
        let sum = of["shared_buffers"] + sessions + vacuum + of["maintenance_work_mem"];
        assert!(sum < memory * 9 / 10, "{memory} MB: {sum} MB, {of:?}");
        assert!(of["min_wal_size"] < of["max_wal_size"]);
        assert!(of["max_parallel_workers"] < of["max_worker_processes"]);
    }
    assert_eq!(numbers(420 * MIB, 1)["max_parallel_workers_per_gather"], 0);
}

#[test]
fn the_machines_memory_is_read_and_nonsense_is_not() {
    let meminfo = "MemTotal:         441956 kB\nMemFree:           10000 kB\n";
    assert_eq!(memory_bytes(meminfo), Some(441_956 * 1024));
    for text in [
        "",
        "MemTotal: 0 kB",
        "MemTotal: 12",
        "MemTotal: x kB",
        "MemFree: 1 kB",
    ] {
        assert_eq!(memory_bytes(text), None, "{text}");
    }
    let dir = tempfile::tempdir().unwrap();
    let error = write(&Host::under(dir.path()), (0, 0)).unwrap_err();
    assert!(error.to_string().contains("/proc/meminfo"), "{error}");
}

/// Postgres's own judgement of every size, and of the settings that are the same on every machine.
#[cfg(feature = "operator")]
#[test]
fn postgres_accepts_all_of_it_and_no_setting_is_in_two_places() {
    let fixed: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(include_str!("../../../nixos/settings/postgresql.json")).unwrap();
    assert_eq!(fixed["include_if_exists"], path::PG_TUNING);
    let postgres = crate::postgres::Binaries::find()
        .unwrap()
        .program("postgres");
    for (memory, processors) in SIZES {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("postgresql.conf");
        std::fs::write(&config, text_for(memory * MIB, processors)).unwrap();
        for (name, value) in settings(memory * MIB, processors) {
            assert!(
                !fixed.contains_key(name),
                "{name} is in postgresql.json too"
            );
            // Reads and checks the whole file, and says what came of one setting.
            let output = Command::new(&postgres)
                .args(["-C", name, "-D"])
                .arg(dir.path())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{name} = {value}: {said}");
        }
    }
}
