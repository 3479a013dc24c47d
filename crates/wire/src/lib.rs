//! The two protocols' bytes, and nothing else: no state of pages, topics or links, no socket, no clock.
//!
//! [`uplink`] is the business server's side (postcard frames behind a length), [`page`] the web
//! page's side (WebSocket frames, JSON text), [`json`] checks that a publication's bytes are one
//! JSON value. `docs/protocol.md` is the contract; `tests/vectors/` freezes it.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

use serde::{Deserialize, Serialize};

pub mod json;
pub mod page;
pub mod uplink;

/// One of a topic's four sequences. The number is the contract's: on the uplink, in `since.next`
/// and in the first byte of a binary frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Track {
    /// The newest value counts; those between are superseded.
    State = 0,
    /// Every one counts, in order.
    Messages = 1,
    /// Sound: groups of chunks behind an init segment.
    Audio = 2,
    /// Moving picture: groups of chunks behind an init segment.
    Video = 3,
}

impl Track {
    /// All four, in the contract's order.
    pub const ALL: [Self; 4] = [Self::State, Self::Messages, Self::Audio, Self::Video];

    /// The track's place in an array over all four.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Whether its publications are `Init`, `Start` and `Continue` (and not `Whole`).
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

/// Sequences stay below this (2^53: every one of them is exact in JavaScript).
pub const SEQUENCE_END: u64 = 1 << 53;
/// A share link is 1 to so many bytes of `A-Z a-z 0-9 - _ . ~`.
pub const LINK_SIZE_MAX: usize = 128;
/// A reason, or a relay's name, in bytes.
pub const REASON_SIZE_MAX: usize = 256;
/// A MIME type, in bytes.
pub const MIME_SIZE_MAX: usize = 255;
/// What a page may send in one `send`, in bytes of UTF-8.
pub const PAGE_DATA_SIZE_MAX: usize = 512;
/// A publication's data, in bytes; boards allow each track less.
pub const DATA_SIZE_MAX: usize = 1 << 20;

/// Whether these are the bytes of a share link.
#[must_use]
pub fn is_link(link: &str) -> bool {
    (1..=LINK_SIZE_MAX).contains(&link.len())
        && link.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~'))
}
