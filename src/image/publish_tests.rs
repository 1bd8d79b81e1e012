use std::collections::BTreeMap;

use time::OffsetDateTime;
use time::macros::datetime;

use super::*;

const EARLIER: OffsetDateTime = datetime!(2026-11-20 10:00 UTC);
const LATER: OffsetDateTime = datetime!(2026-11-20 11:00 UTC);

fn snapshot(id: &str, state: &str, started_at: OffsetDateTime) -> Snapshot {
    Snapshot {
        id: id.into(),
        state: state.into(),
        started_at,
        gib: 1,
        tags: BTreeMap::new(),
    }
}

fn content() -> Content {
    let nothing = Manifest {
        bytes: 1,
        blocks: Vec::new(),
        read_bytes: 0,
    };
    nothing.content()
}

fn unfinished(content: &str, snapshot: Option<&str>) -> Unfinished {
    Unfinished {
        begun: Begun {
            content: content.into(),
            new: NewSnapshot {
                token: "token".into(),
                gib: 1,
                description: String::new(),
                tags: BTreeMap::new(),
                idle: IDLE,
            },
        },
        snapshot: snapshot.map(str::to_owned),
        confirmed: BTreeSet::from([1, 2]),
    }
}

#[test]
fn a_completed_snapshot_is_used_the_newest_and_none_that_is_being_removed() {
    let mut pruned = snapshot("snap-3", "completed", LATER);
    pruned.tags.insert(tags::PRUNED.into(), "ami-1".into());
    let all = [
        snapshot("snap-1", "completed", EARLIER),
        snapshot("snap-2", "completed", LATER),
        pruned.clone(),
    ];
    let journal = unfinished(content().as_str(), Some("snap-9"));
    assert_eq!(
        decide(Some(journal), &content(), &all),
        Next::Register("snap-2".into())
    );
    assert_eq!(decide(None, &content(), &[pruned]), Next::Begin(None));
}

#[test]
fn an_unfinished_upload_goes_on_only_into_its_own_pending_snapshot() {
    let (here, other) = (content(), "other");
    let at = |state| [snapshot("snap-1", state, EARLIER)];
    let mine = || Some(unfinished(here.as_str(), Some("snap-1")));
    let blocks = BTreeSet::from([1, 2]);
    assert_eq!(
        decide(mine(), &here, &at("pending")),
        Next::Resume("snap-1".into(), blocks)
    );
    // Pending of another run.
    assert_eq!(decide(None, &here, &at("pending")), Next::Begin(None));
    let reason = |next| match next {
        Next::Begin(Some(reason)) => reason,
        next => panic!("{next:?}"),
    };
    assert!(
        reason(decide(mine(), &here, &at("error")))
            .contains("snap-1, begun by an earlier run, is error")
    );
    assert!(reason(decide(mine(), &here, &[])).contains("is gone"));
    let foreign = unfinished(other, Some("snap-1"));
    assert!(
        reason(decide(Some(foreign), &here, &[])).contains("snap-1 was begun for other content")
    );
}

#[test]
fn without_an_answer_the_same_question_is_asked_again() {
    let lost = unfinished(content().as_str(), None);
    let new = lost.begun.new.clone();
    assert_eq!(decide(Some(lost), &content(), &[]), Next::AskAgain(new));
    assert_ne!(token(), token());
    assert_eq!(token().len(), 64);
}
