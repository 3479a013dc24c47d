//! The business server's side of the uplink, as a library.
//!
//! Pure: no socket, no clock, no task, no decision about who may see what. [`Business`] owns the topics and the
//! relays that are connected. The caller moves bytes between it and sockets, tells it the time, answers
//! [`Event::Asked`], and publishes. A track is a ring of uplink frames, encoded once, and a relay is a cursor into it:
//! a relay that reads slowly misses what its ring forgot, and costs no memory beyond its cursor.
//!
//! ```text
//! publish -> topic.rs -> history.rs  (one frame for all relays, kept as long as late ones need it)
//!                             |
//! relay   <- session.rs <- relay.rs     (what is ahead of it, topics in turn)
//!         -> session.rs -> business.rs -> Event
//! ```
//!
//! With the feature `smol` there is a shell around it, [`serve::Server`].
#![forbid(unsafe_code)]

mod business;
mod event;
mod history;
mod links;
mod relay;
#[cfg(feature = "smol")]
pub mod serve;
mod session;
mod settings;
mod topic;

pub use business::Business;
pub use event::{Event, NotOpen, RelayId};
pub use history::{History, Publication, PublishError};
pub use links::Links;
pub use session::Ended;
pub use settings::{Limits, Settings, Times};
pub use topic::Topic;

/// The longest beginning of a text with at most `size_max` bytes.
#[must_use]
pub fn cut(text: &str, size_max: usize) -> &str {
    text.get(..text.floor_char_boundary(size_max)).unwrap_or(text)
}
