//! Requests that were given up, remembered so that an answer which comes late still counts.
//!
//! A business server that is busy may answer after the relay's patience is over. A `Deny` must not
//! be lost by that: somebody may have lost access. The last `requests_max` of them are remembered,
//! the oldest goes first, and all of them with their connection. Rows are named by ids with a
//! generation, so that what is gone is not mistaken for what came in its place.

use alloc::collections::VecDeque;

use super::{
    link::Link,
    links::Links,
    requests::{Asker, Request},
    subscription::{Subscription, Subscriptions},
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

    /// Remembers a request that was given up.
    pub(super) fn remember(&mut self, request: &Request, links: &Links, subscriptions: &Subscriptions) {
        let Some(link) = links.id(request.link) else { return };
        if self.rows.len() >= self.rows_max {
            self.rows.pop_front();
        }
        self.rows.push_back(Row {
            number: request.number,
            link,
            asker: subscriptions.id(request.asker),
            page: request.page,
            for_preview: request.for_preview,
            order: request.order,
            replay: request.replay,
        });
    }

    /// The request with a number, where it is remembered and its link still of use. Its link is held until
    /// [`Asked::release`](super::requests::Asked::release).
    pub(super) fn take(&mut self, number: u32, links: &mut Links, subscriptions: &Subscriptions) -> Option<Request> {
        let place = self.rows.iter().position(|row| row.number == number)?;
        let row = self.rows.remove(place)?;
        let link = links.resolve(row.link)?;
        let asker = row.asker.and_then(|asker| subscriptions.resolve(asker));
        // A row that has gone on to another link since is not the one that asked.
        let asker = asker.filter(|asker| subscriptions[*asker].link() == link).unwrap_or(NONE);
        links[link].asked.hold();
        let Row { number, page, for_preview, order, replay, .. } = row;
        let deadline = Instant::NEVER;
        Some(Request { number, link, asker, page, network: NONE, for_preview, order, deadline, replay })
    }

    /// Whether the request with a number was made for previews alone.
    pub(super) fn is_for_preview(&self, number: u32) -> bool {
        self.rows.iter().any(|row| row.number == number && row.for_preview)
    }

    /// A link was denied or revoked: no answer to an earlier request revives it.
    pub(super) fn forget(&mut self, link: Option<Id<Link>>) {
        self.rows.retain(|row| Some(row.link) != link);
    }
}
