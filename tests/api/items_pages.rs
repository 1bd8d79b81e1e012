//! The list, page by page.

use serde_json::json;

use super::cache::names;
use crate::support::{
    postgres::{self, TestDatabase},
    server::{Answer, TestServer},
};

/// The path of the next page, if there is one.
pub fn next(answer: &Answer) -> Option<String> {
    let link = answer.header("link")?;
    let path = link.strip_prefix('<').unwrap();
    Some(path.strip_suffix(">; rel=\"next\"").unwrap().to_owned())
}

/// A configuration for tests that write past the server.
pub fn uncached(database: &TestDatabase<'_>) -> String {
    format!("{}[cache]\nseconds = 0\n", database.config())
}

/// All names from this page on, and how many pages that were.
pub fn follow(server: &TestServer, path: &str) -> (Vec<String>, usize) {
    let (mut all, mut pages, mut path) = (Vec::new(), 0, Some(path.to_owned()));
    while let Some(page) = path {
        let answer = server.get(&page);
        all.extend(names(&answer));
        path = next(&answer);
        pages += 1;
        assert!(pages <= 100, "the pages go round in circles: {path:?}");
    }
    (all, pages)
}

/// Items with the numbers from `first` to `last` as names, ten at each time.
fn numbered(first: u32, last: u32) -> String {
    format!(
        "INSERT INTO items (id, name, created_at) SELECT gen_random_uuid(), n::text, \
         timestamptz '2026-01-01' + n / 10 * interval '1 microsecond' FROM generate_series({first}, {last}) n"
    )
}

#[tokio::test]
async fn every_item_is_on_one_page_also_where_times_are_equal() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&uncached(&database));
    let session = database.session().await;
    session.batch_execute(&numbered(1, 205)).await.unwrap();
    let (whole, pages) = follow(&server, "/items?limit=200");
    assert_eq!((whole.len(), pages), (205, 2));
    for (path, count) in [
        ("/items", 5),
        ("/items?limit=41", 5),
        ("/items?limit=7", 30),
        // The last page is full, and none follows.
        ("/items?limit=5", 41),
    ] {
        assert_eq!(follow(&server, path), (whole.clone(), count), "{path}");
    }
    let mut sorted: Vec<u32> = whole.iter().map(|name| name.parse().unwrap()).collect();
    assert!(sorted.is_sorted_by_key(|n| std::cmp::Reverse(n / 10)));
    sorted.sort_unstable();
    assert_eq!(sorted, (1..=205).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_stored_and_deleted_between_two_pages_moves_no_other_item() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&uncached(&database));
    let session = database.session().await;
    session.batch_execute(&numbered(1, 60)).await.unwrap();
    let (whole, _) = follow(&server, "/items?limit=60");
    let first = server.get("/items?limit=20");
    let mut seen = names(&first);
    // Ten new ones; the cursor's own item goes, and so do two before and two behind it.
    session.batch_execute(&numbered(61, 70)).await.unwrap();
    let gone: Vec<&str> = [3, 11, 19, 20, 37].map(|at| whole[at].as_str()).to_vec();
    session
        .execute("DELETE FROM items WHERE name = ANY($1)", &[&gone])
        .await
        .unwrap();
    seen.extend(follow(&server, &next(&first).unwrap()).0);
    let mut expected = whole.clone();
    expected.retain(|name| *name != whole[20] && *name != whole[37]);
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_cursor_that_the_list_did_not_give_out_is_refused_by_name() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&uncached(&database));
    for name in ["a", "b"] {
        server.post("/items", json!({"name": name}).to_string());
    }
    let path = next(&server.get("/items?limit=1")).unwrap();
    assert_eq!(names(&server.get(&path)), ["a"]);
    let cursor = path.split_once("after=").unwrap().1;
    let changed = if cursor.starts_with('A') { "B" } else { "A" };
    let changed = format!("{changed}{}", &cursor[1..]);
    for bad in [
        "",
        "x",
        "%00",
        "2",
        &changed,
        &cursor[1..],
        &format!("{cursor}A"),
        &format!("{cursor}%3D"),
    ] {
        let detail = server.get(&format!("/items?after={bad}")).problem(400);
        assert!(detail.contains("after"), "{bad}: {detail}");
    }
}
