//! The demo's clocks. The relay's clock is `daemon/clock.rs`; apart from the bench's, nothing else
//! reads one.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The monotonic time, for the clip's schedule.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970, as in messages.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
