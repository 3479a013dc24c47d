//! The bench's clock.

use std::time::Instant;

/// The moment.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> Instant {
    Instant::now()
}
