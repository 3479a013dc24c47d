//! What pages are told of messages that have an id: taken by the business server, or refused.
//!
//! Owns the answers that wait for their pages' sockets: one list for each page, in one table of
//! fixed size. A page has at most as many as it may send at once, pages that read nothing have half
//! of the table, and where it is full an answer is dropped: in each case the page sends its message
//! again, under the same id, and the business server answers again. Knows no sockets and no frames.

use alloc::{boxed::Box, vec};

use super::table::NONE;
use board::Board;
use wire::page::MessageId;

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// The business server has the message.
    Sent,
    /// It was not sent.
    Unsent(Unsent),
}

/// Why a page's message was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsent {
    /// The page has no such topic.
    NoSubscription,
    /// The text is too long.
    TooLong,
    /// The link takes none.
    NotTaken,
    /// The page's rate is exceeded.
    TooOften,
    /// There is no business server, or it reads too slowly.
    Unreachable,
    /// The business server gives no receipts.
    NoReceipts,
}

impl Unsent {
    /// The reason, for the page.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NoSubscription => "this page has no subscription to that topic",
            Self::TooLong => "data has more than 512 bytes",
            Self::NotTaken => "this link takes no messages from pages",
            Self::TooOften => "too many messages: one a second",
            Self::Unreachable => "the business server can't be reached now: the message was not sent",
            Self::NoReceipts => "the business server gives no receipts: send it without an id",
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Row {
    id: MessageId,
    receipt: Receipt,
    next: u32,
}

/// A page's list.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    first: u32,
    last: u32,
    count: u16,
}

impl Waiting {
    /// An empty list.
    pub const NONE: Self = Self { first: NONE, last: NONE, count: 0 };

    /// Whether nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// However few messages a page may send at once, it may have so many answers: those that are
/// refused for its rate too.
const OF_PAGE_MIN: u16 = 4;

/// The table.
#[derive(Debug)]
pub struct Receipts {
    rows: Box<[Row]>,
    free: u32,
    used: u32,
    of_page_max: u16,
}

impl Receipts {
    /// The size of a row, in bytes.
    pub const ROW_SIZE: usize = size_of::<Row>();

    /// An empty table for the board's pages.
    #[must_use]
    pub fn new(board: &Board) -> Self {
        let empty = Row { id: [0; 16], receipt: Receipt::Sent, next: NONE };
        let mut rows = vec![empty; board.receipts_max() as usize].into_boxed_slice();
        let mut free = NONE;
        for (at, row) in (0..).zip(rows.iter_mut()) {
            row.next = core::mem::replace(&mut free, at);
        }
        let of_page_max = u16::try_from(board.sends_burst).unwrap_or(u16::MAX).max(OF_PAGE_MIN);
        Self { rows, free, used: 0, of_page_max }
    }

    /// Adds an answer for a page; `false` if there is no room. While `is_blocked`, the answer stays
    /// until the page reads: half of the table is for those that do.
    pub fn push(&mut self, page: &mut Waiting, is_blocked: bool, id: MessageId, receipt: Receipt) -> bool {
        let at = self.free;
        let is_crowded = is_blocked && self.used as usize >= self.rows.len() / 2;
        if is_crowded || page.count >= self.of_page_max {
            return false;
        }
        let Some(row) = self.rows.get_mut(at as usize) else { return false };
        self.free = row.next;
        self.used += 1;
        *row = Row { id, receipt, next: NONE };
        match self.rows.get_mut(page.last as usize) {
            Some(last) => last.next = at,
            None => page.first = at,
        }
        page.last = at;
        page.count += 1;
        true
    }

    /// A page's answers, oldest first.
    pub fn of(&self, page: &Waiting) -> impl Iterator<Item = (MessageId, Receipt)> {
        let first = self.rows.get(page.first as usize);
        core::iter::successors(first, |row| self.rows.get(row.next as usize)).map(|row| (row.id, row.receipt))
    }

    /// Removes a page's oldest answer.
    pub fn pop(&mut self, page: &mut Waiting) {
        let at = page.first;
        let Some(row) = self.rows.get_mut(at as usize) else { return };
        page.first = core::mem::replace(&mut row.next, core::mem::replace(&mut self.free, at));
        page.count -= 1;
        self.used -= 1;
        if page.first == NONE {
            page.last = NONE;
        }
    }

    /// Checks that the rows are those of these pages' lists and of the list of free ones.
    ///
    /// # Panics
    /// If a row is in none or in two.
    pub fn check<'a>(&self, pages: impl Iterator<Item = &'a Waiting>) {
        let mut used = 0;
        for page in pages {
            let count = self.of(page).take(self.rows.len() + 1).count();
            assert_eq!(count, usize::from(page.count), "BOUND: a page's receipts are counted wrongly");
            used += count;
        }
        let free = core::iter::successors(self.rows.get(self.free as usize), |row| self.rows.get(row.next as usize));
        let free = free.take(self.rows.len() + 1).count();
        assert_eq!((used, used + free), (self.used as usize, self.rows.len()), "BOUND: receipts were lost");
    }

    /// Removes all of a page's answers: it is gone.
    pub fn clear(&mut self, page: &mut Waiting) {
        while !page.is_empty() {
            self.pop(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::super::rig::BOARD;
    use super::*;

    #[test]
    fn each_page_gets_its_own_in_order_and_the_rows_come_back() {
        let mut receipts = Receipts::new(&Board { sends_burst: 1, ..BOARD });
        let mut pages = [Waiting::NONE; 2];
        for round in 0..100_u8 {
            for (at, page) in (0..).zip(pages.iter_mut()) {
                for n in 0..4 {
                    assert!(receipts.push(page, false, [round ^ n ^ at; 16], Receipt::Sent));
                }
                assert!(!receipts.push(page, false, [0; 16], Receipt::Sent), "more than it may send at once");
            }
            let ids: Vec<u8> = receipts.of(&pages[1]).map(|(id, _)| id[0]).collect();
            assert_eq!(ids, [round ^ 1, round, round ^ 3, round ^ 2]);
            receipts.pop(&mut pages[1]);
            assert_eq!(receipts.of(&pages[1]).count(), 3);
            pages.iter_mut().for_each(|page| receipts.clear(page));
            receipts.check(pages.iter());
            assert_eq!(receipts.used, 0);
        }
        let mut pages = [Waiting::NONE; 1_000];
        let mut taken = |is_blocked| {
            pages
                .iter_mut()
                .filter_map(|page| receipts.push(page, is_blocked, [1; 16], Receipt::Sent).then_some(()))
                .count()
        };
        let (blocked, others) = (taken(true), taken(false));
        assert_eq!(blocked, receipts.rows.len() / 2, "pages that read nothing leave room for others");
        assert_eq!(blocked + others, receipts.rows.len(), "a full table takes no more");
    }
}
