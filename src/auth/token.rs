//! Bearer tokens: opaque, random, and kept as hashes only.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::digest::{SHA256, digest};
use zeroize::Zeroizing;

use crate::appliance::Secret;

/// Tells a token from other secrets, for people and for scanners of leaked ones.
const PREFIX: &str = "db_";
/// 256 bits: nobody guesses one, so their look-up needs no throttle and their hash no salt.
const BYTES: usize = 32;
/// 32 bytes in base64url without padding.
const ENCODED: usize = 43;

/// A token in clear, on its way to its owner.
pub type Token = Secret;

/// What is stored of a token: its SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash(pub [u8; 32]);

/// A new token and its hash.
pub fn new_token() -> (Token, TokenHash) {
    let bytes = Zeroizing::new(rand::random::<[u8; BYTES]>());
    let mut text = String::with_capacity(PREFIX.len() + ENCODED);
    text.push_str(PREFIX);
    URL_SAFE_NO_PAD.encode_string(bytes.as_slice(), &mut text);
    let hash = hash_of(&text);
    (Secret::new(text), hash)
}

impl TokenHash {
    /// Of what a client sent; `None` if it cannot be a token of ours.
    pub fn of(text: &str) -> Option<Self> {
        let encoded = text.strip_prefix(PREFIX)?;
        let is_plausible = encoded.len() == ENCODED
            && encoded
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        if !is_plausible {
            return None;
        }
        Some(hash_of(text))
    }
}

fn hash_of(token: &str) -> TokenHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    TokenHash(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_random_and_found_by_its_hash() {
        let ((one, hash), (other, other_hash)) = (new_token(), new_token());
        assert_ne!(one.expose(), other.expose());
        assert_eq!(one.expose().len(), PREFIX.len() + ENCODED);
        assert_eq!(TokenHash::of(one.expose()), Some(hash));
        assert_ne!(hash, other_hash);
    }

    #[test]
    fn what_cannot_be_a_token_has_no_hash() {
        let (token, _) = new_token();
        let text = token.expose();
        let longer = format!("{text}x");
        let foreign = text.replace("db_", "dc_");
        for bad in ["", "db_", &text[3..], &text[..45], &longer, &foreign] {
            assert_eq!(TokenHash::of(bad), None);
        }
    }
}
