//! The daemon's clocks: time since its start, and the wall clock, if it was ever set.
//!
//! Everything else of the daemon gets the time as an argument. Owns when the wall clock counts as
//! set. Demo and bench have a clock of their own.

use std::time::{Instant as Reading, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::date::date_text;
use relay::time::Instant;

/// Monotonic time since the daemon's start; setting the wall clock has no effect.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Reading);

impl Clock {
    /// Starts the clock.
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn start() -> Self {
        Self(Reading::now())
    }

    /// The time since the start.
    pub fn now(&self) -> Instant {
        Instant(u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

/// The time in HTTP's format (RFC 9110, 5.6.7). `None` if the wall clock was never set: a box
/// without a battery starts in 1970, and a server without a clock must not send a `Date` (6.6.1).
pub fn date() -> Option<String> {
    wall_s().map(date_text)
}

/// The time of this program's source, in seconds since 1970: a clock that was set is later.
pub const SOURCE_S: u64 = parse(env!("SHARELINKD_SOURCE_TIME"));

const fn parse(digits: &str) -> u64 {
    let (bytes, mut number, mut at) = (digits.as_bytes(), 0, 0);
    while at < bytes.len() {
        number = number * 10 + (bytes[at] - b'0') as u64;
        at += 1;
    }
    number
}

/// The wall clock, in seconds since 1970; `None` if it was never set: if it is below the time of
/// this program's source. Reads it as rustls does, so that both see the same time where a test
/// changes it.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn wall_s() -> Option<i64> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    i64::try_from(seconds).ok().filter(|_| seconds >= SOURCE_S)
}

/// The kernel's monotonic clock in microseconds, the one that the service manager uses.
pub fn monotonic_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000)
}
