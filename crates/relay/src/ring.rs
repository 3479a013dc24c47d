//! A ring of rows: the subscriptions of one topic, or those that wait for one link.
//!
//! A doubly linked ring through the rows of a table, so joining and leaving take constant time.
//! Owns its head, its count and the links in the rows; no other code changes them, so the count
//! is always right. A row is in at most one ring. Doesn't know what its rows are.

use super::table::{NONE, Table};

/// A ring of rows.
#[derive(Debug)]
pub struct Ring {
    head: u32,
    len: u32,
}

/// A row's neighbours in the ring that it is in.
#[derive(Debug)]
pub struct RingLink {
    next: u32,
    previous: u32,
}

/// A row that can be in a ring.
pub trait InRing {
    /// Its neighbours.
    fn ring(&self) -> &RingLink;
    /// The same, mutably, for the ring only.
    fn ring_mut(&mut self) -> &mut RingLink;
}

/// A walk once around a ring, from its head. Only the row that it returned last may leave the ring
/// meanwhile.
#[derive(Debug)]
pub struct Walk {
    at: u32,
    left: u32,
}

impl RingLink {
    /// The links of a row that is in no ring.
    pub const NONE: Self = Self { next: NONE, previous: NONE };
}

impl Ring {
    /// An empty ring.
    pub const EMPTY: Self = Self { head: NONE, len: 0 };

    /// The number of rows in it.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether it is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its first row; [`NONE`] if empty.
    #[must_use]
    pub const fn first(&self) -> u32 {
        self.head
    }

    /// Its last row; [`NONE`] if empty.
    #[must_use]
    pub fn last(&self, rows: &Table<impl InRing>) -> u32 {
        rows.get(self.head).map_or(NONE, |first| first.ring().previous)
    }

    /// A walk over all its rows.
    #[must_use]
    pub const fn walk(&self) -> Walk {
        Walk { at: self.head, left: self.len }
    }

    /// Appends a row that is in no ring.
    pub fn join(&mut self, rows: &mut Table<impl InRing>, index: u32) {
        self.len += 1;
        if self.head == NONE {
            self.head = index;
            *rows[index].ring_mut() = RingLink { next: index, previous: index };
            return;
        }
        let (next, previous) = (self.head, rows[self.head].ring().previous);
        *rows[index].ring_mut() = RingLink { next, previous };
        rows[previous].ring_mut().next = index;
        rows[next].ring_mut().previous = index;
    }

    /// Takes one of its rows out.
    pub fn leave(&mut self, rows: &mut Table<impl InRing>, index: u32) {
        let RingLink { next, previous } = core::mem::replace(rows[index].ring_mut(), RingLink::NONE);
        self.len -= 1;
        if next == index {
            self.head = NONE;
            return;
        }
        rows[previous].ring_mut().next = next;
        rows[next].ring_mut().previous = previous;
        if self.head == index {
            self.head = next;
        }
    }

    /// Rotates the ring by one: its first row becomes its last. Returns the row that was first;
    /// [`NONE`] if empty.
    pub fn turn(&mut self, rows: &Table<impl InRing>) -> u32 {
        let first = self.head;
        if let Some(row) = rows.get(first) {
            self.head = row.ring().next;
        }
        first
    }

    /// Checks that the ring comes back to its head, and returns its rows. For tests.
    ///
    /// # Panics
    /// If it is broken.
    #[must_use]
    pub fn check(&self, rows: &Table<impl InRing>) -> alloc::vec::Vec<u32> {
        let mut seen = alloc::vec::Vec::new();
        let mut walk = self.walk();
        while let Some(at) = walk.next(rows) {
            let next = rows[at].ring().next;
            assert_eq!(rows[next].ring().previous, at, "the ring is broken between rows {at} and {next}");
            assert!(seen.is_empty() || at != self.head, "a ring of {} meets its head early", self.len);
            seen.push(at);
        }
        assert_eq!(walk.at, self.head, "a ring of {} does not come back to its head", self.len);
        seen
    }
}

impl Walk {
    /// The next row of the walk.
    pub fn next(&mut self, rows: &Table<impl InRing>) -> Option<u32> {
        self.left = self.left.checked_sub(1)?;
        let next = rows[self.at].ring().next;
        Some(core::mem::replace(&mut self.at, next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Row(RingLink);

    impl InRing for Row {
        fn ring(&self) -> &RingLink {
            &self.0
        }

        fn ring_mut(&mut self) -> &mut RingLink {
            &mut self.0
        }
    }

    fn rows(count: u32) -> Table<Row> {
        let mut rows = Table::new(count);
        for _ in 0..count {
            assert!(rows.insert(Row(RingLink::NONE)).is_ok());
        }
        rows
    }

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
    fn the_row_that_a_walk_returned_last_may_leave() {
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
