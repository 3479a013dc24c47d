//! The ready queue: pages that have something of their own to send, each once, first in, first out.
//!
//! A doubly linked list through the rows of the session table, so that a page that goes away leaves
//! it in constant time. Owns its two ends and the links in the rows. Doesn't know what is sent.

use super::table::{NONE, Table};

/// The ready queue.
#[derive(Debug)]
pub struct ReadyQueue {
    first: u32,
    last: u32,
}

/// A page's neighbours in the ready queue.
#[derive(Debug)]
pub struct ReadyLink {
    next: u32,
    previous: u32,
}

/// A row that can be in the ready queue.
pub trait InQueue {
    /// Its neighbours.
    fn ready(&self) -> &ReadyLink;
    /// The same, mutably, for the queue only.
    fn ready_mut(&mut self) -> &mut ReadyLink;
}

/// `next` of a page that is not in the queue.
const OUT: u32 = NONE - 1;

impl ReadyLink {
    /// The link of a page that is not in the queue.
    pub const OUT: Self = Self { next: OUT, previous: NONE };

    const fn is_out(&self) -> bool {
        self.next == OUT
    }
}

impl ReadyQueue {
    /// Checks that both ends are there, or none.
    ///
    /// # Panics
    /// If only one is.
    pub fn check_ends(&self) {
        assert_eq!(self.first == NONE, self.last == NONE, "the ready queue has only one end");
    }

    /// An empty queue.
    pub const EMPTY: Self = Self { first: NONE, last: NONE };

    /// Whether the queue is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.first == NONE
    }

    /// Appends a page unless it is in the queue already.
    pub fn push(&mut self, rows: &mut Table<impl InQueue>, page: u32) {
        if !rows[page].ready().is_out() {
            return;
        }
        let previous = core::mem::replace(&mut self.last, page);
        *rows[page].ready_mut() = ReadyLink { next: NONE, previous };
        match previous {
            NONE => self.first = page,
            last => rows[last].ready_mut().next = page,
        }
    }

    /// Takes the first page out.
    pub fn pop(&mut self, rows: &mut Table<impl InQueue>) -> Option<u32> {
        let page = self.first;
        (page != NONE).then(|| {
            self.leave(rows, page);
            page
        })
    }

    /// Takes a page out if it is in the queue.
    pub fn leave(&mut self, rows: &mut Table<impl InQueue>, page: u32) {
        if rows[page].ready().is_out() {
            return;
        }
        let ReadyLink { next, previous } = core::mem::replace(rows[page].ready_mut(), ReadyLink::OUT);
        match previous {
            NONE => self.first = next,
            previous => rows[previous].ready_mut().next = next,
        }
        match next {
            NONE => self.last = previous,
            next => rows[next].ready_mut().previous = previous,
        }
    }

    /// Checks that the queue holds each page that claims to be in it, once. For tests.
    ///
    /// # Panics
    /// If it doesn't.
    pub fn check(&self, rows: &Table<impl InQueue>) {
        let (mut at, mut last, mut len) = (self.first, NONE, 0);
        while at != NONE {
            assert_eq!(rows[at].ready().previous, last, "page {at} is chained backwards to another");
            (last, at, len) = (at, rows[at].ready().next, len + 1);
        }
        assert_eq!(self.last, last, "the ready queue ends elsewhere");
        let queued = rows.iter().filter(|(_, session)| !session.ready().is_out()).count();
        assert_eq!(queued, len, "a page is wrong about being in the ready queue");
    }
}
