//! A page's place in a track.
//!
//! A [`Cursor`] is all of a page's state on a track: the sequence that it expects next, and where
//! that is in the log. Owns the three kinds of place: an offset, an offset from which an init
//! segment is owed first, and none yet. `cursor.rs` works out what is ahead of a cursor.

/// A page's place in a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The next sequence; 0 if the page's counter is not set yet.
    pub sequence: u64,
    /// The offset in the track's log, with [`OWED`] set or not, or [`UNPLACED`].
    pub at: u64,
}

impl Cursor {
    /// Neither a sequence nor a place.
    pub const UNSET: Self = Self { sequence: 0, at: UNPLACED };

    /// Whether the place is an offset from which the log can be read.
    #[must_use]
    pub const fn is_placed(self) -> bool {
        self.at < OWED
    }

    /// The offset, or `other` if there is none yet.
    #[must_use]
    pub const fn or_at(self, other: u64) -> u64 {
        if self.is_placed() { self.at } else { other }
    }

    /// A place in a media track from which the page needs an init segment first: the first group
    /// that starts at or after an offset. `sequence` is that group's, or 0 if it is not known yet.
    #[must_use]
    pub const fn owed(sequence: u64, from: u64) -> Self {
        Self { sequence, at: from | OWED }
    }
}

/// No offset: the place must be found by the sequence.
pub const UNPLACED: u64 = u64::MAX;
/// Flag in an offset: from there an init segment is owed first.
pub const OWED: u64 = 1 << 63;
