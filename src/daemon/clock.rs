//! The clock: the only place that reads one.

use std::time::Instant as Reading;

use rustix::time::{ClockId, clock_gettime};

use crate::relay::time::Instant;

/// Monotonic time since the daemon's start: a wall clock that is set has no effect.
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

/// The kernel's monotonic clock in microseconds, as the service manager reads it too.
pub fn monotonic_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000)
}
