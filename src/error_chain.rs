//! An error with everything that caused it, on one line: what logs, reports and proofs show.

use std::error::Error;

/// The error's text and those of its causes, joined by `: `.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let part = inner.to_string();
        // Some libraries print their source in their own text; said once is enough.
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        #[source]
        source: Option<Box<Link>>,
    }

    fn link(text: &'static str, source: Option<Link>) -> Link {
        Link {
            text,
            source: source.map(Box::new),
        }
    }

    #[test]
    fn causes_follow_in_order_and_what_is_said_already_is_not_repeated() {
        let error = link(
            "cannot connect: refused",
            Some(link("refused", Some(link("port closed", None)))),
        );
        assert_eq!(chain(&error), "cannot connect: refused: port closed");
    }
}
