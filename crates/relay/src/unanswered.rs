//! Requests that were given up, remembered so that an answer which comes late still counts.
//!
//! A business server that is busy may answer after the relay's patience is over. A `Deny` must not
//! be lost by that: somebody may have lost access. The last `requests_max` of them are remembered,
//! the oldest goes first, and all of them with their connection. Rows are named by ids with a
//! generation, so that what is gone is not mistaken for what came in its place.

use alloc::collections::VecDeque;

use super::{
    Relay,
    link::{Asker, Link, Request},
    session::Subscription,
    table::{Id, NONE},
    time::Instant,
};

/// Requests that were given up, the oldest first.
#[derive(Debug)]
pub struct Unanswered {
    rows: VecDeque<Row>,
    rows_max: usize,
}

#[derive(Debug)]
struct Row {
    number: u32,
    link: Id<Link>,
    asker: Option<Id<Subscription>>,
    page: Option<Asker>,
    for_preview: bool,
    order: u64,
    replay: (u64, u64),
}

impl Unanswered {
    /// Bytes of one row.
    pub const ROW_SIZE: usize = size_of::<Row>();

    /// None yet; room for `requests_max`.
    #[must_use]
    pub fn new(requests_max: u32) -> Self {
        Self { rows: VecDeque::with_capacity(requests_max as usize), rows_max: requests_max as usize }
    }

    /// Forgets all of them: their connection is gone.
    pub fn clear(&mut self) {
        self.rows.clear();
    }

    /// How many are remembered.
    #[must_use]
    pub fn count(&self) -> usize {
        self.rows.len()
    }
}

impl Relay {
    /// Remembers a request that was given up.
    pub(super) fn remember_unanswered(&mut self, request: &Request) {
        let Some(link) = self.links.id(request.link) else { return };
        let rows = &mut self.unanswered;
        if rows.rows.len() >= rows.rows_max {
            rows.rows.pop_front();
        }
        rows.rows.push_back(Row {
            number: request.number,
            link,
            asker: self.subscriptions.id(request.asker),
            page: request.page,
            for_preview: request.for_preview,
            order: request.order,
            replay: request.replay,
        });
    }

    /// The request that an answer names: one under way, or one that was given up and whose link is
    /// still of use. Its link is held until [`let_go`](Self::let_go).
    pub(super) fn take_answered(&mut self, number: u32) -> Option<Request> {
        if let Some(request) = self.take_request(number) {
            return Some(request);
        }
        let place = self.unanswered.rows.iter().position(|row| row.number == number)?;
        let row = self.unanswered.rows.remove(place)?;
        let link = self.links.resolve(row.link)?;
        let asker = row.asker.and_then(|asker| self.subscriptions.resolve(asker));
        // A row that has gone on to another link since is not the one that asked.
        let asker = asker.filter(|asker| self.subscriptions[*asker].link == link).unwrap_or(NONE);
        self.links[link].holds += 1;
        let Row { number, page, for_preview, order, replay, .. } = row;
        let deadline = Instant::NEVER;
        Some(Request { number, link, asker, page, network: NONE, for_preview, order, deadline, replay })
    }

    /// Whether a request was made for previews alone.
    pub(super) fn is_for_preview(&self, number: u32) -> bool {
        let under_way = self.requests.iter().any(|(_, request)| request.number == number && request.for_preview);
        under_way || self.unanswered.rows.iter().any(|row| row.number == number && row.for_preview)
    }

    /// A link was denied or taken back: no answer to an earlier request revives it.
    pub(super) fn forget_unanswered(&mut self, link: u32) {
        let id = self.links.id(link);
        self.unanswered.rows.retain(|row| Some(row.link) != id);
    }
}
