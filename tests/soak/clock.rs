//! The soak's clock: the only place where it is read. Knows nothing else.
//!
//! Every part of the soak takes the time from here. Owns no state; refuses nothing. The relay is
//! another process with a clock of its own.

use std::time::Instant;

/// The moment.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> Instant {
    Instant::now()
}
