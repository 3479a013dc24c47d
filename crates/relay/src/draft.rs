//! A draft: what one page is sent next, as segments in order and the bytes of its notices.
//!
//! One [`Draft`] serves all pages one after the other, so a delivery allocates and moves nothing.
//! It is valid from [`Draft::begin`] until the next mutation from outside. During that time pages
//! in lockstep (the same topic, the same four cursors, nothing else to be sent) get the same bytes:
//! the result for the first of them is kept and reused for the others.

use core::cell::Cell;

use heapless::Vec;

use super::{notice::OwnNotice, position::Cursor, subscription::Live, time::Instant, traffic::Share};
use wire::{Track, page::NOTICE_SIZE_MAX};

/// Most segments of one draft; the rest follows with the next.
pub(super) const SEGMENTS_MAX: usize = 24;
/// Most bytes of notices in one draft.
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
    /// Bytes of its first segment that are one run which was begun before.
    pub(super) run: u64,
    /// Set if the segments are the same for every page in lockstep.
    pub(super) lockstep: Option<Lockstep>,
}

impl Draft {
    /// Sets the time and forgets what is known of pages in lockstep.
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

    /// Whether the connection has to be cut: the page is gone, or the rest of its frame is lost.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Whether there is more to send than fitted into the draft.
    #[must_use]
    pub const fn is_shortened(&self) -> bool {
        self.is_shortened
    }

    /// Whether the connection is between two of the relay's frames, so that control frames may be
    /// sent.
    #[must_use]
    pub const fn is_between_frames(&self) -> bool {
        self.is_between_frames
    }

    /// Whether the page is being closed and no frame of the relay's is left to finish.
    #[must_use]
    pub const fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// Whether the current draft is also this page's: its topic and cursors are those of the page
    /// that it was planned for. The segments still name that page's subscription.
    pub(super) fn is_repeated(&self, live: &Live) -> bool {
        self.lockstep.as_ref().is_some_and(|lockstep| lockstep.topic == live.topic() && lockstep.before == live.cursors)
    }

    /// The range of the bytes in the store for the pages in lockstep, if they are one contiguous
    /// piece.
    pub(super) fn piece(&self) -> Option<&core::ops::Range<usize>> {
        self.lockstep.as_ref()?.piece.as_ref()
    }

    /// The bytes of a notice.
    pub(super) fn notice(&self, from: usize, size: u64) -> &[u8] {
        let rest = self.notices.get(from..).unwrap_or_default();
        usize::try_from(size).ok().and_then(|size| rest.get(..size)).unwrap_or_default()
    }

    /// Marks the draft of a page that is gone.
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
        self.run = 0;
        self.lockstep = None;
    }
}

/// Pages in lockstep: their cursors, and those after they were sent the draft's segments.
#[derive(Debug, Clone)]
pub(super) struct Lockstep {
    /// The topic's row.
    pub topic: u32,
    /// The cursors before.
    pub before: [Cursor; 4],
    /// The cursors after it.
    pub after: [Cursor; 4],
    /// Publications delivered, by track.
    pub deliveries: [u64; 4],
    /// States that were skipped for a newer one.
    pub superseded: u64,
    /// What the delivery to one page adds to the traffic counts.
    pub share: Share,
    /// The number that [`Tally::add_lockstep`](super::traffic::Tally::add_lockstep) gave it; 0
    /// until the first page was sent it.
    pub tally: Cell<u64>,
    /// The range of the segments' bytes in the store, if they are one contiguous piece.
    pub piece: Option<core::ops::Range<usize>>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub size: u64,
    pub what: What,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    /// The rest of a log's frame that was partly sent.
    Rest,
    /// The rest of a notice that was partly sent, at an offset in the draft's notices.
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
    /// A notice, at an offset in the draft's notices.
    Notice { from: usize, notice: OwnNotice, effect: Effect },
}

impl What {
    /// The same segment for another page in lockstep, with its subscription.
    pub(super) fn of(mut self, page_subscription: u32) -> Self {
        if let Self::Log { subscription, .. } = &mut self {
            *subscription = page_subscription;
        }
        self
    }
}

/// What changes once the first byte of a notice is sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Effect {
    Subscribed { subscription: u32, known: u32 },
    Over { subscription: u32 },
    Gap { subscription: u32, track: Track, after: Cursor, missed: u64 },
    Epoch { subscription: u32 },
    Uplink { known: u32 },
    Receipt,
    Error,
    Refused,
    Ping,
    AliveAsked,
    Alive,
}
