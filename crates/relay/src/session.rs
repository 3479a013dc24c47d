//! A session: one page's connection; and its subscriptions, which are pages' cursors.
//!
//! Rows of two tables and the lists that run through them: a page's subscriptions (a chain), a
//! topic's subscriptions (a ring, walked by the fan-out), a link's waiting subscriptions (a ring
//! too). A session holds no queue: what it still has to be told is a few flags and its cursors.

use core::net::IpAddr;

use super::{
    notice::OwnNotice,
    rate::Bucket,
    table::{NONE, Table},
    texts::Reason,
    time::{Instant, Stamp},
};
use board::Board;

/// One page's connection.
#[derive(Debug)]
pub struct Session {
    /// The page's number at the business server: never used again while the relay runs.
    pub number: u32,
    /// Where the page is.
    pub address: IpAddr,
    /// The row of its network among those that pages come from.
    pub network: u32,
    /// The row of the `Origin` that it came with; [`NONE`] without one.
    pub origin: u32,
    /// The first of its subscriptions.
    pub first: u32,
    /// Subscriptions that are waiting or live.
    pub subscriptions: u16,
    /// Those of them that are live.
    pub live: u16,
    /// The next session of the ready queue.
    pub ready_next: u32,
    /// The one before it.
    pub ready_previous: u32,
    /// What was begun and not finished.
    pub half: Half,
    /// The page is to be closed with this.
    pub closing: Option<Close>,
    /// An error to be told.
    pub error: Option<&'static str>,
    /// A `subscribe` that found no row at all: its `id`.
    pub refused: Option<u32>,
    /// Protocol errors so far.
    pub faults: u8,
    /// Whether the page believes that the uplink is up.
    pub told_up: bool,
    /// A ping is to be sent.
    pub ping_due: bool,
    /// An `alive` is to be sent.
    pub alive_due: bool,
    /// In the ready queue.
    pub queued: bool,
    /// The socket took no more: nothing is written until it is writable.
    pub blocked: bool,
    /// It had a live subscription at some time.
    pub has_watched: bool,
    /// A denial with a `retry` told it to come back, since it last had a live subscription.
    pub may_return: bool,
    /// What it may send while nothing is read from it is counted in `kernel_size`.
    pub is_unread: bool,
    /// It is to be cut off.
    pub cut: bool,
    /// How far behind it may be.
    pub pace: Pace,
    /// `subscribe` frames that it may send.
    pub asks: Bucket,
    /// `send` frames that it may send.
    pub sends: Bucket,
    /// When it connected.
    pub opened: Stamp,
    /// Since when it has no live subscription, while it has none.
    pub unsubscribed: Stamp,
    /// When something came from it.
    pub heard: Stamp,
    /// When the socket took something.
    pub wrote: Stamp,
    /// When it was last told anything but a ping.
    pub told: Stamp,
    /// When it was last pinged.
    pub pinged: Stamp,
    /// When the first ping went out that nothing was heard behind; not later than `heard` where there is none.
    pub unanswered: Stamp,
    /// Bytes in the kernel: as measured, and what was written since at its most.
    pub kernel_size: u32,
}

/// How far behind a page may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// It never subscribed to anything.
    Newcomer,
    /// It may lack more than the newest: how soon it gets something says nothing of the relay.
    CatchesUp,
    /// It was sent everything that there was.
    KeepsUp,
}

/// A page is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// The WebSocket close code.
    pub code: u16,
    /// Why.
    pub reason: Reason,
    /// When it should come back, milliseconds.
    pub retry_ms: Option<u32>,
    /// Since when.
    pub at: Stamp,
}

/// The frame that a full socket cut in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// None: the connection stands between two frames.
    None,
    /// The rest of a log's frame.
    Frame {
        /// Its row among those that were begun.
        frame: u32,
        /// The next byte: an offset of the log.
        at: u64,
    },
    /// The rest of a notice, which is encoded once more.
    Notice {
        /// The notice; its reason is in use.
        notice: OwnNotice,
        /// Bytes sent.
        sent: u16,
    },
}

impl Session {
    /// The network whose share of links and requests it counts for; [`NONE`] for loopback, which may be anybody's proxy.
    #[must_use]
    pub const fn shares_with(&self) -> u32 {
        if self.address.is_loopback() { NONE } else { self.network }
    }

    /// A ping went out.
    pub const fn pinged(&mut self, now: Instant) {
        self.ping_due = false;
        self.pinged = now.stamp();
        if !self.heard.is_before(self.unanswered) {
            self.unanswered = now.stamp();
        }
    }

    /// Whether the page is dead: nothing was heard from it for the time that the board allows, although a ping has had time
    /// to be answered. A blocked page isn't read, and one in the middle of a frame can't be pinged: those are
    /// judged by their progress.
    #[must_use]
    pub const fn is_dead(&self, now: Instant, board: &Board) -> bool {
        !self.blocked
            && self.heard.age_ms(now) > board.dead_ms as u64
            && self.heard.is_before(self.unanswered)
            && self.unanswered.age_ms(now) >= board.ping_ms as u64
    }
}

/// A page's place in a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The next sequence; 0 where the page's counter is not set yet.
    pub sequence: u64,
    /// The offset in the track's log, perhaps with [`OWED`], or [`UNPLACED`].
    pub at: u64,
}

impl Cursor {
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

/// One page's interest in one link.
#[derive(Debug)]
pub struct Subscription {
    /// The page's row.
    pub page: u32,
    /// The link's row; [`NONE`] once it is over.
    pub link: u32,
    /// The page's own number for its request.
    pub id: u32,
    /// The page's next subscription.
    pub sibling: u32,
    /// The ring that it is in: its topic's, or its link's waiting ones.
    pub next: u32,
    /// The same, backwards.
    pub previous: u32,
    /// How far it has come.
    pub stage: Stage,
}

/// How far a subscription has come.
#[derive(Clone, Copy, Debug)]
pub enum Stage {
    /// Waits for the business server's answer.
    Waiting {
        /// A request of its own is under way.
        asked: bool,
        /// From when.
        from: Stamp,
        /// Where the page was: the epoch and the next message; 0 for a late page.
        since: (u64, u64),
        /// Its place among those that wait for the link: each one's is higher than the one's before.
        ticket: u32,
    },
    /// Is served.
    Live(Live),
    /// The page is to be told that it is over.
    Over {
        /// The topic's number; none where the page never had it: then it is `denied`.
        topic: Option<u32>,
        /// Why.
        reason: Reason,
        /// When asking again makes sense, milliseconds.
        retry_ms: Option<u32>,
    },
}

/// A subscription that is served.
#[derive(Clone, Copy, Debug)]
pub struct Live {
    /// The topic's row.
    pub topic: u32,
    /// Its place in each track.
    pub cursors: [Cursor; 4],
    /// `subscribed` is still to be told.
    pub unconfirmed: bool,
    /// Its messages cursor is in the epoch before the topic's.
    pub behind_epoch: bool,
    /// Admitted by a grant that is not shared.
    pub own: bool,
    /// To be asked for again, since the uplink was lost.
    pub ask_again: bool,
    /// A request of its own is under way.
    pub asked: bool,
    /// Its place in the messages came from the page alone, and the topic has not got there yet.
    pub claimed: bool,
}

impl Subscription {
    /// What it is served, if it is.
    #[must_use]
    pub const fn live(&self) -> Option<&Live> {
        match &self.stage {
            Stage::Live(live) => Some(live),
            _ => None,
        }
    }

    /// What it is served, to change it.
    #[must_use]
    pub const fn live_mut(&mut self) -> Option<&mut Live> {
        match &mut self.stage {
            Stage::Live(live) => Some(live),
            _ => None,
        }
    }
}

/// Puts a subscription into the ring that `head` points into, as its last.
pub fn ring_insert(subscriptions: &mut Table<Subscription>, head: &mut u32, index: u32) {
    if *head == NONE {
        *head = index;
        (subscriptions[index].next, subscriptions[index].previous) = (index, index);
        return;
    }
    let (next, previous) = (*head, subscriptions[*head].previous);
    (subscriptions[index].next, subscriptions[index].previous) = (next, previous);
    subscriptions[previous].next = index;
    subscriptions[next].previous = index;
}

/// Takes a subscription out of the ring that `head` points into.
pub fn ring_remove(subscriptions: &mut Table<Subscription>, head: &mut u32, index: u32) {
    let (next, previous) = (subscriptions[index].next, subscriptions[index].previous);
    subscriptions[previous].next = next;
    subscriptions[next].previous = previous;
    if *head == index {
        *head = if next == index { NONE } else { next };
    }
    (subscriptions[index].next, subscriptions[index].previous) = (NONE, NONE);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(table: &Table<Subscription>, head: u32) -> Vec<u32> {
        let mut seen = Vec::new();
        let mut at = head;
        while at != NONE && !seen.contains(&at) {
            seen.push(at);
            at = table[at].next;
        }
        seen
    }

    #[test]
    fn rings_keep_their_order() {
        let mut table = Table::new(4);
        for page in 0..4 {
            let stage = Stage::Waiting { asked: false, from: Stamp::default(), since: (0, 0), ticket: 0 };
            let row = Subscription { page, link: 0, id: 0, sibling: NONE, next: NONE, previous: NONE, stage };
            assert!(table.insert(row).is_ok());
        }
        let mut head = NONE;
        for index in 0..4 {
            ring_insert(&mut table, &mut head, index);
        }
        assert_eq!(walk(&table, head), [0, 1, 2, 3]);
        ring_remove(&mut table, &mut head, 0);
        ring_remove(&mut table, &mut head, 2);
        assert_eq!(walk(&table, head), [1, 3]);
        ring_remove(&mut table, &mut head, 3);
        ring_remove(&mut table, &mut head, 1);
        assert_eq!(head, NONE);
    }
}
