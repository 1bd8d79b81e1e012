//! Passwords: taken literally from a file, never shown.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use super::ConfigError;
use crate::appliance::Secret;

/// Longer than any password Postgres' tools make; a larger file is some other file.
const LIMIT_BYTES: u64 = 1024;

/// The credential if systemd passed one, else the named file, else none.
pub(super) fn find(
    credential_name: &'static str,
    credential: Option<PathBuf>,
    key: &'static str,
    file: Option<&Path>,
) -> Result<Option<Secret>, ConfigError> {
    if let Some(path) = credential
        && path.exists()
    {
        return read(credential_name, path).map(Some);
    }
    match file {
        Some(path) => read(key, path.to_owned()).map(Some),
        None => Ok(None),
    }
}

fn read(origin: &'static str, path: PathBuf) -> Result<Secret, ConfigError> {
    parse(&path).map_err(|problem| ConfigError::Password {
        origin,
        path,
        problem,
    })
}

fn parse(path: &Path) -> Result<Secret, String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(LIMIT_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > LIMIT_BYTES {
        return Err(format!("is longer than {LIMIT_BYTES} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?;
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.is_empty() {
        return Err("is empty".to_owned());
    }
    if secret.contains(['\n', '\r', '\0']) {
        return Err("has more than one line or a NUL byte".to_owned());
    }
    Ok(Secret::new(secret))
}
