//! Tables of the README that are made from what they describe.

use std::path::Path;

/// Written anew instead of compared if the environment has this variable.
const RENEW: &str = "DRAWBRIDGE_RENEW";

/// Fails unless the README's table below `heading` (two lines, each with its line end) has exactly `rows`.
pub(crate) fn assert_shows(heading: &str, rows: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let begin = readme.find(heading).unwrap() + heading.len();
    let shown: String = readme[begin..]
        .split_inclusive('\n')
        .take_while(|line| line.starts_with('|'))
        .collect();
    if std::env::var_os(RENEW).is_some() {
        let rest = &readme[begin + shown.len()..];
        std::fs::write(&path, [&readme[..begin], rows, rest].concat()).unwrap();
        return;
    }
    assert_eq!(
        shown, rows,
        "README.md shows another table; write it anew with `{RENEW}=1 cargo test the_readme_shows -- --test-threads=1`"
    );
}
