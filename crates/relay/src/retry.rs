//! Retry times for pages that are sent away, with jitter so that they don't all come back at once.
//!
//! The times of a drain grow with the number of pages and are set by `drain` in `lib.rs`.

use super::{Relay, hash, session::Session};

/// The shortest retry time, and the range of the jitter on top.
const RETRY_MS_MIN: u64 = 2_000;
const RETRY_MS_SPREAD: u64 = 4_000;
/// The same for a page that found no room, which frees up slowly.
const FULL_RETRY_MS_MIN: u64 = 5_000;
const FULL_RETRY_MS_SPREAD: u64 = 10_000;

impl Relay {
    /// For a reason that goes away by itself.
    pub(super) fn retry_ms(&mut self) -> u32 {
        u32::try_from(RETRY_MS_MIN + self.jitter.below(RETRY_MS_SPREAD)).unwrap_or(u32::MAX)
    }

    /// For lack of room.
    pub(super) fn full_retry_ms(&mut self) -> u32 {
        u32::try_from(FULL_RETRY_MS_MIN + self.jitter.below(FULL_RETRY_MS_SPREAD)).unwrap_or(u32::MAX)
    }

    /// The same for a refusal that is planned again until it is sent: derived from the page's
    /// number, so that it is the same each time.
    pub(super) fn refused_retry_ms(&self, session: &Session) -> u32 {
        let own = hash(self.hash_seed, &session.number().to_le_bytes()) % FULL_RETRY_MS_SPREAD;
        u32::try_from(FULL_RETRY_MS_MIN + own).unwrap_or(u32::MAX)
    }
}
