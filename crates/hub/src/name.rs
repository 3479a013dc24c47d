//! Topics by name.
//!
//! A name is what a back end says; a number is what relays see: the first 32 bits of
//! HMAC-SHA256(fleet key, name). So all hubs of a fleet give a topic the same number without any
//! common state, and nobody who may choose a name can aim at the number of another. Refuses names
//! of other characters or lengths. Doesn't know which topics exist.

use std::{fmt, sync::Arc};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// The maximum size of a name, in bytes.
pub const NAME_SIZE_MAX: usize = 64;

/// A topic's name: 1 to 64 of `A-Z a-z 0-9 - _ . ~ : /`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// `None` if it is not a name.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~:/".contains(&byte);
        ((1..=NAME_SIZE_MAX).contains(&text.len()) && text.bytes().all(is_of_name)).then(|| Self(text.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is `prefix` or lies below it, as a path does: `app/room` lies below `app` and not
    /// below `ap`. Everything lies below the empty prefix.
    #[must_use]
    pub fn is_below(&self, prefix: &str) -> bool {
        let rest = self.0.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix.is_empty() || prefix.ends_with('/'))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The key from which numbers are made: the same on all hubs of a fleet. Printed, it shows nothing.
#[derive(Clone)]
pub struct FleetKey(Vec<u8>);

impl FleetKey {
    /// A key. With an empty one, anyone can compute numbers.
    #[must_use]
    pub const fn new(key: Vec<u8>) -> Self {
        Self(key)
    }

    /// A key of its own for another purpose.
    #[must_use]
    pub fn derive(&self, purpose: &[u8]) -> Self {
        Self(mac(&self.0, &[purpose]).to_vec())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The topic's number on the uplink.
    #[must_use]
    pub fn number(&self, name: &Name) -> u32 {
        let [a, b, c, d, ..] = mac(&self.0, &[name.as_str().as_bytes()]);
        u32::from_be_bytes([a, b, c, d])
    }
}

impl fmt::Debug for FleetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FleetKey")
    }
}

/// HMAC-SHA256 over all parts.
pub(crate) fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    // It takes keys of any length, so there is no error.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// Eight hexadecimal digits of a hash of a share link: a link is a secret, so logs and lists show
/// this in place of it.
#[must_use]
pub fn shown(link: &str) -> String {
    Sha256::digest(link).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_these_characters_and_lengths() {
        for good in ["a", "room-1_x.y~z:7/live", &"x".repeat(64)] {
            assert_eq!(Name::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "a b", "ü", "a?b", "a\n", &"x".repeat(65)] {
            assert_eq!(Name::new(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_prefix_ends_where_a_part_of_the_name_does() {
        let name = Name::new("app/room/7").unwrap();
        for prefix in ["", "app", "app/", "app/room", "app/room/7"] {
            assert!(name.is_below(prefix), "{prefix:?}");
        }
        for prefix in ["ap", "app/roo", "room", "app/room/7/", "/"] {
            assert!(!name.is_below(prefix), "{prefix:?}");
        }
    }

    #[test]
    fn a_number_is_the_beginning_of_the_mac() {
        // Worked out by `printf %s room | openssl dgst -sha256 -hmac key`.
        assert_eq!(FleetKey::new(b"key".to_vec()).number(&Name::new("room").unwrap()), 0x33fc_67b9);
        assert_ne!(FleetKey::new(b"other".to_vec()).number(&Name::new("room").unwrap()), 0x33fc_67b9);
        assert_eq!(shown("demo"), "2a97516c");
    }
}
