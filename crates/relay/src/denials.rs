//! Recent denials of single pages, so that a page that subscribes again costs no request.
//!
//! A denial of a request that names a page applies to that page alone: it is remembered by link,
//! full address and origin, in a table of the board's size that evicts the oldest row. A page that
//! keeps subscribing costs the business server one request per [`DENIED_MS`]. Doesn't know denials
//! of a link as a whole: those are in the link's row.

use alloc::collections::VecDeque;

use super::{
    requests::Asker,
    texts::{Reason, Texts},
    time::Instant,
};

/// How long a denial is remembered, so that many pages on a dead link cost one request.
pub(super) const DENIED_MS: u64 = 2_000;

/// The recent denials, oldest first.
#[derive(Debug)]
pub struct Denials {
    rows: VecDeque<Row>,
    rows_max: usize,
}

#[derive(Debug)]
struct Row {
    /// The hash of the link's name: the link's row may be removed in the meantime.
    link: u64,
    page: Asker,
    until: Instant,
    reason: Reason,
}

impl Denials {
    /// The size of one row, bytes.
    pub const ROW_SIZE: usize = size_of::<Row>();

    /// Creates an empty table with room for `denials_max`.
    #[must_use]
    pub fn new(denials_max: u32) -> Self {
        Self { rows: VecDeque::with_capacity(denials_max as usize), rows_max: denials_max as usize }
    }

    /// The number of remembered denials.
    #[must_use]
    pub fn count(&self) -> usize {
        self.rows.len()
    }

    /// The reasons that the rows use.
    pub(super) fn reasons(&self) -> impl Iterator<Item = Reason> {
        self.rows.iter().map(|row| row.reason)
    }

    /// Remembers that a page was denied, with one more use of the reason.
    pub(super) fn remember(&mut self, texts: &mut Texts, now: Instant, link: u64, page: Asker, reason: Reason) {
        if self.rows.len() >= self.rows_max {
            self.forget_oldest(texts);
        }
        let reason = texts.retain_reason(reason);
        self.rows.push_back(Row { link, page, until: now.after(DENIED_MS), reason });
    }

    /// The reason of a page's remembered denial, with one more use of it.
    pub(super) fn remembered(&mut self, texts: &mut Texts, now: Instant, link: u64, page: Asker) -> Option<Reason> {
        self.sweep(texts, now);
        let reason = self.rows.iter().rev().find(|row| row.link == link && row.page == page)?.reason;
        Some(texts.retain_reason(reason))
    }

    /// Forgets a page's denials, since it was accepted by name.
    pub(super) fn forget(&mut self, texts: &mut Texts, link: u64, page: Asker) {
        while let Some(place) = self.rows.iter().position(|row| row.link == link && row.page == page) {
            if let Some(row) = self.rows.remove(place) {
                texts.release_reason(row.reason);
            }
        }
    }

    /// Forgets expired denials.
    pub(super) fn sweep(&mut self, texts: &mut Texts, now: Instant) {
        while self.rows.front().is_some_and(|row| row.until <= now) {
            self.forget_oldest(texts);
        }
    }

    fn forget_oldest(&mut self, texts: &mut Texts) {
        if let Some(row) = self.rows.pop_front() {
            texts.release_reason(row.reason);
        }
    }
}
