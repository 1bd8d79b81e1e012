//! What happens to a database host and a backend on their first boots, on reboots, and when somebody pulls the plug.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use aws_sdk_ssm::types::ParameterType;
use drawbridge::appliance::{ReportState, Role, Step, parameter, path};

use super::world::{NAME, UNMOUNT, World, inside, kill_group, output, sh};

#[test]
fn a_database_boots_reboots_and_survives_a_kill_at_every_step() {
    inside("bootstrap::scenarios::database_in_its_world");
}

#[test]
fn a_backend_boots_reboots_and_survives_a_kill_at_every_step() {
    inside("bootstrap::scenarios::backend_in_its_world");
}

/// User and password as published.
pub fn login(world: &World) -> (String, String) {
    let text = world.parameter(&parameter::database_login(NAME));
    let login: serde_json::Value = serde_json::from_str(&text).unwrap();
    let part = |name: &str| login[name].as_str().unwrap().to_owned();
    (part("username"), part("password"))
}

fn password(world: &World) -> String {
    login(world).1
}

fn mode(file: &str) -> u32 {
    fs::metadata(file).unwrap().permissions().mode() & 0o7777
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

/// Kills the bootstrap as soon as its report is seen at this step, or at the next where a step is over too soon to be
/// seen. Returns where it was.
fn kill_at(world: &World, role: Role, step: Step) -> Step {
    let place = |step| {
        Step::sequence(role)
            .iter()
            .position(|other| *other == step)
            .unwrap_or(usize::MAX)
    };
    let mut child = world.start(&["--timeout", "60"]);
    let start = Instant::now();
    while world
        .local()
        .is_none_or(|report| place(report.step) < place(step))
    {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "never came to {step}"
        );
        std::thread::sleep(Duration::from_micros(200));
    }
    kill_group(&child);
    child.wait().unwrap();
    world.local().unwrap().step
}

/// Kills it again and again, each time a little later, until it gets to the end.
fn kill_later_and_later(world: &World, by: Duration) -> u32 {
    for round in 1..200 {
        let mut child = world.start(&["--timeout", "60"]);
        let start = Instant::now();
        while start.elapsed() < by * round {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "{}", world.story());
                return round;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        kill_group(&child);
        child.wait().unwrap();
    }
    panic!("never came to the end")
}

/// Everywhere a secret must not be, as (place, text).
fn everything_readable(world: &World) -> Vec<(String, String)> {
    let mut found = vec![
        ("the log".into(), fs::read_to_string(world.log()).unwrap()),
        (
            "the console".into(),
            fs::read_to_string(path::CONSOLE).unwrap(),
        ),
        (
            "the local report".into(),
            fs::read_to_string(path::REPORT).unwrap(),
        ),
        (
            "command lines".into(),
            world
                .seen
                .lock()
                .unwrap()
                .iter()
                .cloned()
                .collect::<Vec<_>>()
                .join("\n"),
        ),
    ];
    for role in Role::ALL {
        let name = parameter::bootstrap_report(NAME, role);
        found.push((name.clone(), world.parameter(&name)));
    }
    for file in
        sh("find /var/lib/drawbridge /etc/ssh -type f; ls /var/lib/postgresql/data/log").lines()
    {
        let bytes = fs::read(file).unwrap();
        found.push((file.into(), String::from_utf8_lossy(&bytes).into()));
    }
    found
}

/// Who logged lines with the secret, for the message of a test that failed.
fn loggers_of(world: &World, secret: &str) -> BTreeSet<String> {
    let log = fs::read_to_string(world.log()).unwrap();
    let lines = log.lines().filter(|line| line.contains(secret));
    lines
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .map(|line| format!("{} {}", line["level"], line["target"]))
        .collect()
}

fn places_with(world: &World, secret: &str) -> Vec<String> {
    let places = everything_readable(world).into_iter();
    places
        .filter(|(_, text)| text.contains(secret))
        .map(|(place, _)| place)
        .collect()
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

/// Answers 200 while the API's unit "runs" and the sealed password opens the database.
fn serve_ready() {
    let listener = TcpListener::bind("127.0.0.1:8000").unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let check = "[ -e /run/api ] && PGPASSWORD=$(systemd-creds decrypt --name=database-password \
                /var/lib/drawbridge/api/database-password.cred -) psql \"host=$(sed -n 's/^host = \"\\(.*\\)\"/\\1/p' \
                /var/lib/drawbridge/api/config.toml) user=$(sed -n 's/^user = \"\\(.*\\)\"/\\1/p' \
                /var/lib/drawbridge/api/config.toml) dbname=drawbridge sslmode=verify-full \
                sslrootcert=/var/lib/drawbridge/api/database-ca.pem\" -Atc 'SELECT 1'";
            let good = output(Command::new("sh").args(["-c", check]))
                .status
                .success();
            let status = if good {
                "200 OK"
            } else {
                "503 Service Unavailable"
            };
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
        }
    });
}

fn assert_backend_complete(world: &World, id: &str) {
    let ReportState::Reported(report) = world.told(Role::Backend) else {
        panic!("{:?}", world.told(Role::Backend))
    };
    assert!(report.is_complete_for(id) && report.error.is_none());
    assert_eq!(mode(path::SEALED_PASSWORD), 0o600);
    assert_eq!(
        sh("cd /var/lib/drawbridge && find . -maxdepth 1 -name '*api*' | wc -l"),
        "2",
        "one link and one folder"
    );
    let opened = sh(&format!(
        "systemd-creds decrypt --name=database-password {} -",
        path::SEALED_PASSWORD
    ));
    assert!(opened == password(world) && Path::new("/run/api").exists());
    assert_eq!(places_with(world, &password(world)), [""; 0]);
}

#[test]
#[ignore = "run by a_backend_boots_reboots_and_survives_a_kill_at_every_step in a world of its own"]
fn backend_in_its_world() {
    let mut world = World::new();
    serve_ready();

    // The backend waits for a database that is not there yet, and says so.
    world.fresh_backend("i-0b00");
    assert!(!world.run(&["--timeout", "6"]));
    let error = world.local().unwrap().error.unwrap();
    assert!(
        error.contains("/drawbridge/database/certificate is still pending"),
        "{error}"
    );

    world.fresh_database("i-0d00");
    world.run_to_the_end();
    for step in Step::sequence(Role::Backend)
        .iter()
        .chain([&Step::Complete])
    {
        let id = format!("i-0b{}", step.as_str());
        sh("rm -f /run/api");
        world.fresh_backend(&id);
        let killed = kill_at(&world, Role::Backend, *step);
        world.run_to_the_end();
        assert_backend_complete(&world, &id);
        eprintln!("killed at {killed}: same end state");
    }
    world.fresh_backend("i-0bfff");
    let rounds = kill_later_and_later(&world, Duration::from_millis(60));
    eprintln!("killed {} times on the way: same end state", rounds - 1);
    assert_backend_complete(&world, "i-0bfff");

    // An image made from a running backend: the state is another instance's, and nothing of it counts.
    let before = fs::read(path::SEALED_PASSWORD).unwrap();
    world.imds.text("meta-data/instance-id", "i-0bccc");
    world.run_to_the_end();
    assert_backend_complete(&world, "i-0bccc");
    assert_ne!(fs::read(path::SEALED_PASSWORD).unwrap(), before);

    // The database was interrupted after publishing and publishes once more: the backend seals what is valid.
    let (name, good) = (
        parameter::database_login(NAME),
        world.parameter(&parameter::database_login(NAME)),
    );
    world.set_parameter(
        &name,
        ParameterType::SecureString,
        r#"{"username":"drawbridge_a","password":"the one before"}"#,
    );
    world.fresh_backend("i-0bddd");
    let mut child = world.start(&["--timeout", "60"]);
    let start = Instant::now();
    while world
        .local()
        .is_none_or(|report| report.step != Step::Ready)
    {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{}",
            world.story()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    world.set_parameter(&name, ParameterType::SecureString, &good);
    assert!(child.wait().unwrap().success(), "{}", world.story());
    assert_backend_complete(&world, "i-0bddd");

    // A reboot without a window.
    sh("rm -f /run/api");
    world.stop_ssm();
    world.run_to_the_end();
    assert!(world.local().unwrap().is_complete_for("i-0bddd") && Path::new("/run/api").exists());
    world.start_ssm();
}
