//! Requests that were given up, remembered so that a late answer still counts.
//!
//! A busy business server may answer after the relay's timeout. A `Deny` must not be lost by that:
//! it may revoke a page's access. The last `requests_max` of them are remembered, oldest first out,
//! and all are forgotten with their connection. Rows hold ids with a generation, so that a freed
//! row is not mistaken for its successor.

use alloc::collections::VecDeque;

use super::{
    link::Link,
    links::Links,
    requests::{Asker, Request},
    subscription::{Subscription, Subscriptions},
    table::{Id, NONE},
    time::Instant,
};

/// Requests that were given up, oldest first.
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

    /// An empty list for `requests_max` requests.
    #[must_use]
    pub fn new(requests_max: u32) -> Self {
        Self { rows: VecDeque::with_capacity(requests_max as usize), rows_max: requests_max as usize }
    }

    /// Forgets all of them, since their connection is gone.
    pub fn clear(&mut self) {
        self.rows.clear();
    }

    /// The number of requests remembered.
    #[must_use]
    pub fn count(&self) -> usize {
        self.rows.len()
    }

    /// Remembers a request that was given up; the oldest makes room.
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

    /// Removes the request with a number, if it is remembered and its link still in use. Holds the
    /// link until [`Asked::release`](super::requests::Asked::release).
    pub(super) fn take(&mut self, number: u32, links: &mut Links, subscriptions: &Subscriptions) -> Option<Request> {
        let place = self.rows.iter().position(|row| row.number == number)?;
        let row = self.rows.remove(place)?;
        let link = links.resolve(row.link)?;
        let asker = row.asker.and_then(|asker| subscriptions.resolve(asker));
        // If the subscription has moved on to another link, the request is not its own any more.
        let asker = asker.filter(|asker| subscriptions[*asker].link() == link).unwrap_or(NONE);
        links[link].asked.hold();
        let Row { number, page, for_preview, order, replay, .. } = row;
        let deadline = Instant::NEVER;
        Some(Request { number, link, asker, page, network: NONE, for_preview, order, deadline, replay })
    }

    /// Whether the request with a number was made only for a preview.
    pub(super) fn is_for_preview(&self, number: u32) -> bool {
        self.rows.iter().any(|row| row.number == number && row.for_preview)
    }

    /// A link was denied or revoked: no answer to an earlier request may revive it.
    pub(super) fn forget(&mut self, link: Option<Id<Link>>) {
        self.rows.retain(|row| Some(row.link) != link);
    }
}
