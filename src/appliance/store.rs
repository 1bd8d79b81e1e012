//! Paths of the Nix store and the lists of them that make a system, as operator and host speak of them.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where every path is, on every host.
pub const STORE: &str = "/nix/store";
/// Base-32 characters before the first dash of a path's name.
const HASH_LENGTH: usize = 32;
/// Nix's own limit for a path's name, hash and dash included.
pub const LONGEST_NAME: usize = 211 + HASH_LENGTH + 1;
/// A system has some 600 paths; a list above this is not one.
const MOST_PATHS: usize = 50_000;

/// A path directly below [`STORE`], written whole: `/nix/store/HASH-NAME`. It can name nothing outside of the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StorePath(String);

impl StorePath {
    /// `HASH-NAME`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0[STORE.len() + 1..]
    }

    /// The whole path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path with this `HASH-NAME`.
    ///
    /// # Errors
    /// [`NotAStorePath`].
    pub fn named(name: &str) -> Result<Self, NotAStorePath> {
        let not = || NotAStorePath(name.chars().take(80).collect());
        let (hash, rest) = name.split_at_checked(HASH_LENGTH).ok_or_else(not)?;
        let hash_is_one = hash
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let rest = rest.strip_prefix('-').ok_or_else(not)?;
        let rest_is_one = !rest.is_empty()
            && rest
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"+-._?=".contains(&b));
        if hash_is_one && rest_is_one && name.len() <= LONGEST_NAME {
            Ok(Self(format!("{STORE}/{name}")))
        } else {
            Err(not())
        }
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is not a path of the store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a path of the store: expected /nix/store/ with 32 characters, a dash and a name"
)]
pub struct NotAStorePath(String);

impl FromStr for StorePath {
    type Err = NotAStorePath;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.strip_prefix(STORE).and_then(|t| t.strip_prefix('/'));
        Self::named(name.unwrap_or(text)).and_then(|path| match name {
            Some(_) => Ok(path),
            None => Err(NotAStorePath(text.chars().take(80).collect())),
        })
    }
}

impl TryFrom<String> for StorePath {
    type Error = NotAStorePath;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<StorePath> for String {
    fn from(path: StorePath) -> Self {
        path.0
    }
}

/// SHA-256 of a path's archive (NAR), written in lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NarHash(pub [u8; 32]);

impl fmt::Display for NarHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NarHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl TryFrom<String> for NarHash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const WRONG: &str = "expected a SHA-256 in 64 hexadecimal digits";
        let mut hash = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(WRONG);
        }
        for (i, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| WRONG)?;
        }
        Ok(Self(hash))
    }
}

impl From<NarHash> for String {
    fn from(hash: NarHash) -> Self {
        hash.to_string()
    }
}

/// One path of a closure, and what its archive has to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosurePath {
    /// The path.
    pub path: StorePath,
    /// Hash of its archive.
    pub nar_hash: NarHash,
    /// Length of its archive, in bytes.
    pub nar_size: u64,
}

/// Everything a system needs to run: what is copied to a host, and kept there as long as the system is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Closure {
    toplevel: StorePath,
    paths: Vec<ClosurePath>,
}

#[derive(Deserialize)]
struct Unchecked {
    toplevel: StorePath,
    paths: Vec<ClosurePath>,
}

/// A list of paths is not that of a system.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say everything")]
pub enum NotAClosure {
    #[error("{0} is not among the paths of its own closure")]
    NoToplevel(StorePath),
    #[error("{0} is listed twice")]
    Twice(StorePath),
    #[error("{0} paths are more than a system has")]
    TooMany(usize),
}

impl Closure {
    /// The system at `toplevel` and all it needs, itself included.
    ///
    /// # Errors
    /// [`NotAClosure`].
    pub fn new(toplevel: StorePath, mut paths: Vec<ClosurePath>) -> Result<Self, NotAClosure> {
        if paths.len() > MOST_PATHS {
            return Err(NotAClosure::TooMany(paths.len()));
        }
        paths.sort_by(|a, b| a.path.cmp(&b.path));
        if let Some(pair) = paths.windows(2).find(|pair| pair[0].path == pair[1].path) {
            return Err(NotAClosure::Twice(pair[0].path.clone()));
        }
        if !paths.iter().any(|one| one.path == toplevel) {
            return Err(NotAClosure::NoToplevel(toplevel));
        }
        Ok(Self { toplevel, paths })
    }

    /// The system itself.
    #[must_use]
    pub fn toplevel(&self) -> &StorePath {
        &self.toplevel
    }

    /// Every path, sorted.
    #[must_use]
    pub fn paths(&self) -> &[ClosurePath] {
        &self.paths
    }

    /// Those of its paths that are in `names`, in order.
    #[must_use]
    pub fn only(&self, names: &BTreeSet<StorePath>) -> Vec<&ClosurePath> {
        let wanted = self.paths.iter().filter(|one| names.contains(&one.path));
        wanted.collect()
    }
}

impl TryFrom<Unchecked> for Closure {
    type Error = NotAClosure;

    fn try_from(given: Unchecked) -> Result<Self, Self::Error> {
        Self::new(given.toplevel, given.paths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "0c3s5hivb3j5p5sbzk6dlmf9jjlpaw1i";

    #[test]
    fn only_what_is_directly_below_the_store_is_a_store_path() {
        let good = format!("/nix/store/{HASH}-nixos-system-backend-26.05");
        let path: StorePath = good.parse().unwrap();
        assert_eq!(path.as_str(), good);
        assert_eq!(path.name(), &good[11..]);
        for wrong in [
            "",
            "/nix/store/",
            &format!("/nix/store/{HASH}"),
            &format!("/nix/store/{HASH}-"),
            &format!("/nix/store/{HASH}-a/b"),
            &format!("/nix/store/{HASH}-a\n"),
            &format!("/nix/store/../{HASH}-a"),
            &format!("/nix/store/{}-a", "A".repeat(32)),
            &format!("/nix/storex/{HASH}-a"),
            &format!("{HASH}-a"),
            &format!("/nix/store/{HASH}-{}", "a".repeat(300)),
            "/nix/store/ääääääääääääääää-a",
        ] {
            assert!(wrong.parse::<StorePath>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_closure_holds_its_toplevel_and_no_path_twice() {
        let path = |name: &str| ClosurePath {
            path: StorePath::named(&format!("{HASH}-{name}")).unwrap(),
            nar_hash: NarHash([7; 32]),
            nar_size: 120,
        };
        let (a, b) = (path("a"), path("b"));
        let closure = Closure::new(a.path.clone(), vec![b.clone(), a.clone()]).unwrap();
        assert_eq!(closure.paths()[0], a);
        let text = serde_json::to_string(&closure).unwrap();
        assert_eq!(serde_json::from_str::<Closure>(&text).unwrap(), closure);
        assert!(matches!(
            Closure::new(a.path.clone(), vec![b.clone()]),
            Err(NotAClosure::NoToplevel(_))
        ));
        assert!(matches!(
            Closure::new(a.path.clone(), vec![a.clone(), b, a]),
            Err(NotAClosure::Twice(_))
        ));
        // The same holds for one that is read.
        let wrong = text.replace(&format!("{HASH}-b"), &format!("{HASH}-a"));
        assert!(serde_json::from_str::<Closure>(&wrong).is_err());
        let wrong = text.replace("0707", "07zz");
        assert!(serde_json::from_str::<Closure>(&wrong).is_err());
    }
}
