use time::macros::datetime;

use super::*;
use crate::nat::finding::findings;

const NOW: OffsetDateTime = datetime!(2026-11-20 11:00 UTC);

fn gateway(id: &str, state: GatewayState, is_tagged: bool) -> Gateway {
    Gateway {
        id: id.into(),
        state,
        created_at: datetime!(2026-11-20 10:00 UTC),
        deleted_at: None,
        is_tagged,
    }
}

fn known() -> InState {
    InState {
        gateway: Some("nat-1".into()),
        address: Some("eipalloc-1".into()),
        route: Some("r-rtb-1".into()),
        schedule: Some("drawbridge-nat-1-4h".into()),
    }
}

fn address(id: &str) -> Address {
    Address {
        allocation_id: id.into(),
        public_ip: "203.0.113.1".into(),
    }
}

fn route(target: &str, is_blackhole: bool) -> Result<Option<Route>, String> {
    Ok(Some(Route {
        target: target.into(),
        is_blackhole,
    }))
}

fn schedule(at: OffsetDateTime, is_enabled: bool) -> Result<Option<Schedule>, String> {
    Ok(Some(Schedule {
        name: "drawbridge-nat-1-4h".into(),
        at,
        is_enabled,
    }))
}

fn open() -> Seen {
    Seen {
        position: Position::Open,
        in_state: known(),
        route_table: "rtb-1".into(),
        gateways: vec![gateway("nat-1", GatewayState::Available, true)],
        addresses: vec![address("eipalloc-1")],
        route: route("nat-1", false),
        schedule: schedule(datetime!(2026-11-20 14:00 UTC), true),
    }
}

fn closed() -> Seen {
    Seen {
        position: Position::Closed,
        in_state: InState::default(),
        gateways: vec![gateway("nat-1", GatewayState::Deleted, true)],
        addresses: vec![],
        route: Ok(None),
        schedule: Ok(None),
        ..open()
    }
}

/// What the dead man's switch leaves.
fn fired() -> Seen {
    Seen {
        gateways: vec![gateway("nat-1", GatewayState::Deleted, true)],
        route: route("nat-1", true),
        ..open()
    }
}

/// What a terraform leaves that was killed after it had made everything and before it wrote anything down.
fn unknown_to_state() -> Seen {
    Seen {
        in_state: InState::default(),
        ..open()
    }
}

fn open_window(id: &str) -> Window {
    Window::Open { gateway: id.into() }
}

fn leftover(what: &str) -> Window {
    Window::Leftover { what: what.into() }
}

#[test]
fn an_open_window_is_gated_planned_written_applied_and_proven() {
    assert_eq!(open().window(), open_window("nat-1"));
    let all = [
        Step::Gate,
        Step::Plan,
        Step::Position(Position::Closed),
        Step::Apply,
        Step::Prove,
    ];
    assert_eq!(open().steps_to_close(false).unwrap(), all);
    assert_eq!(open().steps_to_close(true).unwrap(), all[1..]);
    let until = NOW;
    let leased = Seen {
        position: Position::Leased { until },
        ..open()
    };
    assert_eq!(leased.steps_to_close(false).unwrap(), all);
}

#[test]
fn a_close_that_was_interrupted_after_writing_the_file_goes_on() {
    let seen = Seen {
        position: Position::Closed,
        ..open()
    };
    assert_eq!(
        seen.steps_to_close(false).unwrap(),
        [Step::Gate, Step::Plan, Step::Apply, Step::Prove]
    );
}

#[test]
fn a_close_that_was_interrupted_while_applying_goes_on_without_the_gate() {
    let address_left = Seen {
        in_state: InState {
            address: known().address,
            ..InState::default()
        },
        addresses: vec![address("eipalloc-1")],
        ..closed()
    };
    assert_eq!(address_left.window(), leftover("eipalloc-1"));
    assert_eq!(
        address_left.steps_to_close(false).unwrap(),
        [Step::Plan, Step::Apply, Step::Prove]
    );
    let deleting = Seen {
        gateways: vec![gateway("nat-1", GatewayState::Deleting, true)],
        ..closed()
    };
    assert_eq!(deleting.window(), leftover("nat-1"));
}

#[test]
fn an_expired_window_needs_no_gate() {
    let gone = Window::Expired {
        gateway: "nat-1".into(),
    };
    assert_eq!(fired().window(), gone);
    assert_eq!(fired().steps_to_close(false).unwrap()[0], Step::Plan);
}

#[test]
fn closed_is_closed_only_when_all_three_say_so() {
    assert_eq!(closed().window(), Window::Closed);
    assert_eq!(closed().steps_to_close(false).unwrap(), []);
    let file = Seen {
        position: Position::Open,
        ..closed()
    };
    let write = Step::Position(Position::Closed);
    assert!(file.steps_to_close(false).unwrap().contains(&write));
    // Each thing that the state or the cloud still holds, alone.
    for part in 0..4 {
        let mut state = closed();
        match part {
            0 => state.in_state.gateway = known().gateway,
            1 => state.in_state.address = known().address,
            2 => state.in_state.route = known().route,
            _ => state.in_state.schedule = known().schedule,
        }
        assert_ne!(state.window(), Window::Closed, "{part}");
        assert!(!state.steps_to_close(false).unwrap().is_empty(), "{part}");
    }
    let cloud = [
        Seen {
            addresses: vec![address("eipalloc-1")],
            ..closed()
        },
        Seen {
            route: route("nat-1", true),
            ..closed()
        },
        Seen {
            gateways: vec![gateway("nat-9", GatewayState::Pending, true)],
            ..closed()
        },
    ];
    for seen in cloud {
        assert_ne!(seen.window(), Window::Closed, "{seen:?}");
        let steps = seen.steps_to_close(true).unwrap();
        assert!(matches!(steps[0], Step::Adopt(_)), "{steps:?}");
    }
}

#[test]
fn what_the_state_does_not_know_is_adopted_before_the_plan() {
    let steps = unknown_to_state().steps_to_close(false).unwrap();
    let orphan = |address, id: &str| Orphan {
        address,
        id: id.into(),
    };
    let all = vec![
        orphan("aws_nat_gateway.main[0]", "nat-1"),
        orphan("aws_eip.nat[0]", "eipalloc-1"),
        orphan(
            "aws_scheduler_schedule.nat_deadline[0]",
            "default/drawbridge-nat-1-4h",
        ),
        orphan("aws_route.private_internet[0]", "rtb-1_0.0.0.0/0"),
    ];
    assert_eq!(steps[..3], [Step::Gate, Step::Adopt(all), Step::Plan]);
    assert_eq!(open().orphans(), []);
    assert_eq!(fired().orphans(), []);
    // What leads somewhere else is not the window's.
    let other = Seen {
        route: route("igw-1", false),
        ..closed()
    };
    assert_eq!((other.orphans(), other.window()), (vec![], Window::Closed));
}

#[test]
fn more_than_the_state_can_hold_is_closed_in_turns() {
    let mut doubled = open();
    let second = gateway("nat-2", GatewayState::Available, true);
    doubled.gateways.push(second);
    let again = |seen: &Seen| {
        let steps = seen.steps_to_close(true).unwrap();
        steps.contains(&Step::LookAgain)
    };
    assert!(again(&doubled));
    assert!(!again(&open()) && !again(&unknown_to_state()));
    // The switch fired, and the apply after it was killed: the state still has the first.
    let replaced = Seen {
        gateways: vec![
            gateway("nat-1", GatewayState::Deleted, true),
            gateway("nat-2", GatewayState::Available, true),
        ],
        ..fired()
    };
    assert!(again(&replaced));
    let mut addresses = fired();
    addresses.addresses.push(address("eipalloc-2"));
    assert!(again(&addresses));
}

#[test]
fn a_gateway_of_somebody_else_stops_everything() {
    let mut seen = open();
    let theirs = gateway("nat-2", GatewayState::Available, false);
    seen.gateways.push(theirs.clone());
    let wanted = Refusal::ForeignGateway {
        gateway: "nat-2".into(),
    };
    assert_eq!(seen.steps_to_close(true).unwrap_err(), wanted);
    let mut none = closed();
    none.gateways.push(theirs);
    assert_eq!(none.may_open().unwrap_err(), wanted);
    seen.gateways[1].state = GatewayState::Deleted;
    assert!(seen.steps_to_close(true).is_ok());
}

#[test]
fn only_what_is_closed_is_opened() {
    assert_eq!(closed().may_open(), Ok(()));
    let file_open = Seen {
        position: Position::Open,
        ..closed()
    };
    assert_eq!(file_open.may_open(), Ok(()));
    let text = open().may_open().unwrap_err().to_string();
    for part in [
        "nat-1",
        "2026-11-20T10:00:00Z",
        "2026-11-20T14:00:00Z",
        "nat close",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = fired().may_open().unwrap_err().to_string();
    assert!(
        text.contains("expired") && text.contains("nat close"),
        "{text}"
    );
}

fn found(seen: &Seen) -> Vec<(&'static str, String)> {
    let found = findings(seen, NOW);
    for finding in &found {
        assert!(!finding.means.is_empty(), "{finding:?}");
    }
    found
        .into_iter()
        .map(|finding| (finding.finding, finding.command))
        .collect()
}

fn only(seen: &Seen) -> (&'static str, String) {
    let found = found(seen);
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

const CLOSE: &str = "drawbridge nat close";

#[test]
fn where_all_agree_nothing_is_found() {
    assert_eq!(found(&open()), []);
    assert_eq!(found(&closed()), []);
    let until = datetime!(2026-11-20 14:00 UTC);
    let leased = Seen {
        position: Position::Leased { until },
        ..open()
    };
    assert_eq!(found(&leased), []);
    // What is not known is shown as such and is no finding.
    let blind = Seen {
        route: Err("not allowed".into()),
        schedule: Err("not allowed".into()),
        ..open()
    };
    assert_eq!(found(&blind), []);
    assert_eq!(blind.deadline(), None);
}

#[test]
fn every_disagreement_has_a_name_and_a_command() {
    let close = |finding| (finding, CLOSE.to_owned());
    let wait = |finding| (finding, format!("{CLOSE} --wait"));
    let apply = |finding| (finding, "terraform apply".to_owned());
    let early = datetime!(2026-11-20 10:30 UTC);
    let late = datetime!(2026-11-20 15:00 UTC);
    let leased = |until, seen: Seen| Seen {
        position: Position::Leased { until },
        ..seen
    };
    let with = |change: fn(&mut Seen)| {
        let mut seen = open();
        change(&mut seen);
        seen
    };
    let cases = [
        (
            Seen {
                position: Position::Open,
                ..closed()
            },
            close("file-open"),
        ),
        (leased(late, closed()), close("file-open")),
        (leased(early, closed()), close("lease-ended")),
        (fired(), close("gateway-gone")),
        (
            with(|seen| seen.position = Position::Closed),
            wait("file-closed"),
        ),
        (with(|seen| seen.schedule = Ok(None)), wait("deadline-gone")),
        (
            with(|seen| (seen.schedule, seen.in_state.schedule) = (Ok(None), None)),
            wait("no-deadline"),
        ),
        (
            with(|seen| seen.schedule = schedule(NOW, false)),
            wait("deadline-disabled"),
        ),
        (
            Seen {
                schedule: schedule(early, true),
                ..open()
            },
            close("overdue"),
        ),
        (leased(late, open()), apply("other-deadline")),
        (with(|seen| seen.route = Ok(None)), apply("no-route")),
        (
            with(|seen| seen.route = route("nat-0", true)),
            apply("other-route"),
        ),
        (
            with(|seen| {
                seen.gateways
                    .push(gateway("nat-2", GatewayState::Available, true))
            }),
            wait("more-gateways"),
        ),
        (
            with(|seen| seen.gateways[0].state = GatewayState::Deleting),
            close("gateway-deleting"),
        ),
        (
            Seen {
                in_state: InState {
                    address: known().address,
                    ..InState::default()
                },
                addresses: vec![address("eipalloc-1")],
                ..closed()
            },
            close("address-without-gateway"),
        ),
        (
            Seen {
                in_state: InState {
                    route: known().route,
                    ..InState::default()
                },
                ..closed()
            },
            close("rest-without-gateway"),
        ),
    ];
    for (seen, wanted) in cases {
        assert_eq!(only(&seen), wanted, "{seen:?}");
    }
    let mut foreign = closed();
    foreign
        .gateways
        .push(gateway("nat-9", GatewayState::Available, false));
    let (finding, command) = only(&foreign);
    assert_eq!(finding, "foreign-gateway");
    assert!(command.contains("delete-nat-gateway --nat-gateway-id nat-9"));
    let names: Vec<_> = found(&unknown_to_state())
        .into_iter()
        .map(|found| found.0)
        .collect();
    assert_eq!(names, ["unknown-to-state"; 4]);
}

#[test]
fn a_schedule_that_is_just_due_is_not_called_broken() {
    let due = |at| Seen {
        schedule: schedule(at, true),
        ..open()
    };
    assert_eq!(found(&due(datetime!(2026-11-20 10:56 UTC))), []);
    assert_eq!(only(&due(datetime!(2026-11-20 10:55 UTC))).0, "overdue");
}

#[test]
fn a_gateway_on_its_way_out_does_not_hide_one_that_works() {
    let mut seen = open();
    seen.gateways
        .insert(0, gateway("nat-0", GatewayState::Deleting, true));
    assert_eq!(seen.window(), open_window("nat-1"));
    assert_eq!(seen.steps_to_close(false).unwrap()[0], Step::Gate);
    assert!(matches!(seen.may_open(), Err(Refusal::IsOpen { .. })));
}
