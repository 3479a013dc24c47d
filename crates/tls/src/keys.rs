//! The keys of one direction of a connection: key, IV, sequence, and the secret of the next update.
//!
//! Owns the key schedule after the handshake (RFC 8446, 7.2 and 7.3), the nonce of each record, and
//! the count of records. A sequence is never reused and never wraps. The bytes are zeroed when
//! `Keys` are dropped; copies that a move leaves behind on the stack are not.
//!
//! Doesn't know which direction it is, and what a record holds.

use core::fmt;

use ring::hmac::{self, HMAC_SHA256};
use zeroize::Zeroize;

use crate::suite::{Suite, Version};

/// Size of the longest key, in bytes: ChaCha20's.
const KEY_SIZE_MAX: usize = 32;
/// Size of an IV and of a nonce, in bytes, with each AEAD here.
const IV_SIZE: usize = 12;
/// Size of a traffic secret, in bytes: SHA-256's.
const SECRET_SIZE: usize = 32;
/// No record has this sequence. [`Keys::advance`] stops here, so that the count never wraps.
const SEQUENCE_END: u64 = u64::MAX;

/// One direction's keys.
pub struct Keys {
    /// The suite's key, then zeros.
    key: [u8; KEY_SIZE_MAX],
    iv: [u8; IV_SIZE],
    /// Of the next record.
    sequence: u64,
    /// The traffic secret of TLS 1.3; zeros for TLS 1.2.
    secret: [u8; SECRET_SIZE],
}

impl Keys {
    /// Keys out of a finished handshake.
    ///
    /// `iv` for AES-128-GCM in TLS 1.2: 4 bytes of salt, then 8 bytes that a sender combines with
    /// the sequence. `sequence` is that of the next record. `secret` is the traffic secret of TLS
    /// 1.3, which [`Keys::update`] needs; zeros for TLS 1.2.
    ///
    /// `None` if the key's length isn't the suite's.
    #[must_use]
    pub fn new(suite: Suite, key: &[u8], iv: [u8; 12], sequence: u64, secret: [u8; 32]) -> Option<Self> {
        if key.len() != suite.key_size() {
            return None;
        }
        let mut keys = Self { key: [0; KEY_SIZE_MAX], iv, sequence, secret };
        keys.key.get_mut(..key.len())?.copy_from_slice(key);
        Some(keys)
    }

    /// TLS 1.3: key and IV of a traffic secret, with sequence 0 (RFC 8446, 7.3).
    #[must_use]
    pub fn from_secret(suite: Suite, secret: [u8; 32]) -> Self {
        let key = expand(&secret, b"key", suite.key_size());
        let mut block = expand(&secret, b"iv", IV_SIZE);
        let mut iv = [0; IV_SIZE];
        iv.iter_mut().zip(block).for_each(|(to, from)| *to = from);
        block.zeroize();
        Self { key, iv, sequence: 0, secret }
    }

    /// The sequence of the next record.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// This number of records is sent or received.
    pub const fn advance(&mut self, records: u64) {
        self.sequence = self.sequence.saturating_add(records);
    }

    /// TLS 1.3: the next secret, key and IV, with sequence 0 (RFC 8446, 7.2). With TLS 1.2, which
    /// has no key update, nothing changes.
    pub fn update(&mut self, suite: Suite) {
        if suite.version == Version::Tls13 {
            *self = Self::from_secret(suite, expand(&self.secret, b"traffic upd", SECRET_SIZE));
        }
    }

    /// TLS 1.3: whether key and IV are those of the secret. A test of the caller's wiring: secrets
    /// and keys reach it by different ways, and a wrong secret shows only at the first update.
    #[must_use]
    pub fn fit_secret(&self, suite: Suite) -> bool {
        let own = Self::from_secret(suite, self.secret);
        suite.version == Version::Tls13 && (own.key, own.iv) == (self.key, self.iv)
    }

    /// The suite's part of the key.
    pub(crate) fn key(&self, suite: Suite) -> Option<&[u8]> {
        self.key.get(..suite.key_size())
    }

    /// What tells these keys from all others, at every sequence.
    #[cfg(any(test, feature = "ledger"))]
    pub(crate) const fn identity(&self) -> [&[u8]; 2] {
        [&self.key, &self.iv]
    }

    /// The sequence of the record that comes after `ahead` others, if there may be one.
    pub(crate) fn sequence_ahead(&self, ahead: u64) -> Option<u64> {
        self.sequence.checked_add(ahead).filter(|sequence| *sequence < SEQUENCE_END)
    }

    /// The IV with the sequence in its last 8 bytes (RFC 8446, 5.3; RFC 7905, 2; and what we send
    /// as the nonce of RFC 5288, 3).
    pub(crate) fn nonce(&self, sequence: u64) -> [u8; IV_SIZE] {
        let mut nonce = self.iv;
        nonce.iter_mut().rev().zip(sequence.to_le_bytes()).for_each(|(to, byte)| *to ^= byte);
        nonce
    }

    /// The nonce of a record with an explicit part: the IV's salt, and that part (RFC 5288, 3).
    pub(crate) const fn explicit_nonce(&self, explicit: [u8; 8]) -> [u8; IV_SIZE] {
        let [a, b, c, d, ..] = self.iv;
        let [e, f, g, h, i, j, k, l] = explicit;
        [a, b, c, d, e, f, g, h, i, j, k, l]
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.key.zeroize();
        self.iv.zeroize();
        self.secret.zeroize();
        self.sequence.zeroize();
    }
}

impl fmt::Debug for Keys {
    /// Without the secrets.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Keys").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

/// HKDF-Expand-Label with an empty context (RFC 8446, 7.1): `size` bytes, then zeros. Each output
/// here fits the first block of HKDF-Expand (RFC 5869, 2.3), which is one HMAC.
fn expand(secret: &[u8; SECRET_SIZE], label: &[u8], size: usize) -> [u8; SECRET_SIZE] {
    const PREFIX: &[u8] = b"tls13 ";
    let byte = |count: usize| u8::try_from(count).unwrap_or(u8::MAX);
    let mut context = hmac::Context::with_key(&hmac::Key::new(HMAC_SHA256, secret));
    context.update(&[0, byte(size), byte(PREFIX.len() + label.len())]);
    context.update(PREFIX);
    context.update(label);
    // The size of the context, then the number of the block.
    context.update(&[0, 1]);
    let mut out = [0; SECRET_SIZE];
    out.iter_mut().zip(context.sign().as_ref()).take(size).for_each(|(to, from)| *to = *from);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::Aead;

    const AES: Suite = Suite { version: Version::Tls13, aead: Aead::Aes128Gcm };
    const CHACHA: Suite = Suite { version: Version::Tls13, aead: Aead::ChaCha20Poly1305 };
    const AES_12: Suite = Suite { version: Version::Tls12, aead: Aead::Aes128Gcm };

    #[test]
    fn a_key_has_the_length_of_its_suite() {
        for (suite, size) in [(AES, 16), (CHACHA, 32), (AES_12, 16)] {
            for wrong in [0, size - 1, size + 1, 16 + 32 - size, 100] {
                assert!(Keys::new(suite, &vec![1; wrong], [2; 12], 0, [3; 32]).is_none(), "{suite:?} {wrong}");
            }
            let keys = Keys::new(suite, &vec![1; size], [2; 12], 7, [3; 32]).unwrap();
            assert_eq!((keys.key(suite).unwrap(), keys.sequence()), (vec![1; size].as_slice(), 7));
        }
    }

    #[test]
    fn a_nonce_is_the_iv_and_the_sequence() {
        let keys = Keys::new(AES, &[0; 16], [0xF0; 12], 0, [0; 32]).unwrap();
        let expected = [0xF0, 0xF0, 0xF0, 0xF0, 0xF1, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xF7, 0xF8];
        assert_eq!(keys.nonce(0x0102_0304_0506_0708), expected);
        assert_eq!(keys.nonce(0), [0xF0; 12]);
        assert_eq!(keys.explicit_nonce([1, 2, 3, 4, 5, 6, 7, 8]), [0xF0, 0xF0, 0xF0, 0xF0, 1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn a_sequence_never_wraps() {
        let mut keys = Keys::new(AES, &[0; 16], [0; 12], u64::MAX - 2, [0; 32]).unwrap();
        assert_eq!(keys.sequence_ahead(1), Some(u64::MAX - 1));
        assert_eq!(keys.sequence_ahead(2), None, "the last number is no record's");
        assert_eq!(keys.sequence_ahead(u64::MAX), None);
        keys.advance(1);
        assert_eq!(keys.sequence_ahead(0), Some(u64::MAX - 1));
        for _ in 0..3 {
            keys.advance(u64::MAX);
            assert_eq!((keys.sequence(), keys.sequence_ahead(0)), (u64::MAX, None));
        }
    }

    #[test]
    fn an_update_changes_everything_and_begins_at_zero() {
        for suite in [AES, CHACHA] {
            let mut keys = Keys::from_secret(suite, [9; 32]);
            let mut seen = vec![(keys.key, keys.iv, keys.secret)];
            for _ in 0..4 {
                keys.advance(5);
                keys.update(suite);
                assert!(keys.sequence() == 0 && keys.fit_secret(suite));
                let now = (keys.key, keys.iv, keys.secret);
                assert!(seen.iter().all(|old| old.0 != now.0 && old.1 != now.1 && old.2 != now.2));
                seen.push(now);
            }
        }
        assert!(!Keys::new(AES, &[1; 16], [2; 12], 0, [3; 32]).unwrap().fit_secret(AES));
    }

    #[test]
    fn tls_1_2_has_no_update() {
        let mut keys = Keys::new(AES_12, &[1; 16], [2; 12], 7, [0; 32]).unwrap();
        keys.update(AES_12);
        assert_eq!((keys.key(AES_12).unwrap(), keys.iv, keys.sequence()), ([1; 16].as_slice(), [2; 12], 7));
        assert!(!keys.fit_secret(AES_12));
    }

    #[test]
    fn nothing_prints_a_key() {
        let keys = Keys::new(AES, &[0xAB; 16], [0xCD; 12], 7, [0xEF; 32]).unwrap();
        assert_eq!(format!("{keys:?}"), "Keys { sequence: 7, .. }");
    }
}
