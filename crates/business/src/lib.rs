//! The business server's side of the uplink, as a library.
//!
//! Pure: no sockets, no clock, no tasks, no access control. [`Business`] owns the topics and the
//! connected relays. The caller moves bytes between it and sockets, passes in the time, answers
//! [`Event::Asked`], and publishes. A track is a ring of uplink frames, encoded once, and each
//! relay has a cursor into it: a relay that reads slowly misses what the ring has overwritten, and
//! costs no memory beyond its cursor.
//!
//! ```text
//! publish -> topic.rs -> history.rs     (one frame for all relays, kept for late ones)
//!                             |
//! relay   <- session.rs <- relay.rs     (pending publications, topics in round-robin)
//!         -> session.rs -> business.rs -> Event
//! ```
//!
//! The feature `smol` adds a shell with sockets, [`serve::Server`], and the feature `tls` TLS on
//! them.
#![forbid(unsafe_code)]

mod business;
mod event;
mod history;
mod inspect;
#[cfg(feature = "smol")]
mod line;
mod links;
mod receipts;
mod relay;
#[cfg(feature = "smol")]
pub mod serve;
mod session;
mod settings;
#[cfg(feature = "tls")]
pub mod tls;
mod topic;

pub use business::Business;
pub use event::{Event, NotOpen, RelayId};
pub use history::{History, Publication, PublishError};
pub use links::Links;
pub use relay::REQUESTS_MAX;
pub use session::Ended;
pub use settings::{Limits, Settings, Times};
pub use topic::Topic;

/// Truncates a text to at most `size_max` bytes, at a character boundary.
#[must_use]
pub fn cut(text: &str, size_max: usize) -> &str {
    text.get(..text.floor_char_boundary(size_max)).unwrap_or(text)
}
