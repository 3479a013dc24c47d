//! Signed links: a share link that says itself what it shows, so that no webhook is called for it.
//!
//! A link is base64url, without padding, of a MAC of 16 bytes and what it signs: version (1), the
//! key's number, the end (seconds since 1970, 4 bytes, big-endian), 4 random bytes, flags (1:
//! shared, 2: pages may send), replay (2 bytes, big-endian), the topic's name. The MAC is the
//! beginning of HMAC-SHA256 over that. It comes first, so that the four bytes of a link that a log
//! may show differ. Owns the format alone: revocation is `admission.rs`'s.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use wire::LINK_SIZE_MAX;

use super::{Name, name::mac};

const VERSION: u8 = 1;
const MAC_SIZE: usize = 16;
const SHARED: u8 = 1;
const PAGE_MESSAGES: u8 = 2;

/// A key for signed links. Printed, it shows only its number.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkKey {
    /// Its number, which stands in each link.
    pub id: u8,
    /// The key: at least 16 random bytes.
    pub key: Vec<u8>,
}

impl core::fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "LinkKey {}", self.id)
    }
}

/// What a link says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The topic that it shows.
    pub topic: Name,
    /// Whether one admission covers all pages with it.
    pub shared: bool,
    /// Whether pages may send.
    pub page_messages: bool,
    /// Messages for a late page.
    pub replay: u16,
    /// Its end, in seconds since 1970.
    pub end_s: u32,
}

/// Makes a link. `random` must be new for each.
#[must_use]
pub fn sign(key: &LinkKey, signed: &Signed, random: [u8; 4]) -> String {
    let flags = if signed.shared { SHARED } else { 0 } | if signed.page_messages { PAGE_MESSAGES } else { 0 };
    let mut payload = vec![VERSION, key.id];
    payload.extend(signed.end_s.to_be_bytes());
    payload.extend(random);
    payload.push(flags);
    payload.extend(signed.replay.to_be_bytes());
    payload.extend(signed.topic.as_str().as_bytes());
    let mac = mac(&key.key, &[&payload]);
    URL_SAFE_NO_PAD.encode([mac.get(..MAC_SIZE).unwrap_or_default(), &payload].concat())
}

/// Reads a link. `None` if it was not signed with one of these keys. Whether its end is over is
/// the caller's question.
#[must_use]
pub fn verify(keys: &[LinkKey], link: &str) -> Option<Signed> {
    let (bytes, id, signed) = read(link)?;
    let (said, payload) = bytes.split_at_checked(MAC_SIZE)?;
    let key = keys.iter().find(|key| key.id == id)?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key.key).ok()?;
    mac.update(payload);
    // In constant time.
    mac.verify_truncated_left(said).ok()?;
    Some(signed)
}

/// Whether a link has the form of a signed one, by whatever key.
#[must_use]
pub fn is_formed(link: &str) -> bool {
    read(link).is_some()
}

/// A link's bytes, its key's number, and what it says, whether or not that is signed.
fn read(link: &str) -> Option<(Vec<u8>, u8, Signed)> {
    if link.len() > LINK_SIZE_MAX {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(link).ok()?;
    let (_, payload) = bytes.split_at_checked(MAC_SIZE)?;
    let (&[version, id, e0, e1, e2, e3, _, _, _, _, flags, r0, r1], topic) = payload.split_first_chunk()?;
    if version != VERSION {
        return None;
    }
    let signed = Signed {
        topic: Name::new(core::str::from_utf8(topic).ok()?)?,
        shared: flags & SHARED != 0,
        page_messages: flags & PAGE_MESSAGES != 0,
        replay: u16::from_be_bytes([r0, r1]),
        end_s: u32::from_be_bytes([e0, e1, e2, e3]),
    };
    Some((bytes, id, signed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::NAME_SIZE_MAX;

    fn key(id: u8) -> LinkKey {
        LinkKey { id, key: vec![id; 32] }
    }

    fn signed(topic: &str) -> Signed {
        Signed {
            topic: Name::new(topic).unwrap(),
            shared: true,
            page_messages: false,
            replay: 300,
            end_s: 1_800_000_000,
        }
    }

    #[test]
    fn a_link_says_what_was_signed_and_is_a_link() {
        for topic in ["a", "app:room/7", &"x".repeat(NAME_SIZE_MAX)] {
            for (shared, page_messages) in [(true, false), (false, true)] {
                let signed = Signed { shared, page_messages, ..signed(topic) };
                let link = sign(&key(7), &signed, [1, 2, 3, 4]);
                assert!(wire::is_link(&link), "{link}");
                assert_eq!(verify(&[key(3), key(7)], &link), Some(signed));
            }
        }
        assert_ne!(sign(&key(7), &signed("a"), [0; 4])[..4], sign(&key(7), &signed("a"), [1; 4])[..4]);
    }

    #[test]
    fn what_was_changed_or_signed_by_others_is_none() {
        let link = sign(&key(7), &signed("room"), [1, 2, 3, 4]);
        assert_eq!(verify(&[key(8)], &link), None, "unknown key");
        assert_eq!(verify(&[LinkKey { id: 7, key: vec![9; 32] }], &link), None, "another key");
        let bytes = URL_SAFE_NO_PAD.decode(&link).unwrap();
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            assert_eq!(verify(&[key(7), key(6)], &URL_SAFE_NO_PAD.encode(&changed)), None, "byte {place}");
            assert_eq!(verify(&[key(7)], &URL_SAFE_NO_PAD.encode(&bytes[..place])), None, "{place} bytes");
        }
        assert!(is_formed(&link), "the key is not asked for");
        for other in ["demo", "", "~~~~", &format!("{link}="), &"A".repeat(129), &"A".repeat(128)] {
            assert_eq!((verify(&[key(7)], other), is_formed(other)), (None, false), "{other:?}");
        }
    }
}
