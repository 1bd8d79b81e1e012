//! What this program was built from and by what, as far as it knows.

use std::{fs, sync::LazyLock};

/// The version in `Cargo.toml`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Said of what nobody said.
const UNKNOWN: &str = "unknown";

/// The file with the commit, from the folder above the program's: nixos/stamped.nix writes it beside the finished
/// program, so that a commit that changes no source file compiles nothing.
const STAMP: &str = "share/drawbridge/commit";

/// The git commit it was built from, with `-dirty` at its end where the tree had changes; `None`: whoever built it did
/// not say.
pub fn commit() -> Option<&'static str> {
    static COMMIT: LazyLock<Option<String>> = LazyLock::new(|| {
        let program = std::env::current_exe().ok()?;
        let stamp = program.parent()?.parent()?.join(STAMP);
        parse_commit(&fs::read_to_string(stamp).ok()?)
    });
    COMMIT.as_deref()
}

/// Anything else than a commit is not repeated to clients.
fn parse_commit(text: &str) -> Option<String> {
    let commit = text.trim_end();
    let digits = commit.strip_suffix("-dirty").unwrap_or(commit);
    let is_one = (7..=64).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    is_one.then(|| commit.to_owned())
}

/// What built it, and with which profile: `nix/release`, `cargo/debug`.
pub fn build() -> &'static str {
    // nixos/package.nix sets it.
    match (
        option_env!("DRAWBRIDGE_BUILT_BY_NIX"),
        cfg!(debug_assertions),
    ) {
        (Some(_), false) => "nix/release",
        (Some(_), true) => "nix/debug",
        (None, false) => "cargo/release",
        (None, true) => "cargo/debug",
    }
}

/// For `--version`: `0.1.0 (commit 0123abc, nix/release)`.
pub fn line() -> &'static str {
    static LINE: LazyLock<String> = LazyLock::new(|| {
        let commit = commit().unwrap_or(UNKNOWN);
        format!("{VERSION} (commit {commit}, {})", build())
    });
    &LINE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_commit_is_taken_for_one() {
        let full = "0123456789abcdef0123456789abcdef01234567";
        for commit in [full, "0123abc", &format!("{full}-dirty")] {
            assert_eq!(
                parse_commit(&format!("{commit}\n")).as_deref(),
                Some(commit)
            );
        }
        for other in [
            "",
            "main",
            "0123ab",
            "-dirty",
            "0123abc dirty",
            "<b>0123abc</b>",
        ] {
            assert_eq!(parse_commit(other), None, "{other}");
        }
    }
}
