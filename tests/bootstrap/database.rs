//! A database host on its first boot, on reboots, and when somebody pulls the plug.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use drawbridge::appliance::{ReportState, Role, Step, parameter, path};

use super::kill::{kill_at, kill_later_and_later};
use super::secrets::{loggers_of, login, password, places_with};
use super::world::{NAME, UNMOUNT, World, inside, mode, sh};

#[test]
fn a_database_boots_reboots_and_survives_a_kill_at_every_step() {
    inside("bootstrap::database::database_in_its_world");
}

/// The end state every way of getting there must lead to.
fn assert_database_complete(world: &World, id: &str) {
    let ReportState::Reported(report) = world.told(Role::Database) else {
        panic!("{:?}", world.told(Role::Database))
    };
    assert!(report.is_complete_for(id) && report.error.is_none() && report.finished_at.is_some());
    assert!(world.local().unwrap().is_complete_for(id));
    let (user, password) = login(world);
    assert!(
        world.can_log_in(&user, &password),
        "the published login does not open the database"
    );
    assert!(!world.can_log_in(&user, "sesame"));
    assert!(!world.can_log_in("drawbridge", &password));
    let host_key = world.parameter(&parameter::ssh_host_key(NAME, Role::Database));
    assert_eq!(
        host_key,
        fs::read_to_string(path::SSH_HOST_PUBLIC_KEY)
            .unwrap()
            .trim()
    );
    assert_eq!(
        world.parameter(&parameter::database_certificate(NAME)),
        fs::read_to_string(path::SERVER_CERTIFICATE).unwrap()
    );
    assert_eq!(mode(path::SERVER_KEY), 0o640);
    for user in ["admin", "tunnel"] {
        assert_eq!(mode(&format!("{}/{user}", path::AUTHORIZED_KEYS)), 0o644);
    }
    assert_eq!(
        sh("findmnt -no FSTYPE,LABEL /var/lib/postgresql"),
        "ext4   drawbridge-db"
    );
    assert!(!Path::new("/var/lib/drawbridge/formatting").exists());
    let role = sh(
        "psql -h /run/postgresql -U postgres -Atc \"SELECT rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, \
         pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datctype \
         FROM pg_roles, pg_database WHERE rolname LIKE 'drawbridge%' AND datname = 'drawbridge' ORDER BY rolname\"",
    );
    let tuned = sh(
        "psql -h /run/postgresql -U postgres -Atc \"SELECT count(*) FILTER (WHERE applied), count(*) FROM pg_file_settings \
         WHERE sourcefile = '/var/lib/drawbridge/postgresql/tuning.conf'\" -c 'SHOW shared_buffers'",
    );
    assert_eq!(
        tuned, "12|12\n256MB",
        "a quarter of the 1 GiB in this world"
    );
    // The owner, the login in use, and the other one.
    let each = ["f", "t", "f"].map(|login| format!("{login}|f|f|f|drawbridge|UTF8|C.UTF-8"));
    assert_eq!(role, each.join("\n"));
    let owner = sh(
        "psql -h /run/postgresql -U postgres -d drawbridge -Atc \"SELECT tableowner FROM pg_tables WHERE tablename = 't'\"",
    );
    assert_eq!(owner, "drawbridge", "what a login makes is not the owner's");
}

#[test]
#[ignore = "run by a_database_boots_reboots_and_survives_a_kill_at_every_step in a world of its own"]
fn database_in_its_world() {
    let mut world = World::new();
    world.fresh_database("i-0d00");
    let user_data = world.imds.text("user-data", "#!/bin/sh");
    assert!(!world.run(&["--timeout", "10"]));
    let error = world.local().unwrap().error.unwrap();
    assert!(error.contains("not JSON"), "{error}");
    let console = fs::read_to_string(path::CONSOLE).unwrap();
    assert!(
        console.contains("STOPPED at metadata: the user data are not JSON"),
        "{console}"
    );
    world.imds.set("user-data", user_data.unwrap());
    world.run_to_the_end();
    assert_database_complete(&world, "i-0d00");
    let console = fs::read_to_string(path::CONSOLE).unwrap();
    assert!(
        console.contains("i-0d00: step volume") && console.contains("i-0d00: complete"),
        "{console}"
    );

    // The password is in SSM and nowhere else; nor is its verifier in Postgres's log, which holds every statement.
    let secret = password(&world);
    assert_eq!(
        places_with(&world, &secret),
        [""; 0],
        "{:?}",
        loggers_of(&world, &secret)
    );
    assert_eq!(loggers_of(&world, "SCRAM-SHA-256$"), BTreeSet::new());
    assert_eq!(places_with(&world, "SCRAM-SHA-256$"), [""; 0]);
    assert_eq!(
        places_with(&world, "CREATE TABLE IF NOT EXISTS t"),
        ["command lines", "/var/lib/postgresql/data/log"]
    );
    // The twin: planted, it is found.
    sh("sleep 0.2; : an-argument; sleep 0.2");
    sh("echo in-a-file > /etc/ssh/planted");
    assert_eq!(places_with(&world, "an-argument"), ["command lines"]);
    assert!(places_with(&world, "in-a-file").contains(&"/etc/ssh/planted".into()));
    sh("rm /etc/ssh/planted");

    // A reboot: mounts and processes are gone, SSM is out of reach. The data and the password stay.
    let before = (
        password(&world),
        sh("blkid -o value -s UUID $(readlink -f /dev/disk/by-id/*)"),
    );
    let at = world.dir.display().to_string();
    sh(&format!(
        "export PATH={at}/bin:$PATH; systemctl stop postgresql.target; {UNMOUNT}"
    ));
    world.stop_ssm();
    let start = Instant::now();
    world.run_to_the_end();
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    assert!(world.local().unwrap().is_complete_for("i-0d00"));
    let ca = world.dir.join("ca.pem");
    assert!(ca.exists());
    world.start_ssm();
    assert_eq!(
        sh("blkid -o value -s UUID $(readlink -f /dev/disk/by-id/*)"),
        before.1
    );

    // Another file system where the volume belongs, and a foreign volume: named, nothing touched, never green.
    sh(&format!(
        "export PATH={at}/bin:$PATH; systemctl stop postgresql.target; {UNMOUNT}; \
        mount -t tmpfs other /var/lib/postgresql"
    ));
    assert!(!world.run(&["--timeout", "20"]));
    assert!(
        world
            .local()
            .unwrap()
            .error
            .unwrap()
            .contains("another file system is mounted")
    );
    sh("umount /var/lib/postgresql");

    for step in Step::sequence(Role::Database)
        .iter()
        .chain([&Step::Complete])
    {
        let id = format!("i-0d{}", step.as_str());
        world.fresh_database(&id);
        let killed = kill_at(&world, Role::Database, *step);
        world.run_to_the_end();
        assert_database_complete(&world, &id);
        eprintln!("killed at {killed}: same end state");
    }
    world.fresh_database("i-0dfff");
    let rounds = kill_later_and_later(&world, Duration::from_millis(90));
    eprintln!("killed {} times on the way: same end state", rounds - 1);
    assert_database_complete(&world, "i-0dfff");

    // No window: bounded, named, not green, and the next run with the window open gets there.
    world.fresh_database("i-0deee");
    world.stop_ssm();
    assert!(!world.run(&["--timeout", "8"]));
    let report = world.local().unwrap();
    assert_eq!(report.step, Step::SshHostKey);
    let error = report.error.unwrap();
    assert!(
        error.contains("ssh-host-key")
            && error.contains("NAT window")
            && error.contains("SSM was not reached"),
        "{error}"
    );
    world.start_ssm();
    world.run_to_the_end();
    assert_database_complete(&world, "i-0deee");
}
