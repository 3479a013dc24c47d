//! Tokens to publish picture and sound with: for one topic, until an end, without any list.
//!
//! A token is `slt_` and base64url, without padding, of a MAC of 16 bytes and what it signs:
//! version (1), the end (seconds since 1970, 4 bytes, big-endian), 8 random bytes, the topic's
//! name. The MAC is the beginning of HMAC-SHA256 under a key that is derived from the fleet's, so
//! that each hub of a fleet takes the tokens of all. Owns the format alone: revocation is
//! `admission.rs`'s.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::{FleetKey, Name, name::mac};

const PREFIX: &str = "slt_";
const VERSION: u8 = 1;
const MAC_SIZE: usize = 16;
/// The maximum size of a token, in bytes.
pub const TOKEN_SIZE_MAX: usize = 128;

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The topic that it publishes to.
    pub topic: Name,
    /// Its end, in seconds since 1970.
    pub end_s: u32,
}

/// Makes a token. `random` must be new for each.
#[must_use]
pub fn sign(key: &FleetKey, token: &Token, random: [u8; 8]) -> String {
    let mut payload = vec![VERSION];
    payload.extend(token.end_s.to_be_bytes());
    payload.extend(random);
    payload.extend(token.topic.as_str().as_bytes());
    let mac = mac(derived(key).bytes(), &[&payload]);
    PREFIX.to_owned() + &URL_SAFE_NO_PAD.encode([mac.get(..MAC_SIZE).unwrap_or_default(), &payload].concat())
}

/// Reads a token. `None` if it was not signed with this key. Whether its end is over is the
/// caller's question.
#[must_use]
pub fn verify(key: &FleetKey, token: &str) -> Option<Token> {
    let text = token.strip_prefix(PREFIX).filter(|_| token.len() <= TOKEN_SIZE_MAX)?;
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (said, payload) = bytes.split_at_checked(MAC_SIZE)?;
    let (&[version, e0, e1, e2, e3, _, _, _, _, _, _, _, _], topic) = payload.split_first_chunk()?;
    if version != VERSION {
        return None;
    }
    let mut mac = Hmac::<Sha256>::new_from_slice(derived(key).bytes()).ok()?;
    mac.update(payload);
    // In constant time.
    mac.verify_truncated_left(said).ok()?;
    let topic = Name::new(core::str::from_utf8(topic).ok()?)?;
    Some(Token { topic, end_s: u32::from_be_bytes([e0, e1, e2, e3]) })
}

/// Whether it looks like a token, and not like a key.
#[must_use]
pub fn is_token(text: &str) -> bool {
    text.starts_with(PREFIX)
}

fn derived(key: &FleetKey) -> FleetKey {
    key.derive(b"sharelink-hub ingest tokens")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::NAME_SIZE_MAX;

    #[test]
    fn a_token_says_what_was_signed_and_nothing_else_is_one() {
        let key = FleetKey::new(b"a fleet's key".to_vec());
        for topic in ["a", &"x".repeat(NAME_SIZE_MAX)] {
            let said = Token { topic: Name::new(topic).unwrap(), end_s: 1_800_000_000 };
            let token = sign(&key, &said, [7; 8]);
            assert!(token.len() <= TOKEN_SIZE_MAX && is_token(&token), "{token}");
            assert_eq!(verify(&key, &token), Some(said));
            assert_eq!(verify(&FleetKey::new(b"another".to_vec()), &token), None);
            let bytes = URL_SAFE_NO_PAD.decode(&token[4..]).unwrap();
            for place in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[place] ^= 1;
                assert_eq!(verify(&key, &format!("slt_{}", URL_SAFE_NO_PAD.encode(&changed))), None, "byte {place}");
                assert_eq!(verify(&key, &format!("slt_{}", URL_SAFE_NO_PAD.encode(&bytes[..place]))), None);
            }
        }
        for other in ["", "slt_", "slk_abc", "slt_~~~~", &format!("slt_{}", "A".repeat(125))] {
            assert_eq!(verify(&key, other), None, "{other:?}");
        }
    }
}
