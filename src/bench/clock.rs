//! The bench's clock. Nothing else of the bench reads one.

use std::time::Instant;

/// The monotonic time.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> Instant {
    Instant::now()
}
