//! Pages that were denied by name, remembered for a moment so that asking again costs nothing.
//!
//! A denial of a request that names a page is that page's alone: it is remembered by link, full
//! address and origin, in a table of the board from which the oldest goes first. A page that asks
//! again and again so costs the business server one request in [`DENIED_MS`].

use alloc::collections::VecDeque;

use super::{
    requests::Asker,
    texts::{Reason, Texts},
    time::Instant,
};

/// A denial is remembered for this time, so that a herd on a dead link costs one request.
pub(super) const DENIED_MS: u64 = 2_000;

/// The pages that were denied lately, the oldest first.
#[derive(Debug)]
pub struct Denials {
    rows: VecDeque<Row>,
    rows_max: usize,
}

#[derive(Debug)]
struct Row {
    /// The hash of the link's name: a link of no use is forgotten meanwhile.
    link: u64,
    page: Asker,
    until: Instant,
    reason: Reason,
}

impl Denials {
    /// Bytes of one row.
    pub const ROW_SIZE: usize = size_of::<Row>();

    /// None yet; room for so many.
    #[must_use]
    pub fn new(denials_max: u32) -> Self {
        Self { rows: VecDeque::with_capacity(denials_max as usize), rows_max: denials_max as usize }
    }

    /// How many are remembered.
    #[must_use]
    pub fn count(&self) -> usize {
        self.rows.len()
    }

    /// The reasons that are kept.
    pub(super) fn reasons(&self) -> impl Iterator<Item = Reason> {
        self.rows.iter().map(|row| row.reason)
    }

    /// Remembers that a page was denied; keeps a further use of the reason.
    pub(super) fn remember(&mut self, texts: &mut Texts, now: Instant, link: u64, page: Asker, reason: Reason) {
        if self.rows.len() >= self.rows_max {
            self.forget_oldest(texts);
        }
        let reason = texts.retain_reason(reason);
        self.rows.push_back(Row { link, page, until: now.after(DENIED_MS), reason });
    }

    /// Why a page is denied without asking, where it is; a further use of the reason.
    pub(super) fn remembered(&mut self, texts: &mut Texts, now: Instant, link: u64, page: Asker) -> Option<Reason> {
        self.sweep(texts, now);
        let reason = self.rows.iter().rev().find(|row| row.link == link && row.page == page)?.reason;
        Some(texts.retain_reason(reason))
    }

    /// A page was accepted by name: earlier denials of it are void.
    pub(super) fn forget(&mut self, texts: &mut Texts, link: u64, page: Asker) {
        while let Some(place) = self.rows.iter().position(|row| row.link == link && row.page == page) {
            if let Some(row) = self.rows.remove(place) {
                texts.release_reason(row.reason);
            }
        }
    }

    /// Forgets those whose time is over.
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
