use std::{fs, path::PathBuf};

use crate::support::server::host;

/// A configuration file in a folder of its own.
pub fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    fs::write(&path, text).unwrap();
    (folder, path)
}

fn refusal(text: &str, variables: &[(&str, &str)]) -> String {
    let (_folder, path) = file(text);
    let output = host(&path)
        .arg("serve")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.lines().count(), 1, "more than one line: {text}");
    text
}

#[test]
fn an_error_in_a_variable_names_the_key_and_the_variables() {
    let text = refusal(
        "",
        &[("DRAWBRIDGE_HTTP__REQUEST_TIMEOUT_SECONDS", "planted-soon")],
    );
    assert!(
        text.contains("http.request_timeout_seconds") && text.contains("environment"),
        "{text}"
    );
    assert!(
        text.contains("whole seconds") && !text.contains("planted"),
        "{text}"
    );
}

#[test]
fn an_unknown_key_is_refused_in_the_file_and_in_the_environment() {
    assert!(refusal("[http]\nlissen = 1\n", &[]).contains("http.lissen"));
    assert!(refusal("", &[("DRAWBRIDGE_HTTP__LISSEN", "1")]).contains("http.lissen"));
    assert!(refusal("", &[("DRAWBRIDGE_HTPP__LISTEN", "1")]).contains("htpp"));
}

#[test]
fn a_password_in_a_variable_is_refused_and_not_shown() {
    let text = refusal("", &[("DRAWBRIDGE_DATABASE__PASSWORD", "planted-secret")]);
    assert!(
        text.contains("database.password_file") && !text.contains("planted"),
        "{text}"
    );
}

#[test]
fn a_missing_named_file_a_broken_one_and_a_taken_port_are_one_line_each() {
    assert!(refusal("[http\n", &[]).contains("config.toml"));
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let text = refusal("", &[("DRAWBRIDGE_HTTP__LISTEN", &address)]);
    assert!(
        text.contains(&address) && text.contains("http.listen"),
        "{text}"
    );
    let text = refusal("", &[("DRAWBRIDGE_CONFIG", "/nowhere/config.toml")]);
    assert!(text.contains("/nowhere/config.toml"), "{text}");
}
