//! A backend on its first boot, on reboots, and when somebody pulls the plug.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use aws_sdk_ssm::types::ParameterType;
use drawbridge::appliance::{ReportState, Role, Step, parameter, path};

use super::kill::{kill_at, kill_later_and_later};
use super::secrets::{login, password, places_with};
use super::world::{NAME, World, inside, mode, output, sh};

#[test]
fn a_backend_boots_reboots_and_survives_a_kill_at_every_step() {
    inside("bootstrap::backend::backend_in_its_world");
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
    assert_the_environment_opens_the_database(world, &opened);
}

/// A program that is not ours is told by libpq's variables: with these and the password alone, a connection is the
/// published login's, and verified in full.
fn assert_the_environment_opens_the_database(world: &World, password: &str) {
    assert_eq!(mode(path::ENVIRONMENT), 0o644);
    let text = fs::read_to_string(path::ENVIRONMENT).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let variables: Vec<_> = lines.map(|line| line.split_once('=').unwrap()).collect();
    let names: Vec<_> = variables.iter().map(|(name, _)| *name).collect();
    let all = "PGHOST PGPORT PGDATABASE PGUSER PGSSLMODE PGSSLROOTCERT";
    assert_eq!(names.join(" "), all);
    let connect = |changed: &[(&str, &str)]| {
        let mut psql = Command::new("psql");
        psql.env_clear()
            .env("PATH", std::env::var("PATH").unwrap())
            .envs(variables.iter().copied())
            .env("PGPASSWORD", password)
            .envs(changed.iter().copied())
            .args(["-Atc", "SELECT session_user, current_database()"]);
        let ended = output(&mut psql);
        let text = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
        (text(&ended.stdout), text(&ended.stderr))
    };
    let (seen, error) = connect(&[]);
    assert_eq!(seen, format!("{}|drawbridge", login(world).0), "{error}");
    // The same server by a name that its certificate does not have.
    let (_, error) = connect(&[("PGHOST", "localhost")]);
    assert!(error.contains("does not match host name"), "{error}");
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
            start.elapsed() < Duration::from_secs(300),
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
