//! A cloud that is not there yet, or not in the mood; and user data that no host can use. Never a green boot.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use drawbridge::appliance::{ReportState, Role, Step};

use super::imds::{Answer, Asked};
use super::world::{World, inside, output, sh, user_data};

const HOST: &str = env!("CARGO_BIN_EXE_drawbridge-host");

#[test]
fn a_cloud_that_fails_is_asked_again_within_the_limit_and_bad_user_data_are_named() {
    inside("bootstrap::outage::outage_in_its_world");
}

/// What the way to SSM does with a request.
#[derive(Clone, Copy)]
enum Mood {
    /// Takes the connection and drops it.
    Drop,
    /// Answers this instead: status, error code.
    Say(u16, &'static str),
}

/// Stands between a host and SSM from `delay` on; shows each mood once, in order, and then passes everything on, or
/// stays in the last mood for ever.
fn stand_between(
    port: u16,
    delay: Duration,
    moods: Vec<Mood>,
    for_ever: bool,
) -> Arc<Mutex<usize>> {
    let asked = Arc::<Mutex<usize>>::default();
    let counter = asked.clone();
    thread::spawn(move || {
        thread::sleep(delay);
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        for stream in listener.incoming().flatten() {
            let turn = {
                let mut counter = counter.lock().unwrap();
                *counter += 1;
                *counter - 1
            };
            let last = moods.last().copied().filter(|_| for_ever);
            match moods.get(turn).copied().or(last) {
                Some(Mood::Drop) => drop(stream),
                Some(Mood::Say(status, code)) => drop(say(stream, status, code)),
                None => drop(pass_on(stream)),
            }
        }
    });
    asked
}

fn read_request(stream: &TcpStream) -> std::io::Result<Vec<u8>> {
    let mut reader = BufReader::new(stream);
    let (mut request, mut length) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            break;
        }
        let lower = line.to_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        // One request a connection, so that each one is a turn.
        if lower.trim().is_empty() {
            request.extend(b"Connection: close\r\n\r\n");
            break;
        }
        request.extend(line.bytes());
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    request.extend(body);
    Ok(request)
}

fn say(mut stream: TcpStream, status: u16, code: &str) -> std::io::Result<()> {
    read_request(&stream)?;
    let body = format!(r#"{{"__type":"{code}","message":"as told by the test"}}"#);
    write!(
        stream,
        "HTTP/1.1 {status} Status\r\ncontent-type: application/x-amz-json-1.1\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn pass_on(mut stream: TcpStream) -> std::io::Result<()> {
    let request = read_request(&stream)?;
    let mut moto = TcpStream::connect("127.0.0.1:5000")?;
    moto.write_all(&request)?;
    let mut answer = Vec::new();
    moto.read_to_end(&mut answer)?;
    stream.write_all(&answer)
}

#[test]
#[ignore = "run by a_cloud_that_fails_is_asked_again_within_the_limit_and_bad_user_data_are_named in a world of its own"]
fn outage_in_its_world() {
    let mut world = World::new();
    let good = user_data("bastion", "");
    world.imds.instance("i-0c00", "10.20.1.10", &good);

    // User data that no host can use: each named in the report, which is not complete, and so is the exit status.
    let too_large = user_data("bastion", &" ".repeat(17_000));
    let more = |more: &str| user_data("bastion", more);
    for (text, named) in [
        ("", "no user data"),
        ("#!/bin/sh\nreboot", "not JSON"),
        ("[]", "not an object"),
        (too_large.as_str(), "16384 are allowed"),
        (&more(r#","color":"red""#), "field `color` is unknown"),
        (
            &good.replacen("\"drawbridge\"", "7", 1),
            "field `name` must be",
        ),
        (
            &good.replacen("ap-south-1", "eu-west-1", 1),
            "user data say region eu-west-1",
        ),
    ] {
        world.imds.text("user-data", text);
        stopped(&world, &["--timeout", "30"], Step::Metadata, named);
    }
    world.imds.text("user-data", &good);
    for (item, answer, named) in [
        ("user-data", Answer::Status(401), "status 401"),
        ("token", Answer::Status(403), "refuses this instance (403)"),
        ("user-data", Answer::Hang, "waiting for user-data"),
        (
            "user-data",
            Answer::HangHalfway("{".into()),
            "waiting for user-data",
        ),
        (
            "meta-data/instance-id",
            Answer::Status(404),
            "does not know meta-data/instance-id",
        ),
    ] {
        let before = world.imds.set(item, answer);
        stopped(&world, &["--timeout", "7"], Step::Metadata, named);
        match before {
            Some(before) => drop(world.imds.set(item, before)),
            None => drop(world.imds.text(item, "a-session-token")),
        }
    }

    // SSM is out of reach at first, then does not want to, then does.
    let moods = vec![
        Mood::Drop,
        Mood::Say(500, "InternalServerError"),
        Mood::Say(503, "ServiceUnavailable"),
        Mood::Say(400, "ThrottlingException"),
        Mood::Say(400, "AccessDeniedException"),
    ];
    let turns = moods.len();
    let asked = stand_between(5001, Duration::from_secs(2), moods, false);
    world.cloud = "http://127.0.0.1:5001".into();
    world.run_to_the_end();
    assert!(*asked.lock().unwrap() > turns);
    let ReportState::Reported(report) = world.told(Role::Bastion) else {
        panic!("{:?}", world.told(Role::Bastion))
    };
    assert!(report.is_complete_for("i-0c00") && report.error.is_none());
    let printed = |arguments: &[&str]| {
        let output = output(Command::new(HOST).arg("report").args(arguments));
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(
        printed(&[]).contains("step      complete (3 of 3)"),
        "{}",
        printed(&[])
    );
    let json = printed(&["--json"]);
    let ReportState::Reported(printed) = ReportState::parse(&json) else {
        panic!("{json}")
    };
    // Kept once more after it was delivered.
    assert_eq!(printed.finished_at, report.finished_at);
    assert!(printed.is_complete_for("i-0c00"));

    // It never wants to: the limit holds, and the report has what it said last.
    sh("rm -rf /var/lib/drawbridge");
    let moods = vec![Mood::Drop, Mood::Say(400, "ThrottlingException")];
    let asked = stand_between(5002, Duration::ZERO, moods, true);
    world.cloud = "http://127.0.0.1:5002".into();
    let start = Instant::now();
    stopped(
        &world,
        &["--timeout", "8"],
        Step::SshHostKey,
        "ThrottlingException: as told by the test",
    );
    // The limit, the last courtesy to SSM, and a busy machine.
    assert!(
        start.elapsed() < Duration::from_secs(40),
        "{:?}",
        start.elapsed()
    );
    let asked = *asked.lock().unwrap();
    assert!(
        (5..60).contains(&asked),
        "asked {asked} times in 8 s: no backoff, or too much"
    );
    let Asked {
        with_token,
        without_token,
    } = world.imds.asked();
    assert!(
        with_token > 20 && without_token.is_empty(),
        "{without_token:?}"
    );
}

/// The bootstrap fails at this step with these words in the report.
fn stopped(world: &World, arguments: &[&str], step: Step, named: &str) {
    assert!(!world.run(arguments), "a green boot with {named:?}");
    let report = world.local().unwrap();
    let error = report.error.unwrap_or_default();
    assert!(error.contains(named), "{error:?} does not name {named:?}");
    assert_eq!((report.step, report.finished_at), (step, None));
}
