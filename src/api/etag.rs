//! Entity tags and the two headers that ask about them (RFC 9110, 8.8.3 and 13.1): a row's tag is its version.

use poem::http::{HeaderValue, StatusCode};
use poem_openapi::registry::MetaSchema;

use super::{problem::Problem, request_header::FromHeader};
use crate::db::Versions;

const BLANK: [char; 2] = [' ', '\t'];

const SHAPE: &str =
    "it takes tags in quotes with commas between them, such as \"3\" or \"3\", \"4\", or * for any";

/// The tag of a row's version, in its quotes: `"3"`.
pub fn of(version: i64) -> String {
    format!("\"{version}\"")
}

/// As [`of`], for an answer's head.
pub fn header(version: i64) -> Option<HeaderValue> {
    HeaderValue::try_from(of(version)).ok()
}

/// The versions that a change is meant for: any, without the header.
pub fn versions(if_match: Option<IfMatch>) -> Versions {
    if_match.map_or(Versions::Any, |tags| tags.versions())
}

/// Whether the client has what is there, whose tag is `etag`: not, without the header.
pub fn is_known(if_none_match: Option<IfNoneMatch>, etag: Option<&HeaderValue>) -> bool {
    if_none_match.is_some_and(|tags| etag.is_some_and(|etag| tags.has(etag)))
}

/// The problem of a change that was meant for another version.
pub fn differs() -> Problem {
    Problem::new(
        StatusCode::PRECONDITION_FAILED,
        "If-Match names no tag of what is there now; get it again, and send its ETag.",
    )
}

/// `If-Match`: change what is there only if it has one of these tags.
#[derive(Debug, PartialEq, Eq)]
pub struct IfMatch(Tags);

impl IfMatch {
    /// The versions that may be changed. A weak tag matches none, as the strong comparison has it.
    fn versions(&self) -> Versions {
        let Tags::Listed(tags) = &self.0 else {
            return Versions::Any;
        };
        let version = |tag: &Tag| {
            let version = tag.quoted.trim_matches('"').parse().ok()?;
            // Not `"+3"` or `"03"`, which we never gave out.
            (!tag.is_weak && of(version) == tag.quoted).then_some(version)
        };
        Versions::OneOf(tags.iter().filter_map(version).collect())
    }
}

impl FromHeader for IfMatch {
    fn schema() -> MetaSchema {
        schema()
    }
    fn parse(text: &str) -> Result<Self, String> {
        Tags::parse(text).map(Self)
    }
}

/// `If-None-Match`: answer only if what is there has none of these tags.
#[derive(Debug, PartialEq, Eq)]
pub struct IfNoneMatch(Tags);

impl IfNoneMatch {
    /// Weak or strong does not matter.
    fn has(&self, etag: &HeaderValue) -> bool {
        match &self.0 {
            Tags::Any => true,
            Tags::Listed(tags) => tags.iter().any(|tag| tag.quoted.as_bytes() == etag),
        }
    }
}

impl FromHeader for IfNoneMatch {
    fn schema() -> MetaSchema {
        schema()
    }
    fn parse(text: &str) -> Result<Self, String> {
        Tags::parse(text).map(Self)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Tags {
    /// `*`: any tag at all.
    Any,
    Listed(Vec<Tag>),
}

#[derive(Debug, PartialEq, Eq)]
struct Tag {
    is_weak: bool,
    quoted: String,
}

impl Tags {
    fn parse(text: &str) -> Result<Self, String> {
        let mut rest = text.trim_matches(BLANK);
        if rest == "*" {
            return Ok(Self::Any);
        }
        let mut tags = Vec::new();
        // A list may have empty places (RFC 9110, 5.6.1.2), and tags may have commas.
        while !rest.is_empty() {
            if let Some(behind) = rest.strip_prefix(',') {
                rest = behind.trim_start_matches(BLANK);
                continue;
            }
            let (tag, behind) = Tag::take(rest).ok_or_else(|| SHAPE.to_owned())?;
            rest = behind.trim_start_matches(BLANK);
            if !rest.is_empty() && !rest.starts_with(',') {
                return Err(SHAPE.to_owned());
            }
            tags.push(tag);
        }
        if tags.is_empty() {
            return Err(SHAPE.to_owned());
        }
        Ok(Self::Listed(tags))
    }
}

impl Tag {
    /// The tag that `text` begins with, and what is behind it.
    fn take(text: &str) -> Option<(Self, &str)> {
        let (is_weak, quoted) = match text.strip_prefix("W/") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let end = quoted.strip_prefix('"')?.find('"')? + 2;
        let (quoted, behind) = quoted.split_at_checked(end)?;
        let is_clean = quoted.chars().all(|c| c > ' ' && c != '\u{7f}');
        let quoted = quoted.to_owned();
        is_clean.then_some((Self { is_weak, quoted }, behind))
    }
}

fn schema() -> MetaSchema {
    MetaSchema {
        // As `Tags::parse` has it, in printable ASCII.
        pattern: Some("^(\\*|(W/)?\"[!#-~]*\"( *, *(W/)?\"[!#-~]*\")*)$".to_owned()),
        example: Some(of(3).into()),
        ..MetaSchema::new("string")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(text: &str) -> Option<Versions> {
        IfMatch::parse(text).ok().map(|tags| tags.versions())
    }

    #[test]
    fn strong_tags_that_we_gave_out_are_versions() {
        for (text, listed) in [
            ("\"3\"", vec![3]),
            (" \"3\",\"4\" ", vec![3, 4]),
            (",, \"3\" , ,\t\"x,y\", \"4\",", vec![3, 4]),
            ("W/\"3\"", vec![]),
            ("W/\"3\", \"4\"", vec![4]),
            ("\"\", \"03\", \"+3\"", vec![]),
            ("\"9223372036854775808\"", vec![]),
            ("\"\u{fffd}\"", vec![]),
        ] {
            assert_eq!(versions(text), Some(Versions::OneOf(listed)), "{text}");
        }
        assert_eq!(versions(" * "), Some(Versions::Any));
    }

    #[test]
    fn what_is_no_list_of_tags_is_refused() {
        for text in [
            "",
            " ",
            ",",
            "3",
            "\"3",
            "3\"",
            "\"3\" \"4\"",
            "\"3\";",
            "w/\"3\"",
            "W/3",
            "W/ \"3\"",
            "*, \"3\"",
            "**",
            "\"3\", *",
            "\"a b\"",
            "'3'",
        ] {
            assert_eq!(versions(text), None, "{text}");
        }
    }

    #[test]
    fn a_client_has_what_is_there_by_any_of_its_tags_weak_ones_too() {
        let has = |text, etag| {
            IfNoneMatch::parse(text)
                .unwrap()
                .has(&HeaderValue::from_static(etag))
        };
        for text in ["\"3\"", "W/\"3\"", "\"2\", W/\"3\"", "*"] {
            assert!(has(text, "\"3\""), "{text}");
        }
        for text in ["\"2\"", "\"33\"", "\"\"", "W/\"2\", \"4\""] {
            assert!(!has(text, "\"3\""), "{text}");
        }
    }
}
