//! The deadly fault, as an assertion: no key and sequence is ever sent with two plaintexts.
//!
//! Two records under one nonce give away both plaintexts, and with AES-GCM the authentication key
//! (RFC 5116, 5.1.1). Sealing is deterministic, so equal plaintexts have equal tags: the ledger
//! keeps the tag of each record that has left, by key and sequence, and panics at another one.
//!
//! Only with the feature `ledger`, which test builds have; without it a call does nothing. Keeps
//! the newest records, about [`RECORDS_MAX`], of all connections and threads of the process, in
//! static memory, so that it doesn't disturb tests that count allocations.

/// Records remembered. Enough for some hundreds of each of a test's pages.
pub const RECORDS_MAX: usize = BUCKETS * WAYS;
const BUCKETS: usize = 1 << 13;
const WAYS: usize = 8;

#[cfg(any(test, feature = "ledger"))]
pub use kept::record_sent;

/// A byte or more of `record`, which has the sequence `keys.sequence() + ahead`, has left. Checked
/// in builds with the feature `ledger` only.
#[cfg(not(any(test, feature = "ledger")))]
#[inline(always)]
pub const fn record_sent(_keys: &crate::keys::Keys, _ahead: u64, _record: &[u8]) {}

#[cfg(any(test, feature = "ledger"))]
mod kept {
    use std::sync::{Mutex, PoisonError};

    use ring::digest::{Context, SHA256};

    use super::{BUCKETS, WAYS};
    use crate::keys::Keys;
    use crate::record::tag;
    use crate::suite::TAG_SIZE;

    /// What names a key and a sequence: half of a SHA-256.
    type Name = [u8; 16];

    #[derive(Clone, Copy)]
    struct Sent {
        name: Name,
        tag: [u8; TAG_SIZE],
    }

    /// The records whose names begin alike, newest first.
    type Bucket = [Option<Sent>; WAYS];

    static LEDGER: Mutex<[Bucket; BUCKETS]> = Mutex::new([[None; WAYS]; BUCKETS]);

    /// A byte or more of `record`, which has the sequence `keys.sequence() + ahead`, has left.
    ///
    /// # Panics
    ///
    /// If a record with another tag left under the same key and sequence.
    pub fn record_sent(keys: &Keys, ahead: u64, record: &[u8]) {
        let name = name(keys, ahead);
        let sent = Sent { name, tag: tag(record) };
        let [high, low, ..] = name;
        let place = usize::from(u16::from_be_bytes([high, low])) % BUCKETS;
        // A test that expects the panic poisons the lock.
        let mut ledger = LEDGER.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(bucket) = ledger.get_mut(place) else { return };
        match bucket.iter().flatten().find(|kept| kept.name == name) {
            Some(kept) => assert!(
                kept.tag == sent.tag,
                "two plaintexts were sent with one key and sequence {}",
                keys.sequence().wrapping_add(ahead)
            ),
            None => {
                bucket.rotate_right(1);
                bucket[0] = Some(sent);
            }
        }
    }

    fn name(keys: &Keys, ahead: u64) -> Name {
        let mut context = Context::new(&SHA256);
        for part in keys.identity() {
            context.update(part);
        }
        context.update(&keys.sequence().wrapping_add(ahead).to_be_bytes());
        context.finish().as_ref().first_chunk().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;
    use crate::keys::Keys;
    use crate::record::{Content, seal};
    use crate::suite::{Aead, Suite, Version};

    const SUITE: Suite = Suite { version: Version::Tls13, aead: Aead::Aes128Gcm };

    fn sealed(keys: &Keys, ahead: u64, plain: &[u8]) -> Vec<u8> {
        let mut out = vec![0; 100];
        let size = seal(SUITE, keys, ahead, Content::ApplicationData, &[plain], &mut out).unwrap();
        out.truncate(size);
        out
    }

    #[test]
    fn a_sequence_with_two_plaintexts_is_found() {
        let send = |keys: &Keys, ahead, plain: &[u8]| record_sent(keys, ahead, &sealed(keys, ahead, plain));
        let mut keys = Keys::from_secret(SUITE, [0x51; 32]);
        for _ in 0..3 {
            send(&keys, 0, b"one");
        }
        send(&keys, 1, b"two");
        keys.advance(1);
        send(&keys, 0, b"two");
        // Another key, and the same one updated, have sequences of their own.
        send(&Keys::from_secret(SUITE, [0x52; 32]), 0, b"other");
        let two = |ahead| {
            let again = Keys::new(SUITE, keys.key(SUITE).unwrap(), keys.nonce(0), 1, [0; 32]).unwrap();
            catch_unwind(move || send(&again, ahead, b"2nd")).is_err()
        };
        assert!(two(0), "the second record had another plaintext");
        assert!(!two(1));
        keys.update(SUITE);
        send(&keys, 0, b"other");
    }

    #[test]
    fn the_newest_are_kept() {
        let keys = Keys::from_secret(SUITE, [0x53; 32]);
        let count = 3 * RECORDS_MAX as u64;
        for ahead in 0..count {
            record_sent(&keys, ahead, &ahead.to_be_bytes().repeat(2));
        }
        let is_kept = |ahead| catch_unwind(|| record_sent(&keys, ahead, &[0xFF; 16])).is_err();
        assert!((count - 100..count).all(is_kept), "of the newest, each is known");
    }
}
