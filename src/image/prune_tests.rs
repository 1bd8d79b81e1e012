use time::macros::datetime;

use super::*;

const NOW: OffsetDateTime = datetime!(2026-11-20 12:00 UTC);
const RULES: Rules = Rules {
    keep: 2,
    unfinished_after: Duration::from_secs(24 * 60 * 60),
};

fn tagged(role: &str) -> BTreeMap<String, String> {
    let pairs = [
        tags::PROJECT,
        (tags::ROLE, role),
        (tags::SYSTEM, "x86_64-linux"),
        (tags::CONTENT, "c0"),
    ];
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// `ami-N` of `snap-N`, registered N hours ago.
fn image(number: i64, role: &str) -> Image {
    Image {
        id: format!("ami-{number}"),
        name: format!("image {number}"),
        state: "available".into(),
        created_at: NOW - time::Duration::hours(number),
        snapshots: BTreeSet::from([format!("snap-{number}")]),
        tags: tagged(role),
    }
}

fn snapshot(number: i64, state: &str) -> Snapshot {
    Snapshot {
        id: format!("snap-{number}"),
        state: state.into(),
        started_at: NOW - time::Duration::hours(number),
        gib: 2,
        tags: tagged("backend"),
    }
}

fn seen(numbers: std::ops::RangeInclusive<i64>) -> Seen {
    Seen {
        images: numbers
            .clone()
            .map(|number| image(number, "backend"))
            .collect(),
        snapshots: numbers
            .map(|number| snapshot(number, "completed"))
            .collect(),
        uses: Vec::new(),
    }
}

fn going(plan: &Plan) -> Vec<(&str, Vec<&str>)> {
    let removals = plan.images.iter();
    removals
        .map(|one| {
            let snapshots = one.snapshots.iter().map(String::as_str).collect();
            (one.image.as_str(), snapshots)
        })
        .collect()
}

#[test]
fn the_newest_of_each_role_and_system_stay_and_the_others_go_with_their_snapshots() {
    let mut seen = seen(1..=4);
    seen.images.reverse();
    seen.images.push(image(9, "database"));
    let mut arm = image(8, "backend");
    arm.tags.insert(tags::SYSTEM.into(), "aarch64-linux".into());
    seen.images.push(arm);
    let plan = decide(&seen, RULES, NOW);
    assert_eq!(
        going(&plan),
        [("ami-3", vec!["snap-3"]), ("ami-4", vec!["snap-4"])]
    );
    assert_eq!(plan.kept.len(), 4);
    assert!(plan.snapshots.is_empty() && !plan.is_empty());
    assert!(decide(&Seen::default(), RULES, NOW).is_empty());
}

#[test]
fn one_in_use_stays_and_says_by_whom() {
    let mut seen = seen(1..=4);
    seen.uses = vec![
        ("ami-3".into(), "i-7".into()),
        ("ami-3".into(), "lt-1".into()),
    ];
    let plan = decide(&seen, RULES, NOW);
    assert_eq!(going(&plan), [("ami-4", vec!["snap-4"])]);
    let kept = plan.kept.iter().find(|kept| kept.image == "ami-3").unwrap();
    assert_eq!(kept.why, "used by i-7, lt-1");
}

#[test]
fn what_is_not_ours_stays() {
    let mut seen = seen(1..=5);
    seen.images[3].tags.remove(tags::PROJECT.0);
    seen.images[4].tags.remove(tags::ROLE);
    for stranger in &mut seen.snapshots[3..] {
        stranger.tags.clear();
    }
    assert_eq!(
        going(&decide(&seen, RULES, NOW)),
        [("ami-3", vec!["snap-3"])]
    );
    // Our image, somebody's snapshot: the image goes, the snapshot is not touched.
    seen.snapshots[2].tags.clear();
    assert_eq!(going(&decide(&seen, RULES, NOW)), [("ami-3", vec![])]);
}

#[test]
fn a_snapshot_that_another_image_needs_stays() {
    let mut seen = seen(1..=3);
    // Somebody registered an image of their own from it.
    let mut foreign = image(7, "backend");
    foreign.tags.clear();
    foreign.snapshots = BTreeSet::from(["snap-3".to_owned()]);
    seen.images.push(foreign);
    assert_eq!(going(&decide(&seen, RULES, NOW)), [("ami-3", vec![])]);
}

#[test]
fn what_earlier_runs_left_goes_but_nothing_that_may_be_under_way() {
    let left = |number, state| {
        let seen = Seen {
            snapshots: vec![snapshot(number, state)],
            ..Seen::default()
        };
        let plan = decide(&seen, RULES, NOW);
        plan.snapshots.first().map(|one| one.why)
    };
    assert_eq!(left(25, "pending"), Some("an upload that never ended"));
    assert_eq!(left(23, "pending"), None);
    assert!(left(25, "completed").is_some());
    assert_eq!(left(23, "completed"), None);
    assert_eq!(left(1, "error"), Some("an upload that EBS gave up"));

    let mut marked = snapshot(1, "completed");
    marked.tags.insert(tags::PRUNED.into(), "ami-1".into());
    let mut backup = snapshot(90, "completed");
    backup.tags.remove(tags::CONTENT);
    let seen = Seen {
        snapshots: vec![marked, backup],
        ..Seen::default()
    };
    let plan = decide(&seen, RULES, NOW);
    let ids: Vec<_> = plan
        .snapshots
        .iter()
        .map(|one| one.snapshot.as_str())
        .collect();
    assert_eq!(ids, ["snap-1"], "marked by a prune that was ended");
}
