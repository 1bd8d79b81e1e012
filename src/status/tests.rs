//! Each finding from a deployment that is fine but for it, and each unknown with its reason on the screen.

use std::collections::BTreeMap;

use time::macros::datetime;

use super::*;
use crate::appliance::BootstrapReport;
use crate::appliance::status::{ApiUnit, Database, Disk, Memory, System};
use crate::nat::position::Position;
use crate::nat::window::{InState, Seen};
use crate::terraform::tests::sample;

const NOW: OffsetDateTime = datetime!(2026-11-21 18:00 UTC);
const EARLIER: Moment = Moment(datetime!(2026-11-20 18:00 UTC));

fn inside(role: Role) -> HostStatus {
    let disk = Disk {
        total_bytes: 1000,
        available_bytes: 500,
    };
    let report = BootstrapReport {
        instance_id: Some("i-1".into()),
        image_id: Some("ami-1".into()),
        role: Some(role),
        step: crate::appliance::Step::Complete,
        started_at: NOW,
        updated_at: NOW,
        finished_at: Some(NOW),
        error: None,
    };
    let path = "/nix/store/aaa-nixos".to_owned();
    let api = ApiUnit {
        state: "active".into(),
        since: Some(EARLIER),
        restarts: 0,
        program: Known::Value("/nix/store/bbb-api".into()),
    };
    let database = Database {
        version: "17.6".into(),
        started_at: EARLIER,
        size_bytes: 9 << 20,
        connections: 9,
        max_connections: 100,
        is_in_recovery: false,
    };
    HostStatus {
        time: Known::Value(Moment(NOW)),
        version: Known::Value("0.1.0".into()),
        bootstrap: Known::Value(report),
        system: Known::Value(System {
            booted: path.clone(),
            current: path,
        }),
        uptime_seconds: Known::Value(60),
        processors: Known::Value(2),
        load: Known::Value([0.0; 3]),
        memory: Known::Value(Memory {
            total_bytes: 1000,
            available_bytes: 500,
        }),
        root_disk: Known::Value(disk),
        failed_units: Known::Value(Vec::new()),
        api: Known::Value((role == Role::Backend).then_some(api)),
        volume: Known::Value((role == Role::Database).then_some(disk)),
        database: Known::Value((role == Role::Database).then_some(database)),
    }
}

fn closed() -> Seen {
    Seen {
        position: Position::Closed,
        in_state: InState::default(),
        route_table: "rtb-1".into(),
        gateways: Vec::new(),
        addresses: Vec::new(),
        route: Ok(None),
        schedule: Ok(None),
    }
}

fn window(seen: Seen) -> Known<Window> {
    Known::Value(Window::new(&sample(), seen, Ok(Vec::new()), NOW))
}

fn fine() -> Status {
    let host = |role: Role| Host {
        instance_id: format!("i-{role}"),
        private_ip: "10.20.1.5".into(),
        public_ip: None,
        image_id: "ami-1".into(),
        instance: Known::Value(Instance {
            state: "running".into(),
            launched_at: EARLIER,
        }),
        image: Known::Value(Some(Image {
            name: "drawbridge-1".into(),
            created_at: EARLIER,
        })),
        bootstrap: Known::Value(Bootstrap {
            is_complete: true,
            step: Some("complete".into()),
            said: "complete".into(),
        }),
        host: Known::Value(inside(role)),
        clock_ahead_seconds: Some(0.0),
    };
    let ready = || Known::Value(Answer::from(Ok("answers 200".to_owned())));
    Status {
        deployment: "drawbridge".into(),
        account: "123456789012".into(),
        region: "ap-south-1".into(),
        taken_at: Moment(NOW),
        seconds: 1.0,
        hosts: Role::ALL.map(|role| (role, host(role))).into(),
        api: Api {
            load_balancer: ready(),
            direct: ready(),
        },
        window: window(closed()),
        last_backup: None,
        findings: Vec::new(),
        unknown: Vec::new(),
    }
}

/// Findings and unknown parts of a deployment that is fine but for this.
fn but(change: impl FnOnce(&mut Status)) -> Status {
    let mut status = fine();
    change(&mut status);
    status.findings = judge::findings(&status);
    status.unknown = status.all_unknown();
    status
}

fn of(status: &mut Status, role: Role) -> &mut Host {
    status.hosts.get_mut(&role).unwrap()
}

fn inside_of(status: &mut Status, role: Role) -> &mut HostStatus {
    match &mut of(status, role).host {
        Known::Value(inside) => inside,
        Known::Unknown(reason) => panic!("{reason}"),
    }
}

/// The one finding, its meaning and command.
#[track_caller]
fn one(status: &Status, name: &str, means: &str, command: &str) {
    let [found] = status.findings.as_slice() else {
        panic!("{name}: {:?}", status.findings)
    };
    assert_eq!(found.finding, name);
    assert!(found.means.contains(means), "{found:?}");
    assert!(found.command.contains(command), "{found:?}");
    assert_eq!(status.exit(), Exit::Found);
    let text = screen::text(status, NOW);
    let row = text.lines().find(|line| line.starts_with("but "));
    assert!(
        row.is_some_and(|row| row.ends_with(&format!("`{}`", found.command))),
        "{text}"
    );
}

#[test]
fn what_is_fine_is_found_fine_and_fits_a_screen() {
    let status = but(|_| {});
    assert_eq!(status.findings, []);
    assert_eq!(status.unknown, []);
    assert_eq!(status.exit(), Exit::Done);
    let text = screen::text(&status, NOW);
    assert!(!text.contains("unknown"), "{text}");
    assert!(text.lines().count() <= 24, "{text}");
    assert!(judge::notes(&status, "https://api.example.org").is_empty());
}

#[test]
fn an_instance_that_does_not_run_is_found() {
    let state = |state: &str| {
        let state = state.to_owned();
        but(|status| {
            of(status, Role::Backend).instance = Known::Value(Instance {
                state,
                launched_at: EARLIER,
            });
        })
    };
    let name = "instance-not-running";
    one(
        &state("stopped"),
        name,
        "i-backend is stopped",
        "aws ec2 start-instances --region ap-south-1 --instance-ids i-backend",
    );
    one(
        &state("terminated"),
        name,
        "terminated",
        "terraform -chdir=terraform apply",
    );
}

#[test]
fn a_bootstrap_that_is_not_complete_is_found_and_what_helps_depends_on_the_window() {
    let stands = |step: Option<&str>, role: Role| {
        let step = step.map(str::to_owned);
        move |status: &mut Status| {
            of(status, role).bootstrap = Known::Value(Bootstrap {
                is_complete: false,
                step,
                said: "stands at step volume".into(),
            });
        }
    };
    let name = "bootstrap-incomplete";
    let closed = but(stands(Some("volume"), Role::Database));
    one(
        &closed,
        name,
        "stands at step volume",
        "drawbridge nat open --for 30m",
    );
    let bastion = but(stands(Some("admin-keys"), Role::Bastion));
    one(
        &bastion,
        name,
        "bastion",
        "journalctl -u drawbridge-bootstrap",
    );
    let silent = but(stands(None, Role::Bastion));
    one(&silent, name, "bastion", "aws ec2 get-console-output");
}

#[test]
fn an_image_that_is_gone_is_found_and_an_old_one_is_noted() {
    let gone = but(|status| of(status, Role::Database).image = Known::Value(None));
    one(
        &gone,
        "image-gone",
        "does not exist any more",
        "scripts/publish-ami.sh --role database",
    );
    let old = but(|status| {
        of(status, Role::Backend).image = Known::Value(Some(Image {
            name: "drawbridge-0".into(),
            created_at: Moment(datetime!(2026-06-01 0:00 UTC)),
        }));
    });
    assert_eq!((old.exit(), old.findings.len()), (Exit::Done, 0));
    let notes = judge::notes(&old, "http://lb.example");
    let names: Vec<_> = notes.iter().map(|note| note.finding).collect();
    assert_eq!(names, ["image-old", "no-certificate"]);
    assert!(notes[0].means.contains("173 days old"), "{notes:?}");
}

#[test]
fn an_api_that_is_not_ready_is_found_by_either_way() {
    let no = || Known::Value(Answer::from(Err("answers 503".to_owned())));
    let outside = but(|status| status.api.load_balancer = no());
    one(
        &outside,
        "api-not-ready-outside",
        "on the backend itself it is ready",
        "drawbridge audit",
    );
    let direct = but(|status| status.api.direct = no());
    one(
        &direct,
        "api-not-ready",
        "answers 503",
        "journalctl -u drawbridge-api",
    );
    let both = but(|status| {
        status.api.load_balancer = no();
        status.api.direct = Known::Unknown("no key".into());
    });
    one(
        &both,
        "api-not-ready-outside",
        "answers 503",
        "journalctl -u drawbridge-api",
    );
}

#[test]
fn what_is_nearly_full_is_found() {
    let full = Disk {
        total_bytes: 100,
        available_bytes: 15,
    };
    let root = but(|status| inside_of(status, Role::Backend).root_disk = Known::Value(full));
    one(
        &root,
        "disk-nearly-full",
        "85 % full",
        "drawbridge exec backend -- sudo journalctl --vacuum-size",
    );
    let below = Disk {
        available_bytes: 16,
        ..full
    };
    let below = but(|status| inside_of(status, Role::Backend).root_disk = Known::Value(below));
    assert_eq!(below.findings, []);
    let volume = but(|status| inside_of(status, Role::Database).volume = Known::Value(Some(full)));
    one(&volume, "volume-nearly-full", "85 % full", "resize2fs");
    let memory = but(|status| {
        inside_of(status, Role::Bastion).memory = Known::Value(Memory {
            total_bytes: 100,
            available_bytes: 5,
        });
    });
    one(
        &memory,
        "memory-nearly-full",
        "95 % in use",
        "instance_types",
    );
}

fn postgres(change: impl FnOnce(&mut Database)) -> Status {
    but(|status| {
        let Known::Value(Some(database)) = &mut inside_of(status, Role::Database).database else {
            panic!()
        };
        change(database);
    })
}

#[test]
fn a_database_that_takes_no_more_is_found() {
    let busy = postgres(|database| database.connections = 85);
    one(
        &busy,
        "connections-nearly-max",
        "85 of Postgres's 100",
        "pg_stat_activity",
    );
    assert_eq!(postgres(|database| database.connections = 84).findings, []);
    let recovering = postgres(|database| database.is_in_recovery = true);
    one(
        &recovering,
        "database-in-recovery",
        "no writes",
        "journalctl -u postgresql",
    );
}

#[test]
fn a_failed_unit_is_found_and_its_name_cannot_become_a_command() {
    let failed = |role: Role, unit: &str| {
        let units = vec![unit.to_owned()];
        but(|status| inside_of(status, role).failed_units = Known::Value(units))
    };
    let name = "unit-failed";
    one(
        &failed(Role::Backend, "a.service"),
        name,
        "a.service",
        "drawbridge exec backend -- sudo systemctl restart a.service",
    );
    one(
        &failed(Role::Database, "$(reboot)"),
        name,
        "",
        "restart '$(reboot)'",
    );
    let forged = failed(Role::Backend, "a\nwindow    closed\u{1b}[2J");
    let text = screen::text(&forged, NOW);
    assert_eq!(text.matches("\nwindow ").count(), 1, "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
    one(
        &failed(Role::Bastion, "a.service"),
        name,
        "",
        "aws ec2 reboot-instances --instance-ids i-bastion",
    );
}

#[test]
fn a_clock_that_is_off_is_found() {
    let off =
        |ahead: f64| but(|status| of(status, Role::Database).clock_ahead_seconds = Some(ahead));
    one(
        &off(75.0),
        "clock-off",
        "1 min 15 s ahead of",
        "restart systemd-timesyncd",
    );
    one(
        &off(-6.0),
        "clock-off",
        "6 s behind",
        "drawbridge exec database",
    );
    assert_eq!(off(4.0).findings, []);
    assert!(screen::text(&off(4.0), NOW).contains("clock +4 s"));
}

#[test]
fn the_windows_own_findings_are_shown_and_one_that_was_forgotten() {
    let gateway = |minutes: i64| crate::cloud::Gateway {
        id: "nat-1".into(),
        state: crate::cloud::GatewayState::Available,
        created_at: NOW - time::Duration::minutes(minutes),
        deleted_at: None,
        is_tagged: true,
    };
    let open = |minutes: i64, position: Position| Seen {
        position,
        in_state: InState {
            gateway: Some("nat-1".into()),
            schedule: Some("s".into()),
            route: Some("r-1".into()),
            ..InState::default()
        },
        gateways: vec![gateway(minutes)],
        route: Ok(Some(crate::cloud::Route {
            target: "nat-1".into(),
            is_blackhole: false,
        })),
        schedule: Ok(Some(crate::cloud::Schedule {
            name: "s".into(),
            at: NOW + time::Duration::hours(3),
            is_enabled: true,
        })),
        ..closed()
    };
    let with = |seen: Seen| but(|status| status.window = window(seen));
    assert_eq!(with(open(59, Position::Open)).findings, []);
    one(
        &with(open(61, Position::Open)),
        "window-forgotten",
        "1 h 1 min",
        "drawbridge nat close",
    );
    let leased = Position::Leased {
        until: NOW + time::Duration::hours(3),
    };
    assert_eq!(with(open(61, leased)).findings, []);
    let no_schedule = Seen {
        schedule: Ok(None),
        ..open(10, Position::Open)
    };
    one(
        &with(no_schedule),
        "deadline-gone",
        "does not exist",
        "drawbridge nat close --wait",
    );
    let text = screen::text(&with(open(10, Position::Open)), NOW);
    for row in [
        "window    open (nat-1)",
        "deadline  ",
        "cost      standing for 10 min",
    ] {
        assert!(text.contains(row), "{row}: {text}");
    }
}

#[test]
fn every_unknown_is_on_the_screen_with_its_reason_and_never_fine() {
    fn set<T>(place: &mut Known<T>, number: usize) {
        *place = Known::Unknown(format!("reason-{number}."));
    }
    let status = but(|status| {
        let host = of(status, Role::Backend);
        set(&mut host.instance, 1);
        set(&mut host.image, 2);
        set(&mut host.bootstrap, 3);
        set(&mut of(status, Role::Bastion).host, 4);
        let host = inside_of(status, Role::Backend);
        set(&mut host.system, 5);
        set(&mut host.uptime_seconds, 6);
        set(&mut host.processors, 7);
        set(&mut host.load, 8);
        set(&mut host.memory, 9);
        set(&mut host.root_disk, 10);
        set(&mut host.failed_units, 11);
        set(&mut host.api, 12);
        let host = inside_of(status, Role::Database);
        set(&mut host.volume, 13);
        set(&mut host.database, 14);
        set(&mut host.time, 15);
        of(status, Role::Database).clock_ahead_seconds = None;
        set(&mut status.api.load_balancer, 16);
        set(&mut status.api.direct, 17);
        set(&mut status.window, 18);
    });
    let text = screen::text(&status, NOW);
    for number in 1..=18 {
        let reason = format!("unknown: reason-{number}.");
        assert!(text.contains(&reason), "{reason}: {text}");
        let reason = format!("reason-{number}.");
        assert!(
            status
                .unknown
                .iter()
                .any(|unknown| unknown.reason == reason),
            "{reason}: {:?}",
            status.unknown
        );
    }
    assert_eq!((status.findings.len(), status.exit()), (0, Exit::Unproven));
    // What is wrong is said although something is unknown.
    let both = but(|status| {
        set(&mut status.window, 1);
        of(status, Role::Database).image = Known::Value(None);
    });
    assert_eq!(both.exit(), Exit::Found);
}

#[test]
fn an_unknown_deadline_of_the_window_counts() {
    let seen = Seen {
        route: Err("not allowed: routes".into()),
        schedule: Err("not allowed: schedules".into()),
        ..closed()
    };
    let status = but(|status| status.window = window(seen));
    let reasons: BTreeMap<_, _> = status
        .unknown
        .iter()
        .map(|unknown| (unknown.part.as_str(), unknown.reason.as_str()))
        .collect();
    assert_eq!(reasons["window's deadline"], "not allowed: schedules");
    assert_eq!(reasons["window's route"], "not allowed: routes");
}
