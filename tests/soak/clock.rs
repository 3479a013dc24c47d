//! The soak's clock: the only place where it is read. Knows nothing else.
//!
//! Every part of the soak asks here: what is due, what is late and how long somebody heard nothing. Owns no state;
//! refuses nothing. The relay has a clock of its own and doesn't know this one: it is another process.

use std::time::Instant;

/// The moment.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> Instant {
    Instant::now()
}
