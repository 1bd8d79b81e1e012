//! Lists of many pages: the opaque cursor that leads to the next one, and the `Link` header that holds it.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use form_urlencoded::Serializer;
use poem::http::HeaderValue;
use poem_openapi::error::ParseParamError;
use ring::digest::{SHA256, digest};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::db::{Page, Position};

/// A time in microseconds, an id, and the beginning of a digest.
const TIME: usize = 8;
const ID: usize = 16;
const SUM: usize = 8;

/// The page that `?limit=` and `?after=` ask for, of the list at `path`; with one row more than asked for, which tells
/// [`next`] whether there is another page.
///
/// # Errors
/// A cursor that this list did not give out.
pub fn page(path: &str, limit: u16, after: Option<&str>) -> Result<Page, ParseParamError> {
    let after = after.map(|cursor| {
        decode(path, cursor).ok_or_else(|| ParseParamError {
            name: "after",
            reason: format!("it is no place in this list; take it from the Link header of GET {path}, or leave it out"),
        })
    });
    Ok(Page {
        limit: limit + 1,
        after: after.transpose()?,
    })
}

/// Cuts `rows` to the `limit` that was asked for, and if there are more, returns the value of the `Link` header that
/// leads to them: the list at `path`, with these other `parameters`.
pub fn next<T>(
    rows: &mut Vec<T>,
    limit: u16,
    place: impl FnOnce(&T) -> Position,
    path: &str,
    parameters: &[(&str, Option<&str>)],
) -> Option<HeaderValue> {
    if rows.len() <= limit.into() {
        return None;
    }
    rows.truncate(limit.into());
    let after = encode(path, place(rows.last()?));
    let mut query = Serializer::new(String::new());
    for (name, value) in parameters {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    query.append_pair("limit", &limit.to_string());
    query.append_pair("after", &after);
    // Only printable ASCII is left of them.
    HeaderValue::try_from(format!("<{path}?{}>; rel=\"next\"", query.finish())).ok()
}

/// The cursor that leads behind a place in the list at `path`.
pub fn encode(path: &str, position: Position) -> String {
    let micros = position.created_at.unix_timestamp_nanos() / 1000;
    // Postgres keeps no time outside of what 64 bits of microseconds hold.
    let micros = i64::try_from(micros).unwrap_or_default();
    let place = [&micros.to_be_bytes()[..], position.id.as_bytes()].concat();
    BASE64_URL_SAFE_NO_PAD.encode([&place[..], &sum(path, &place)].concat())
}

fn decode(path: &str, cursor: &str) -> Option<Position> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (place, found) = bytes.split_at_checked(TIME + ID)?;
    if found != sum(path, place) {
        return None;
    }
    let (micros, id) = place.split_at_checked(TIME)?;
    let micros = i64::from_be_bytes(micros.try_into().ok()?);
    Some(Position {
        created_at: OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).ok()?,
        id: Uuid::from_slice(id).ok()?,
    })
}

/// Tells our cursors from accidents, and this list's from another's. No secret: who makes one up gets to a place in a
/// list that is theirs to read anyway.
fn sum(path: &str, place: &[u8]) -> [u8; SUM] {
    let digest = digest(&SHA256, &[path.as_bytes(), &[0], place].concat());
    let mut sum = [0; SUM];
    sum.copy_from_slice(&digest.as_ref()[..SUM]);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position() -> Position {
        Position {
            created_at: OffsetDateTime::from_unix_timestamp_nanos(1_763_759_276_123_456_000)
                .unwrap(),
            id: Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_002a),
        }
    }

    #[test]
    fn a_cursor_leads_back_to_its_place_in_its_own_list_only() {
        let cursor = encode("/items", position());
        assert_eq!(decode("/items", &cursor), Some(position()));
        assert_eq!(decode("/item", &cursor), None);
        let before_1970 = Position {
            created_at: OffsetDateTime::from_unix_timestamp(-1).unwrap(),
            ..position()
        };
        assert_eq!(
            decode("/items", &encode("/items", before_1970)),
            Some(before_1970)
        );
    }

    #[test]
    fn a_cursor_with_any_character_changed_left_out_or_added_is_none() {
        let cursor = encode("/items", position());
        for at in 0..cursor.len() {
            for other in ['A', 'b', '7', '-', '=', ' ', 'ü'] {
                if cursor[at..].starts_with(other) {
                    continue;
                }
                let changed = format!("{}{other}{}", &cursor[..at], &cursor[at + 1..]);
                assert_eq!(decode("/items", &changed), None, "{changed}");
            }
            assert_eq!(decode("/items", &cursor[..at]), None);
            assert_eq!(decode("/items", &cursor[at + 1..]), None);
        }
        assert_eq!(decode("/items", &format!("{cursor}A")), None);
    }

    #[test]
    fn the_link_keeps_the_other_parameters_and_stands_only_where_there_is_more() {
        let link = |count: usize| {
            let mut rows = vec![position(); count];
            let link = next(
                &mut rows,
                2,
                |place| *place,
                "/items",
                &[("q", Some("a&b ü>")), ("x", None)],
            );
            (rows.len(), link)
        };
        assert_eq!((link(1), link(2)), ((1, None), (2, None)));
        let cursor = encode("/items", position());
        let wanted = format!("</items?q=a%26b+%C3%BC%3E&limit=2&after={cursor}>; rel=\"next\"");
        assert_eq!(link(3), (2, Some(wanted.try_into().unwrap())));
    }
}
