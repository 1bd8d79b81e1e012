//! `nix path-info --json --recursive`, in the shapes that Nix has given it: a list of paths until 2.18, a map by path since
//! 2.19, and a map by name below `info` since 2.33.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

use crate::appliance::store::{
    Closure, ClosurePath, NarHash, NotAClosure, NotAStorePath, StorePath,
};

/// Nix's own alphabet for base 32, which leaves out e, o, t and u.
const BASE_32: &[u8] = b"0123456789abcdfghijklmnpqrsvwxyz";

/// The text is no list of paths.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say everything")]
pub enum PathInfoError {
    #[error("not the JSON of `nix path-info --json --recursive`")]
    Json(#[from] serde_json::Error),
    #[error("neither a list nor a map of paths, which `nix path-info --json --recursive` prints")]
    Shape,
    #[error(transparent)]
    Path(#[from] NotAStorePath),
    #[error("{0} is not valid in the store it was asked of: build it again")]
    Invalid(String),
    #[error("{path}: narHash is {hash:?}, not a SHA-256 as Nix writes it")]
    Hash { path: StorePath, hash: String },
    #[error(
        "not one system but {0}: list one with everything it refers to (`--recursive`), and nothing else"
    )]
    NotOne(usize),
    #[error(transparent)]
    Closure(#[from] NotAClosure),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    path: Option<String>,
    nar_hash: Value,
    nar_size: u64,
    #[serde(default)]
    references: Vec<String>,
}

/// Reads the text. The system is the one path that no other refers to.
///
/// # Errors
/// [`PathInfoError`]
pub fn parse(text: &str) -> Result<Closure, PathInfoError> {
    let given: Value = serde_json::from_str(text)?;
    let entries: Vec<(Option<String>, Value)> = match given {
        Value::Array(list) => list.into_iter().map(|info| (None, info)).collect(),
        Value::Object(mut map) => {
            let map = match map.remove("info") {
                Some(Value::Object(inner)) => inner,
                _ => map,
            };
            map.into_iter()
                .map(|(path, info)| (Some(path), info))
                .collect()
        }
        _ => return Err(PathInfoError::Shape),
    };
    let mut paths = Vec::new();
    let mut referred = BTreeSet::new();
    for (key, info) in entries {
        if info.is_null() || info.get("valid") == Some(&Value::Bool(false)) {
            let named = key.or_else(|| Some(info.get("path")?.as_str()?.to_owned()));
            return Err(PathInfoError::Invalid(named.unwrap_or_default()));
        }
        let info: Info = serde_json::from_value(info)?;
        let path = path(&key.or(info.path).ok_or(PathInfoError::Shape)?)?;
        for reference in &info.references {
            let reference = self::path(reference)?;
            if reference != path {
                referred.insert(reference);
            }
        }
        let nar_hash = hash(&info.nar_hash).ok_or_else(|| PathInfoError::Hash {
            path: path.clone(),
            hash: info.nar_hash.to_string(),
        })?;
        paths.push(ClosurePath {
            path,
            nar_hash,
            nar_size: info.nar_size,
        });
    }
    let tops: Vec<&ClosurePath> = paths
        .iter()
        .filter(|one| !referred.contains(&one.path))
        .collect();
    let [top] = tops.as_slice() else {
        return Err(PathInfoError::NotOne(tops.len()));
    };
    Ok(Closure::new(top.path.clone(), paths.clone())?)
}

/// Whole, or only the name.
fn path(text: &str) -> Result<StorePath, NotAStorePath> {
    match text.starts_with('/') {
        true => text.parse(),
        false => StorePath::named(text),
    }
}

/// `sha256-` with base 64, `sha256:` with base 32 or 16, or an object with the parts apart.
fn hash(value: &Value) -> Option<NarHash> {
    let (kind, text) = match value {
        Value::String(text) => text.split_once(['-', ':'])?,
        Value::Object(parts) => (
            parts.get("algorithm")?.as_str()?,
            parts.get("hash")?.as_str()?,
        ),
        _ => return None,
    };
    if kind != "sha256" {
        return None;
    }
    match text.len() {
        44 => {
            use base64::Engine as _;
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(text)
                .ok()?;
            Some(NarHash(bytes.try_into().ok()?))
        }
        52 => base_32(text.as_bytes()),
        64 => NarHash::try_from(text.to_lowercase()).ok(),
        _ => None,
    }
}

/// Nix writes it from the last bits to the first.
fn base_32(text: &[u8]) -> Option<NarHash> {
    let mut hash = [0_u8; 32];
    for (n, character) in text.iter().rev().enumerate() {
        let digit = BASE_32.iter().position(|one| one == character)?;
        let (byte, shift) = (n * 5 / 8, n * 5 % 8);
        let bits = u16::try_from(digit).ok()? << shift;
        let [low, high] = bits.to_le_bytes();
        hash[byte] |= low;
        match hash.get_mut(byte + 1) {
            Some(next) => *next |= high,
            None if high == 0 => {}
            None => return None,
        }
    }
    Some(NarHash(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "/nix/store/0c3s5hivb3j5p5sbzk6dlmf9jjlpaw1i-system";
    const B: &str = "/nix/store/1c3s5hivb3j5p5sbzk6dlmf9jjlpaw1i-lib";
    // `nix-hash --type sha256 --to-…` of the hash of nothing.
    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const SRI: &str = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    const NIX: &str = "sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73";

    #[test]
    fn every_shape_that_nix_has_printed_is_the_same_closure() {
        let list = format!(
            r#"[{{"path":"{B}","narHash":"{NIX}","narSize":8,"references":["{B}"],"valid":true}},
                {{"path":"{A}","narHash":"{SRI}","narSize":16,"references":["{A}","{B}"],"valid":true}}]"#
        );
        let map = format!(
            r#"{{"{A}":{{"narHash":"{SRI}","narSize":16,"references":["{B}"],"ca":null}},
                "{B}":{{"narHash":"sha256:{HEX}","narSize":8,"references":[]}}}}"#
        );
        let (a, b) = (&A[11..], &B[11..]);
        let named = format!(
            r#"{{"version":2,"storeDir":"/nix/store","info":{{"{a}":{{"narHash":"{SRI}","narSize":16,"references":["{b}"]}},
                "{b}":{{"narHash":{{"algorithm":"sha256","format":"base64","hash":"{}"}},"narSize":8,"references":[]}}}}}}"#,
            &SRI[7..]
        );
        let closure = parse(&list).unwrap();
        assert_eq!(closure.toplevel().as_str(), A);
        assert_eq!(closure.paths().len(), 2);
        for one in closure.paths() {
            assert_eq!(one.nar_hash.to_string(), HEX, "{}", one.path);
        }
        assert_eq!(parse(&map).unwrap(), closure);
        assert_eq!(parse(&named).unwrap(), closure);
    }

    #[test]
    fn what_is_no_closure_of_one_system_is_refused() {
        let one = |path: &str, hash: &str| {
            format!(r#"{{"{path}":{{"narHash":"{hash}","narSize":8,"references":[]}}}}"#)
        };
        for (text, words) in [
            ("nothing".to_owned(), "not the JSON"),
            ("3".to_owned(), "neither a list nor a map"),
            ("[]".to_owned(), "not one system but 0"),
            (one("/etc/passwd", SRI), "not a path of the store"),
            (one(A, "sha1-abc"), "narHash"),
            (one(A, "sha256-short"), "narHash"),
            (format!(r#"{{"{A}":null}}"#), "is not valid"),
            (
                format!(
                    r#"[{{"path":"{A}","narHash":"{SRI}","narSize":8}},{{"path":"{B}","narHash":"{SRI}","narSize":8}}]"#
                ),
                "not one system but 2",
            ),
        ] {
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
