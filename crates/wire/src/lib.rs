//! The encoding of the two protocols: no state of pages, topics or links, no sockets, no clock.
//!
//! [`uplink`] has the frames of the business server's side (postcard with a length prefix),
//! [`page`] those of the web page's side (WebSocket frames with JSON), [`json`] checks that a
//! publication is a valid JSON value. `docs/protocol.md` is the specification; `tests/vectors/` has
//! frozen test vectors.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

use serde::{Deserialize, Serialize};

pub mod json;
pub mod page;
pub mod uplink;

/// One of a topic's four tracks. The protocol fixes the number: it is used on the uplink, in
/// `since.next` and in the first byte of a binary frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Track {
    /// Values of which only the newest matters; older ones are superseded.
    State = 0,
    /// Messages, which are all delivered in order.
    Messages = 1,
    /// Audio: an init segment, then groups of chunks.
    Audio = 2,
    /// Video: an init segment, then groups of chunks.
    Video = 3,
}

impl Track {
    /// All four, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::State, Self::Messages, Self::Audio, Self::Video];

    /// The track's index in an array over all four.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Whether its publications are `Init`, `Start` and `Continue`, and not `Whole`.
    #[must_use]
    pub const fn is_media(self) -> bool {
        matches!(self, Self::Audio | Self::Video)
    }

    /// The track's name in the page protocol, in logs and on the console.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Messages => "messages",
            Self::Audio => "audio",
            Self::Video => "video",
        }
    }
}

/// The exclusive upper bound of sequences (2^53, so that all of them are exact in JavaScript).
pub const SEQUENCE_END: u64 = 1 << 53;
/// The maximum size of a share link, in bytes. A link is 1 or more of `A-Z a-z 0-9 - _ . ~`.
pub const LINK_SIZE_MAX: usize = 128;
/// The maximum size of a reason, and of a relay's name, in bytes.
pub const REASON_SIZE_MAX: usize = 256;
/// The maximum size of a MIME type, in bytes.
pub const MIME_SIZE_MAX: usize = 255;
/// The maximum size of a page's `send`, in bytes of UTF-8.
pub const PAGE_DATA_SIZE_MAX: usize = 512;
/// The maximum size of a publication's data, in bytes. Boards may lower it for each track.
pub const DATA_SIZE_MAX: usize = 1 << 20;

/// Whether this is a valid share link.
#[must_use]
pub fn is_link(link: &str) -> bool {
    (1..=LINK_SIZE_MAX).contains(&link.len())
        && link.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~'))
}
