//! Where a page is in a track.
//!
//! A [`Cursor`] is the page's whole state on a track: the next sequence that it expects, and where in the log that
//! stands. Owns the three kinds of place: an offset, an offset behind which an init segment is owed, and none yet. What is
//! ahead of a cursor is worked out in `cursor.rs`.

/// A page's place in a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The next sequence; 0 where the page's counter is not set yet.
    pub sequence: u64,
    /// The offset in the track's log, perhaps with [`OWED`], or [`UNPLACED`].
    pub at: u64,
}

impl Cursor {
    /// Neither a counter nor a place.
    pub const UNSET: Self = Self { sequence: 0, at: UNPLACED };

    /// Whether the place is an offset from which the log can be read on.
    #[must_use]
    pub const fn is_placed(self) -> bool {
        self.at < OWED
    }

    /// The offset, or another one where there is none yet.
    #[must_use]
    pub const fn or_at(self, other: u64) -> u64 {
        if self.is_placed() { self.at } else { other }
    }

    /// A place in a media track from where the page needs an init segment first: the first group that
    /// starts at or behind an offset. `sequence` is the group's, or 0 where it is not known yet.
    #[must_use]
    pub const fn owed(sequence: u64, from: u64) -> Self {
        Self { sequence, at: from | OWED }
    }
}

/// No offset: the place is to be found by the sequence.
pub const UNPLACED: u64 = u64::MAX;
/// Set in an offset from where an init segment is owed first.
pub const OWED: u64 = 1 << 63;
