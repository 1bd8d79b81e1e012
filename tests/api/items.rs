use serde_json::json;

use crate::support::{postgres, server::TestServer};

#[tokio::test]
async fn create_item_answers_201_with_the_stored_item_and_its_location() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    let answer = server.post(
        "/items",
        json!({"name": "first", "description": "with words"}).to_string(),
    );
    assert_eq!(answer.status, 201, "{answer:?}");
    let item = answer.json();
    assert_eq!(item["name"], "first");
    assert_eq!(item["description"], "with words");
    let id: uuid::Uuid = item["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(
        answer.header("location"),
        Some(format!("/items/{id}").as_str())
    );
    let created_at = item["created_at"].as_str().unwrap();
    time::OffsetDateTime::parse(created_at, &time::format_description::well_known::Rfc3339)
        .unwrap();
    let fields: Vec<_> = item.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["id", "name", "description", "created_at"]);

    assert_eq!(answer.header("etag"), Some("\"1\""));

    let found = server.get(answer.header("location").unwrap());
    assert_eq!(found.header("etag"), Some("\"1\""));
    assert_eq!((found.status, found.json()), (200, item));
}

#[tokio::test]
async fn an_absent_and_a_null_description_are_the_same() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    for body in [
        json!({"name": "n"}),
        json!({"name": "n", "description": null}),
    ] {
        let answer = server.post("/items", body.to_string());
        assert_eq!(
            (answer.status, &answer.json()["description"]),
            (201, &json!(null))
        );
    }
}

#[tokio::test]
async fn list_items_is_newest_first_and_bounded() {
    let database = postgres::shared().database().await;
    // What is stored behind its back is seen at once only without a cache.
    let server = TestServer::start(&format!("{}[cache]\nseconds = 0\n", database.config()));
    assert_eq!(server.get("/items").json(), json!([]));
    let session = database.session().await;
    session
        .batch_execute(
            "INSERT INTO items (id, name, created_at)
             SELECT gen_random_uuid(), n::text, now() + n * interval '1 second' FROM generate_series(1, 205) n",
        )
        .await
        .unwrap();
    let names = |path: &str| -> Vec<u32> {
        let items = server.get(path).json();
        items
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["name"].as_str().unwrap().parse().unwrap())
            .collect()
    };
    assert_eq!(names("/items"), (156..=205).rev().collect::<Vec<_>>());
    assert_eq!(names("/items?limit=3"), [205, 204, 203]);
    assert_eq!(names("/items?limit=200").len(), 200);
    for limit in ["0", "201", "-1", "many", "", "1.5", "99999999999"] {
        let detail = server.get(&format!("/items?limit={limit}")).problem(400);
        assert!(detail.contains("limit"), "{detail}");
    }
}

#[tokio::test]
async fn find_item_answers_404_for_an_unknown_id_and_400_for_what_is_none() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    let id = "00000000-0000-0000-0000-000000000000";
    assert!(
        server
            .get(&format!("/items/{id}"))
            .problem(404)
            .contains(id)
    );
    for bad in [
        "7",
        "not-an-id",
        "00000000-0000-0000-0000-00000000000g",
        "%00",
    ] {
        let detail = server.get(&format!("/items/{bad}")).problem(400);
        assert!(detail.contains("The id in the path"), "{detail}");
    }
}

#[tokio::test]
async fn field_limits_count_characters_and_are_enforced() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    let create = |name: &str, description: &str| {
        server.post(
            "/items",
            json!({"name": name, "description": description}).to_string(),
        )
    };
    assert_eq!(create(&"ü".repeat(200), &"🙂".repeat(4000)).status, 201);
    assert_eq!(create("n", "").status, 201);
    assert!(create("", "").problem(400).contains("name"));
    assert!(create(&"n".repeat(201), "").problem(400).contains("name"));
    assert!(
        create("n", &"d".repeat(4001))
            .problem(400)
            .contains("description")
    );
    create("a\0b", "").problem(400);
    create("n", "a\0b").problem(400);
}

#[tokio::test]
async fn strings_must_be_strings_and_fields_must_be_known() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&database.config());
    for body in [
        json!({"name": 1}),
        json!({"name": true}),
        json!({"name": null}),
        json!({"name": ["n"]}),
        json!({"name": {"n": 1}}),
        json!({"name": "n", "description": 1}),
        json!({"description": "no name"}),
        json!({"name": "n", "colour": "red"}),
        json!([]),
        json!("n"),
        json!(null),
    ] {
        server.post("/items", body.to_string()).problem(400);
    }
    assert_eq!(
        server.get("/items").json(),
        json!([]),
        "something refused was stored"
    );
}
