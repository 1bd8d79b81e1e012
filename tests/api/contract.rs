//! The published contract against what the server does, by tools that know the document and nothing else: an
//! independent validator, schemathesis, and a generated Python client.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{Outcome, postgres, repository, run, server::TestServer};

/// Many times what any of the tools takes here, for a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(600);

/// What schemathesis draws its requests from, so that a failure comes again.
const SEED: &str = "20261121";

/// A program of the environment that `install_contract_tools` makes, in a folder of its own.
pub(super) fn tool(folder: &Path, arguments: &[&str]) -> Command {
    let python = repository().join(".drawbridge/contract/bin/python");
    assert!(
        python.exists(),
        "{} is missing: run scripts/test, which installs it",
        python.display()
    );
    let mut command = Command::new(python);
    command
        .args(["-B", "-W", "error::SyntaxWarning"])
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("HOME", folder)
        .env("PATH", "/usr/bin:/bin")
        .env("PYTHONUTF8", "1");
    command
}

fn file(name: &str) -> String {
    let path = repository().join("tests/api/contract").join(name);
    path.to_str().unwrap().to_owned()
}

fn committed() -> Value {
    let path = repository().join("tests/snapshots/openapi.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn validate(document: &Value) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("openapi.json"), document.to_string()).unwrap();
    run(
        &mut tool(folder.path(), &[&file("validate.py"), "openapi.json"]),
        LIMIT,
    )
}

#[test]
fn the_document_is_valid_and_every_example_fits_its_schema() {
    let said = validate(&committed()).expect_success("the validator");
    let examples: usize = said.split(' ').next().unwrap().parse().unwrap();
    assert!(examples > 20, "only {said}");
}

#[test]
fn an_invalid_document_and_a_wrong_example_are_found() {
    let plants = [
        (
            "/paths/~1items/post/requestBody/required",
            json!("yes"),
            "is not valid under any",
        ),
        (
            "/components/schemas/Item/properties/name/type",
            json!("text"),
            "components/schemas/Item",
        ),
        (
            "/paths/~1items/post/responses/201/content/application~1json/example/created_at",
            json!("yesterday"),
            "the example is not valid: 'yesterday' is not a 'date-time'",
        ),
        (
            "/paths/~1items/post/requestBody/content/application~1json/example/name",
            json!(""),
            "the example is not valid",
        ),
        (
            "/components/responses/ServiceUnavailable/headers/Retry-After/$ref",
            json!("#/components/headers/Later"),
            "there is no #/components/headers/Later",
        ),
    ];
    for (place, planted, expected) in plants {
        let mut document = committed();
        *document.pointer_mut(place).unwrap() = planted;
        let outcome = validate(&document);
        assert_ne!(outcome.code, Some(0), "{place}");
        assert!(outcome.text.contains(expected), "{place}: {}", outcome.text);
    }
}

/// Who signs in for schemathesis.
const EMAIL: &str = "schemathesis@example.org";
const PASSWORD: &str = "twelve or more characters";

#[tokio::test]
async fn schemathesis_finds_nothing() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&signed_in(&database.config()));
    let profile = json!({"name": "Schemathesis", "email": EMAIL, "password": PASSWORD});
    let answer = server.post("/auth/register", profile.to_string());
    assert_eq!(answer.status, 201, "{answer:?}");
    // So that nothing is out of reach.
    let promote = "UPDATE profiles SET role = 'admin'";
    let promoted = database.session().await.execute(promote, &[]).await;
    assert_eq!(promoted.unwrap(), 1);

    let url = format!("http://{}", server.address());
    let folder = tempfile::tempdir().unwrap();
    let outcome = run(
        tool(folder.path(), &["-m", "schemathesis.cli"])
            .args(["--config-file", &file("schemathesis.toml"), "run"])
            .args(["--checks", "all", "--max-examples", "12", "--seed", SEED])
            // Its guesses about how often an operation should succeed.
            .args(["--warnings", "off"])
            .arg(format!("{url}/openapi.json"))
            .env("SCHEMATHESIS_HOOKS", file("hooks.py"))
            .envs([
                ("DRAWBRIDGE_URL", url.as_str()),
                ("DRAWBRIDGE_EMAIL", EMAIL),
                ("DRAWBRIDGE_PASSWORD", PASSWORD),
            ]),
        LIMIT,
    );
    let said = end_of(&outcome.text);
    assert_eq!(outcome.code, Some(0), "{said}");
    let document = committed();
    let operations = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .map(|path| path.as_object().unwrap().len())
        .sum::<usize>();
    assert!(
        said.contains(&format!("Tested: {operations}\n")) && said.contains("No issues found"),
        "of {operations} operations:\n{said}"
    );
    // What a server logs as an error is one, whatever it answered.
    let errors: Vec<Value> = server
        .events()
        .into_iter()
        .filter(|event| event["level"] == "ERROR")
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
}

/// Writes need a session, and nobody is told to wait for having tried too often.
fn signed_in(database: &str) -> String {
    format!(
        "[auth]\nanonymous_writes = false\nhash_concurrency = 64\nfailures_per_account = 1000000\n\
         failures_per_address = 1000000\nregistrations_per_address = 1000000\n\n{database}"
    )
}

#[tokio::test]
async fn a_generated_client_compiles_and_works() {
    let database = postgres::shared().database().await;
    let server = TestServer::start(&signed_in(&database.config()));
    let folder = tempfile::tempdir().unwrap();
    let document = folder.path().join("openapi.json");
    fs::write(&document, server.get("/openapi.json").body).unwrap();

    let mut generate = tool(folder.path(), &["-m", "openapi_python_client", "generate"]);
    let said = run(
        generate
            .args(["--path", "openapi.json", "--output-path", "generated"])
            .args(["--config", &file("client.yml"), "--fail-on-warning"]),
        LIMIT,
    );
    let text = said.text.clone();
    said.expect_success("openapi-python-client");
    assert!(!text.to_lowercase().contains("warning"), "{text}");

    let generated = folder.path().join("generated");
    run(
        &mut tool(&generated, &["-m", "compileall", "-q", "."]),
        LIMIT,
    )
    .expect_success("compileall");
    run(
        &mut tool(&generated, &["-m", "mypy", "drawbridge_client"]),
        LIMIT,
    )
    .expect_success("mypy");

    let smoke = PathBuf::from(file("smoke.py"));
    let mut smoke = tool(&generated, &[smoke.to_str().unwrap()]);
    smoke
        .arg(format!("http://{}", server.address()))
        .env("PYTHONPATH", &generated);
    run(&mut smoke, LIMIT).expect_success("the smoke test");
}

/// How a long text ends, which is where a tool sums up.
fn end_of(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(120)..].join("\n") + "\n"
}
