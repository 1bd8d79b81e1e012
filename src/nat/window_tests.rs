use time::macros::datetime;

use super::*;

fn gateway(id: &str, state: GatewayState, is_tagged: bool) -> Gateway {
    Gateway {
        id: id.into(),
        state,
        created_at: datetime!(2026-11-20 10:00 UTC),
        deleted_at: None,
        is_tagged,
    }
}

fn known() -> Option<NatGateway> {
    Some(NatGateway {
        id: "nat-1".into(),
        public_ip: "203.0.113.1".into(),
        allocation_id: "eipalloc-1".into(),
    })
}

fn address() -> Vec<Address> {
    vec![Address {
        allocation_id: "eipalloc-1".into(),
        public_ip: "203.0.113.1".into(),
    }]
}

fn open() -> Seen {
    let gateways = vec![gateway("nat-1", GatewayState::Available, true)];
    Seen {
        position: Position::Open,
        in_state: known(),
        gateways,
        addresses: address(),
    }
}

#[test]
fn an_open_window_is_gated_planned_written_applied_and_proven() {
    assert_eq!(
        open().window(),
        Window::Open {
            gateway: "nat-1".into()
        }
    );
    let all = [
        Step::Gate,
        Step::Plan,
        Step::Position(Position::Closed),
        Step::Apply,
        Step::Prove,
    ];
    assert_eq!(open().steps_to_close(false).unwrap(), all);
    assert_eq!(open().steps_to_close(true).unwrap(), all[1..]);
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
    let gateways = vec![gateway("nat-1", GatewayState::Deleted, true)];
    let seen = Seen {
        position: Position::Closed,
        in_state: None,
        gateways,
        addresses: address(),
    };
    assert_eq!(
        seen.window(),
        Window::Leftover {
            what: "eipalloc-1".into()
        }
    );
    assert_eq!(
        seen.steps_to_close(false).unwrap(),
        [Step::Plan, Step::Apply, Step::Prove]
    );
    let gateways = vec![gateway("nat-1", GatewayState::Deleting, true)];
    let seen = Seen {
        gateways,
        addresses: vec![],
        ..seen
    };
    assert_eq!(
        seen.window(),
        Window::Leftover {
            what: "nat-1".into()
        }
    );
}

#[test]
fn an_expired_window_needs_no_gate() {
    let seen = Seen {
        gateways: vec![gateway("nat-1", GatewayState::Deleted, true)],
        ..open()
    };
    assert_eq!(
        seen.window(),
        Window::Expired {
            gateway: "nat-1".into()
        }
    );
    assert_eq!(seen.steps_to_close(false).unwrap()[0], Step::Plan);
}

#[test]
fn closed_is_closed_only_when_all_three_say_so() {
    let closed = Seen {
        position: Position::Closed,
        in_state: None,
        gateways: vec![],
        addresses: vec![],
    };
    assert_eq!(closed.steps_to_close(false).unwrap(), []);
    let file = Seen {
        position: Position::Open,
        ..closed.clone()
    };
    assert!(
        file.steps_to_close(false)
            .unwrap()
            .contains(&Step::Position(Position::Closed))
    );
    let gateways = vec![gateway("nat-9", GatewayState::Available, true)];
    let lost_by_the_state = Seen { gateways, ..closed };
    assert_eq!(
        lost_by_the_state.steps_to_close(false).unwrap()[0],
        Step::Gate
    );
}

#[test]
fn a_gateway_of_somebody_else_stops_everything() {
    let mut seen = open();
    seen.gateways
        .push(gateway("nat-2", GatewayState::Available, false));
    let refusal = seen.steps_to_close(true).unwrap_err();
    assert_eq!(
        refusal,
        Refusal::ForeignGateway {
            gateway: "nat-2".into()
        }
    );
    seen.gateways[1].state = GatewayState::Deleted;
    assert!(seen.steps_to_close(true).is_ok());
}

#[test]
fn a_plan_may_delete_the_window_and_nothing_else() {
    let change = |address: &str, action: &str| PlannedChange {
        address: address.into(),
        kind: address.split('.').next().unwrap().into(),
        action: action.into(),
    };
    let window: Vec<_> = RESOURCES
        .iter()
        .map(|address| change(address, "delete"))
        .collect();
    assert_eq!(judge_plan(&window), Ok(()));
    assert_eq!(judge_plan(&[]), Ok(()));
    for other in [
        change("aws_eip.bastion", "delete"),
        change("aws_nat_gateway.main[0]", "replace"),
        change("aws_instance.backend", "replace"),
        change("aws_route.public_internet", "delete"),
        change("module.x.aws_eip.nat[0]", "delete"),
    ] {
        let refusal = judge_plan(&[window[0].clone(), other.clone()]).unwrap_err();
        assert!(
            refusal
                .to_string()
                .contains(&format!("{} {}", other.action, other.address)),
            "{refusal}"
        );
    }
}
