//! An e-mail address, as far as it can be checked without sending to it.

use std::{fmt, str::FromStr};

/// A trimmed e-mail address in ASCII: `local@domain`, at most 254 characters. Two that differ only in case are the same.
///
/// ASCII, because `lower()` then means the same here and in the database, whatever its locale.
#[derive(Clone)]
pub struct Email {
    text: String,
    key: String,
}

/// It is no e-mail address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an e-mail address such as ada@example.org, in ASCII and at most 254 characters long")]
pub struct EmailError;

impl Email {
    /// Characters at most. RFC 5321, section 4.5.3.1.3: a path of 256 octets, less its angle brackets.
    pub const LIMIT: usize = 254;

    /// Nobody's, for documentation: RFC 2606 reserves its domain.
    pub fn example() -> Self {
        let text = "ada@example.org".to_owned();
        Self {
            key: text.clone(),
            text,
        }
    }

    /// As it was entered, trimmed.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Lower-cased: what two addresses are compared by.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl FromStr for Email {
    type Err = EmailError;

    fn from_str(text: &str) -> Result<Self, EmailError> {
        let text = text.trim_matches(' ');
        let (local, domain) = text.split_once('@').ok_or(EmailError)?;
        // RFC 5322's atext. Quoted local parts are legal, and nobody has one.
        let is_atom = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|byte| {
                    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
                })
        };
        let is_label = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        if text.len() > Self::LIMIT
            || !local.split('.').all(is_atom)
            || !domain.split('.').all(is_label)
        {
            return Err(EmailError);
        }
        Ok(Self {
            text: text.to_owned(),
            key: text.to_ascii_lowercase(),
        })
    }
}

/// Personal data: it does not belong in a log.
impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[an e-mail address]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_trimmed_and_compared_in_lower_case() {
        let email: Email = "  Ada.Lovelace+x@Example.ORG ".parse().unwrap();
        assert_eq!(email.as_str(), "Ada.Lovelace+x@Example.ORG");
        assert_eq!(email.key(), "ada.lovelace+x@example.org");
        assert!(!format!("{email:?}").contains("Ada"));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long = format!("{}@example.org", "a".repeat(250));
        for text in [
            "",
            "ada",
            "@example.org",
            "ada@",
            "a@b@c",
            "a b@c.d",
            ".a@b",
            "a..b@c",
            "a@b..c",
            "a@b\n",
            "a\0@b",
            "ä@b.c",
            "a@ö.de",
            "a@b_c",
            "\"a\"@b",
            "a@b,c",
            &long,
        ] {
            assert!(text.parse::<Email>().is_err(), "{text:?}");
        }
    }
}
