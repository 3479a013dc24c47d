//! When whoever was sent away is to come back: each at a time of its own, so that they don't come back as one.
//!
//! The times of a drain grow with the number of pages and are `drain`'s in `mod.rs`.

use super::{Relay, hash, session::Session};

/// When a page is told to come back: at least, and spread over.
const RETRY_MS_MIN: u64 = 2_000;
const RETRY_MS_SPREAD: u64 = 4_000;
/// The same for a page that there was no room for: room comes slowly.
const FULL_RETRY_MS_MIN: u64 = 5_000;
const FULL_RETRY_MS_SPREAD: u64 = 10_000;

impl Relay {
    /// Where the reason goes away by itself.
    pub(super) fn retry_ms(&mut self) -> u32 {
        u32::try_from(RETRY_MS_MIN + self.jitter.below(RETRY_MS_SPREAD)).unwrap_or(u32::MAX)
    }

    /// Where there is no room.
    pub(super) fn full_retry_ms(&mut self) -> u32 {
        u32::try_from(FULL_RETRY_MS_MIN + self.jitter.below(FULL_RETRY_MS_SPREAD)).unwrap_or(u32::MAX)
    }

    /// The same for a refusal that is planned anew until it is sent: the page's own, and the same each time.
    pub(super) fn refused_retry_ms(&self, session: &Session) -> u32 {
        let own = hash(self.hash_seed, &session.number().to_le_bytes()) % FULL_RETRY_MS_SPREAD;
        u32::try_from(FULL_RETRY_MS_MIN + own).unwrap_or(u32::MAX)
    }
}
