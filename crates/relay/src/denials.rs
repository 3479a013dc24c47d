//! Pages that were denied by name, remembered for a moment so that asking again costs nothing.
//!
//! A denial of a request that names a page is that page's alone: it is remembered by link, full
//! address and origin, in a table of the board from which the oldest goes first. A page that asks
//! again and again so costs the business server one request in [`DENIED_MS`].

use alloc::collections::VecDeque;

use super::{Relay, link::Asker, texts::Reason, time::Instant};

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
}

impl Relay {
    /// Remembers that a page was denied; keeps a further use of the reason.
    pub(super) fn remember_denial(&mut self, now: Instant, link: u64, page: Asker, reason: Reason) {
        if self.denials.rows.len() >= self.denials.rows_max {
            self.forget_oldest_denial();
        }
        let reason = self.reasons.retain_reason(reason);
        self.denials.rows.push_back(Row { link, page, until: now.after(DENIED_MS), reason });
    }

    /// Why a page is denied without asking, where it is; a further use of the reason.
    pub(super) fn remembered_denial(&mut self, now: Instant, link: u64, page: Asker) -> Option<Reason> {
        self.sweep_denials(now);
        let reason = self.denials.rows.iter().rev().find(|row| row.link == link && row.page == page)?.reason;
        Some(self.reasons.retain_reason(reason))
    }

    /// A page was accepted by name: what was said of it before is over.
    pub(super) fn forget_denial(&mut self, link: u64, page: Asker) {
        while let Some(place) = self.denials.rows.iter().position(|row| row.link == link && row.page == page) {
            if let Some(row) = self.denials.rows.remove(place) {
                self.reasons.release_reason(row.reason);
            }
        }
    }

    /// Forgets those whose time is over.
    pub(super) fn sweep_denials(&mut self, now: Instant) {
        while self.denials.rows.front().is_some_and(|row| row.until <= now) {
            self.forget_oldest_denial();
        }
    }

    fn forget_oldest_denial(&mut self) {
        if let Some(row) = self.denials.rows.pop_front() {
            self.reasons.release_reason(row.reason);
        }
    }
}
