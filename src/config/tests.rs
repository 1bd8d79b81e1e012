use std::{collections::BTreeSet, fs, path::PathBuf};

use super::*;
use crate::appliance::Secret;

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    fs::write(&path, text).unwrap();
    (folder, path)
}

fn refusal(text: &str) -> String {
    let (_folder, path) = file(text);
    Config::load_from(Some(&path), None)
        .unwrap_err()
        .to_string()
}

#[test]
fn every_key_has_a_documented_shape_and_every_shape_a_key() {
    let mut config = Config::default();
    config.database.password_file = Some("/p".into());
    config.database.ca_file = Some("/c".into());
    config.metrics.listen = Some(config.http.listen);
    let value = serde_json::to_value(&config).unwrap();
    let keys: BTreeSet<String> = value
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(section, keys)| {
            keys.as_object()
                .unwrap()
                .keys()
                .map(move |key| format!("{section}.{key}"))
        })
        .collect();
    let documented: BTreeSet<String> = key::keys().map(|key| key.name.to_owned()).collect();
    assert_eq!(keys, documented);
}

#[test]
fn the_readme_shows_every_key() {
    let reference = reference();
    let heading_ends = reference.match_indices('\n').nth(1).unwrap().0 + 1;
    let (heading, rows) = reference.split_at(heading_ends);
    crate::readme::assert_shows(heading, rows);
}

#[test]
fn a_file_overrides_the_defaults_it_names_and_no_others() {
    let (_folder, path) = file("[http]\nlisten = \"0.0.0.0:9000\"\n[log]\nformat = \"text\"\n");
    let config = Config::load_from(Some(&path), None).unwrap();
    assert_eq!(config.http.listen.to_string(), "0.0.0.0:9000");
    assert_eq!(config.http.request_timeout_seconds, 10);
    assert_eq!(config.log.format, LogFormat::Text);
}

#[test]
fn a_wrong_value_is_named_with_its_key_its_file_and_the_shape_it_should_have() {
    let text = refusal("[http]\nrequest_timeout_seconds = \"soon\"\n");
    assert!(text.contains("http.request_timeout_seconds"), "{text}");
    assert!(text.contains("config.toml"), "{text}");
    assert!(text.contains("whole seconds from 1 to 300"), "{text}");
    assert!(!text.contains("soon"), "a value is shown: {text}");
}

#[test]
fn values_out_of_range_are_refused() {
    for (text, key) in [
        (
            "[http]\nrequest_timeout_seconds = 0",
            "http.request_timeout_seconds",
        ),
        ("[http]\nbody_limit_bytes = 10", "http.body_limit_bytes"),
        ("[http]\nlisten = \"localhost\"", "http.listen"),
        ("[database]\nport = 70000", "database.port"),
        ("[database]\nport = 0", "database.port"),
        ("[database]\npool_size = 0", "database.pool_size"),
        ("[database]\nhost = \"\"", "database.host"),
        (
            "[database]\nhost = \"/run\"\nca_file = \"/ca\"",
            "database.ca_file",
        ),
        (
            "[database]\nstatement_timeout_seconds = 10",
            "database.statement_timeout_seconds",
        ),
        ("[cache]\nsize_bytes = 1", "cache.size_bytes"),
        (
            "[cache]\nvalkey_url = \"http://127.0.0.1\"",
            "cache.valkey_url",
        ),
        (
            "[cache]\nvalkey_url = \"rediss://127.0.0.1\"",
            "cache.valkey_url",
        ),
        ("[log]\nfilter = \"drawbridge=loud\"", "log.filter"),
        ("[log]\nformat = \"xml\"", "log.format"),
    ] {
        let message = refusal(text);
        assert!(
            message.contains(&format!("configuration key {key}")),
            "{text}: {message}"
        );
        assert!(message.contains("it takes"), "{text}: {message}");
    }
}

#[test]
fn an_unknown_key_is_refused_with_the_one_that_was_meant_and_those_there_are() {
    let text = refusal("[http]\nlissen = \"127.0.0.1:1\"\n");
    assert!(
        text.contains("http.lissen")
            && text.contains("did you mean http.listen?")
            && text.contains("body_limit_bytes"),
        "{text}"
    );
}

#[test]
fn a_password_in_the_file_is_refused_without_showing_it() {
    for text in [
        "[database]\npassword = \"planted-secret\"\n",
        "[database]\npassword = planted-secret\n",
        "database = \"postgres://drawbridge:planted-secret@db\"\n",
        "[database]\nport = \"planted-secret\"\n",
        "[cache]\nvalkey_password = \"planted-secret\"\n",
        "[cache]\nvalkey_url = \"redis://:planted-secret@localhost\"\n",
        "[cache]\nvalkey_url = \"redis://planted-secret:planted-secret@localhost\"\n",
        "[cache]\nvalkey_url = \"unix:///socket?pass=planted-secret\"\n",
        "[cache]\nvalkey_url = \"planted-secret@localhost\"\n",
    ] {
        let message = refusal(text);
        assert!(!message.contains("planted-secret"), "{message}");
    }
    assert!(refusal("[database]\npassword = \"x\"\n").contains("database.password_file"));
    for text in ["valkey_password = \"x\"", "valkey_url = \"redis://:x@h\""] {
        let message = refusal(&format!("[cache]\n{text}\n"));
        assert!(message.contains("cache.valkey_password_file"), "{message}");
    }
}

#[test]
fn a_named_file_must_exist_and_the_default_one_need_not() {
    let message = Config::load_from(Some(Path::new("/nowhere/config.toml")), None)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("/nowhere/config.toml") && message.contains("--config"),
        "{message}"
    );
    Config::load_from(None, None).unwrap();
}

#[test]
fn a_password_is_taken_literally_and_the_credential_wins_over_the_file() {
    for secret in ["12345", "0123", "true", "[x", " spaces kept ", "ünïcode"] {
        let folder = tempfile::tempdir().unwrap();
        let named = folder.path().join("named");
        fs::write(&named, format!("{secret}\n")).unwrap();
        let (_file, path) = file(&format!("[database]\npassword_file = {named:?}\n"));
        let config = Config::load_from(Some(&path), Some(folder.path())).unwrap();
        assert_eq!(config.database.password.unwrap().expose(), secret);

        fs::write(folder.path().join(PASSWORD_CREDENTIAL), "from-systemd").unwrap();
        let config = Config::load_from(Some(&path), Some(folder.path())).unwrap();
        assert_eq!(config.database.password.unwrap().expose(), "from-systemd");
    }
}

#[test]
fn a_password_file_that_is_missing_empty_or_not_a_password_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let named = folder.path().join("named");
    let (_file, path) = file(&format!("[database]\npassword_file = {named:?}\n"));
    let mut cases: Vec<(Option<Vec<u8>>, &str)> = vec![(None, "cannot be read")];
    cases.push((Some(b"\n".to_vec()), "is empty"));
    cases.push((Some(b"planted\nsecret\n".to_vec()), "more than one line"));
    cases.push((Some(vec![b'p'; 2000]), "longer than"));
    cases.push((Some(vec![0xff, 0xfe]), "not UTF-8"));
    for (content, problem) in cases {
        if let Some(content) = content {
            fs::write(&named, content).unwrap();
        }
        let message = Config::load_from(Some(&path), None)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("database.password_file") && message.contains(problem),
            "{message}"
        );
        assert!(
            message.contains("named") && !message.contains("planted"),
            "{message}"
        );
    }
}

#[test]
fn a_password_never_shows_itself() {
    let settings = DatabaseSettings {
        password: Some(Secret::new("planted-secret")),
        ..DatabaseSettings::default()
    };
    let shown = format!(
        "{settings:?} {} {:?}",
        settings.address(),
        Secret::new("planted-secret")
    );
    assert!(!shown.contains("planted-secret"), "{shown}");
    assert!(
        !serde_json::to_string(&settings)
            .unwrap()
            .contains("planted-secret")
    );
}
