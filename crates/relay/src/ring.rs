//! A ring of subscriptions: those of one topic, or those that wait for one link.
//!
//! A doubly linked ring that runs through the rows of the table of subscriptions, so that joining and leaving cost
//! the same however many there are. Owns its head and its count, and the links in the rows: nobody else can change
//! either, so the count is always the ring's. A subscription is in one ring at most. Doesn't know what it is for.

use super::{
    subscription::Subscription,
    table::{NONE, Table},
};

/// A ring of subscriptions.
#[derive(Debug)]
pub struct Ring {
    head: u32,
    len: u32,
}

/// A subscription's neighbours in the ring that it is in.
#[derive(Debug)]
pub struct RingLink {
    next: u32,
    previous: u32,
}

/// A walk once around a ring, from its head. The subscription that it named last may leave the ring meanwhile, and no
/// other one.
#[derive(Debug)]
pub struct Walk {
    at: u32,
    left: u32,
}

impl RingLink {
    /// Those of a subscription that is in no ring.
    pub const NONE: Self = Self { next: NONE, previous: NONE };
}

impl Ring {
    /// A ring without subscriptions.
    pub const EMPTY: Self = Self { head: NONE, len: 0 };

    /// How many subscriptions are in it.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether none is in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first of it; [`NONE`] without.
    #[must_use]
    pub const fn first(&self) -> u32 {
        self.head
    }

    /// The last of it; [`NONE`] without.
    #[must_use]
    pub fn last(&self, rows: &Table<Subscription>) -> u32 {
        rows.get(self.head).map_or(NONE, |first| first.ring.previous)
    }

    /// A walk over all of it.
    #[must_use]
    pub const fn walk(&self) -> Walk {
        Walk { at: self.head, left: self.len }
    }

    /// Puts a subscription that is in no ring into this one, as its last.
    pub fn join(&mut self, rows: &mut Table<Subscription>, index: u32) {
        self.len += 1;
        if self.head == NONE {
            self.head = index;
            rows[index].ring = RingLink { next: index, previous: index };
            return;
        }
        let (next, previous) = (self.head, rows[self.head].ring.previous);
        rows[index].ring = RingLink { next, previous };
        rows[previous].ring.next = index;
        rows[next].ring.previous = index;
    }

    /// Takes one of its subscriptions out of the ring.
    pub fn leave(&mut self, rows: &mut Table<Subscription>, index: u32) {
        let RingLink { next, previous } = core::mem::replace(&mut rows[index].ring, RingLink::NONE);
        self.len -= 1;
        if next == index {
            self.head = NONE;
            return;
        }
        rows[previous].ring.next = next;
        rows[next].ring.previous = previous;
        if self.head == index {
            self.head = next;
        }
    }

    /// Turns the ring by one: its first becomes its last. The one that was first; [`NONE`] without.
    pub fn turn(&mut self, rows: &Table<Subscription>) -> u32 {
        let first = self.head;
        if let Some(row) = rows.get(first) {
            self.head = row.ring.next;
        }
        first
    }

    /// Checks that the ring comes back to its head: for tests. All of its subscriptions.
    ///
    /// # Panics
    /// Where it is broken.
    #[must_use]
    pub fn check(&self, rows: &Table<Subscription>) -> alloc::vec::Vec<u32> {
        let mut seen = alloc::vec::Vec::new();
        let mut walk = self.walk();
        while let Some(at) = walk.next(rows) {
            let next = rows[at].ring.next;
            assert_eq!(rows[next].ring.previous, at, "the ring is broken between subscriptions {at} and {next}");
            seen.push(at);
        }
        assert_eq!(walk.at, self.head, "a ring of {} does not come back to its head", self.len);
        seen
    }
}

impl Walk {
    /// The next subscription of the walk.
    pub fn next(&mut self, rows: &Table<Subscription>) -> Option<u32> {
        self.left = self.left.checked_sub(1)?;
        let next = rows[self.at].ring.next;
        Some(core::mem::replace(&mut self.at, next))
    }
}

#[cfg(test)]
mod tests {
    use super::super::subscription::tests::rows;
    use super::*;

    #[test]
    fn rings_keep_their_order() {
        let mut rows = rows(4);
        let mut ring = Ring::EMPTY;
        for index in 0..4 {
            ring.join(&mut rows, index);
        }
        assert_eq!(ring.check(&rows), [0, 1, 2, 3]);
        assert_eq!((ring.first(), ring.last(&rows)), (0, 3));
        assert_eq!(ring.turn(&rows), 0);
        assert_eq!(ring.check(&rows), [1, 2, 3, 0]);
        ring.leave(&mut rows, 0);
        ring.leave(&mut rows, 2);
        assert_eq!(ring.check(&rows), [1, 3]);
        ring.leave(&mut rows, 3);
        ring.leave(&mut rows, 1);
        assert_eq!((ring.first(), ring.last(&rows), ring.len()), (NONE, NONE, 0));
    }

    #[test]
    fn the_one_that_a_walk_named_last_may_leave() {
        let mut rows = rows(3);
        let mut ring = Ring::EMPTY;
        (0..3).for_each(|index| ring.join(&mut rows, index));
        let mut walk = ring.walk();
        let mut seen = Vec::new();
        while let Some(at) = walk.next(&rows) {
            seen.push(at);
            ring.leave(&mut rows, at);
        }
        assert_eq!((seen, ring.len()), (vec![0, 1, 2], 0));
    }
}
