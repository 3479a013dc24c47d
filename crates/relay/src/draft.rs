//! What one page is sent next, in the making: segments in their order, and the notices' bytes.
//!
//! One [`Draft`] serves all pages, one after the other, so nothing of it is made or moved for a delivery.
//! It is good for one moment: between [`Draft::begin`] and the next mutation that comes from outside. Within that
//! moment pages that stand in lockstep (the same topic, the same four cursors, nothing else to be told) are
//! sent the same bytes: what was worked out for the first of them is kept and serves the others.

use core::cell::Cell;

use heapless::Vec;

use super::{notice::OwnNotice, place::Cursor, subscription::Live, time::Instant, traffic::Share};
use wire::{Track, page::NOTICE_SIZE_MAX};

/// Segments of one draft, at most; what finds no room comes with the next.
pub(super) const SEGMENTS_MAX: usize = 24;
/// Bytes of notices in one draft, at most.
const NOTICES_SIZE_MAX: usize = 4 * NOTICE_SIZE_MAX;

/// What a page is sent next.
#[derive(Debug, Default)]
pub struct Draft {
    pub(super) now: Instant,
    pub(super) segments: Vec<Segment, SEGMENTS_MAX>,
    pub(super) notices: Vec<u8, NOTICES_SIZE_MAX>,
    pub(super) size: u64,
    pub(super) is_cut: bool,
    pub(super) is_shortened: bool,
    pub(super) is_between_frames: bool,
    pub(super) is_closing: bool,
    /// There where the segments are the same for every page in lockstep.
    pub(super) lockstep: Option<Lockstep>,
}

impl Draft {
    /// Begins a moment: what was known of pages in lockstep is forgotten.
    pub fn begin(&mut self, now: Instant) {
        self.now = now;
        self.lockstep = None;
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// Bytes to send.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Whether the ring overtook the page in the middle of a frame: the connection can only be cut.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Whether more waits behind it than found room.
    #[must_use]
    pub const fn is_shortened(&self) -> bool {
        self.is_shortened
    }

    /// Whether the connection stands between two frames, where others' frames may go out.
    #[must_use]
    pub const fn is_between_frames(&self) -> bool {
        self.is_between_frames
    }

    /// Whether the page is to be closed, and nothing of the relay's frames is left to finish.
    #[must_use]
    pub const fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// Whether a steady page's draft is the one before's: the page stands where that one stood. The segments'
    /// subscription is that one's still.
    pub(super) fn is_repeated(&self, live: &Live) -> bool {
        self.lockstep.as_ref().is_some_and(|step| step.topic == live.topic() && step.before == live.cursors)
    }

    /// Where the bytes for the pages in lockstep stand in the store, where they are one piece.
    pub(super) fn piece(&self) -> Option<&core::ops::Range<usize>> {
        self.lockstep.as_ref()?.piece.as_ref()
    }

    /// The bytes of a notice.
    pub(super) fn notice(&self, from: usize, size: u64) -> &[u8] {
        let rest = self.notices.get(from..).unwrap_or_default();
        usize::try_from(size).ok().and_then(|size| rest.get(..size)).unwrap_or_default()
    }

    /// There is no such page.
    pub(super) fn cut(&mut self) {
        self.clear();
        self.is_cut = true;
    }

    /// Empties it for the next page.
    pub(super) fn clear(&mut self) {
        self.segments.clear();
        self.notices.clear();
        self.size = 0;
        self.is_cut = false;
        self.is_shortened = false;
        self.is_between_frames = true;
        self.is_closing = false;
        self.lockstep = None;
    }
}

/// Pages in lockstep: where they stand, and where they are once they have been sent the draft's segments.
#[derive(Debug, Clone)]
pub(super) struct Lockstep {
    /// The topic's row.
    pub topic: u32,
    /// The cursors before.
    pub before: [Cursor; 4],
    /// The cursors behind it.
    pub after: [Cursor; 4],
    /// Publications, by track.
    pub deliveries: [u64; 4],
    /// States that were skipped for a newer one.
    pub superseded: u64,
    /// What one page's share of it counts.
    pub share: Share,
    /// The relay's own number of it, once a page was sent it.
    pub tally: Cell<u64>,
    /// The segments' bytes in the store, where they are one piece.
    pub piece: Option<core::ops::Range<usize>>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub size: u64,
    pub what: What,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    /// The rest of a log's frame that was begun.
    Rest,
    /// The rest of a notice that was begun, from a place among the draft's.
    RestOfNotice { from: usize },
    /// Frames of a log.
    Log {
        subscription: u32,
        topic: u32,
        track: Track,
        is_init: bool,
        from: u64,
        to: u64,
        after: Cursor,
        passes_epoch: bool,
    },
    /// A notice, from a place among the draft's.
    Notice { from: usize, notice: OwnNotice, effect: Effect },
}

impl What {
    /// The same for another page's subscription in lockstep.
    pub(super) fn of(mut self, page_subscription: u32) -> Self {
        if let Self::Log { subscription, .. } = &mut self {
            *subscription = page_subscription;
        }
        self
    }
}

/// What a notice changes once its first byte is on its way.
#[derive(Debug, Clone, Copy)]
pub(super) enum Effect {
    Subscribed { subscription: u32 },
    Over { subscription: u32 },
    Gap { subscription: u32, track: Track, after: Cursor, missed: u64 },
    Epoch { subscription: u32 },
    Uplink { up: bool },
    Error,
    Refused,
    Ping,
    Alive,
}
