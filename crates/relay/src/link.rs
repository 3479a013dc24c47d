//! A share link, and what the business server granted for it.
//!
//! A [`Link`] is kept while it is in use: pages wait for it or watch by it, a request for it is in
//! flight, or its grant or denial is still valid. Owns the predicates for that. The numbers of
//! waiting and watching pages are kept where they change (`waiting.rs`, `subscription.rs`), and so
//! are requests in flight (`requests.rs`). Decides nothing.

use core::fmt;

use heapless::String;

use super::{
    preview::Previewers, requests::Asked, subscription::Watching, table::NONE, texts::Reason, time::Instant,
    waiting::Waiting,
};
use wire::{LINK_SIZE_MAX, uplink::Grant};

/// A share link in use.
#[derive(Debug)]
pub struct Link {
    name: String<LINK_SIZE_MAX>,
    hash: u64,
    /// The topic that it was granted; [`NONE`] if none.
    pub topic: u32,
    /// The grant.
    pub grant: Grant,
    /// Until this time pages are admitted without a request.
    pub granted_until: Instant,
    /// When to renew the grant.
    pub renew_at: Instant,
    /// The denial of the link as a whole, if it was denied.
    pub denied: Option<Denied>,
    /// The link as a whole was denied, but one request that names a page must confirm it first.
    pub on_trial: Option<Trial>,
    /// The uplink connection on which a request for this link was last accepted; 0 for none.
    pub accepted_on: u64,
    /// Requests in flight for it.
    pub asked: Asked,
    /// Consecutive requests for the link as a whole that were given up.
    pub unanswered: u8,
    /// Consecutive `Accept`s that were handed back, so that the link is requested again from where
    /// the waiting pages are.
    pub replays: u8,
    /// The epoch that the last such `Accept` named.
    pub epoch: Option<u64>,
    /// The last grant was not shared: each page needs a request of its own.
    pub each: bool,
    /// On this connection the business server accepts only requests that name a page.
    pub by_name: bool,
    /// `by_name` on the previous connection.
    pub was_by_name: bool,
    /// The uplink was lost: request the link as a whole again.
    pub ask_again: bool,
    /// Subscriptions that wait for it.
    pub waiting: Waiting,
    /// Live subscriptions made with it.
    pub watching: Watching,
    /// Previews that wait for it.
    pub previewers: Previewers,
    /// Only previews have requested it so far.
    pub for_preview: bool,
    /// The network of the first page that requested it; [`NONE`] if none.
    pub network: u32,
    /// When it was last requested.
    pub used_at: Instant,
}

impl Link {
    /// A link of which nothing is known yet.
    #[must_use]
    pub const fn new(name: String<LINK_SIZE_MAX>, hash: u64, now: Instant) -> Self {
        Self {
            name,
            hash,
            topic: NONE,
            grant: Grant { shared: false, ttl_s: 0, page_messages: false, replay: 0 },
            granted_until: Instant(0),
            renew_at: Instant::NEVER,
            denied: None,
            on_trial: None,
            accepted_on: 0,
            asked: Asked::NOTHING,
            unanswered: 0,
            replays: 0,
            epoch: None,
            each: false,
            by_name: false,
            was_by_name: false,
            ask_again: false,
            waiting: Waiting::NOBODY,
            watching: Watching::NOBODY,
            previewers: Previewers::NOBODY,
            for_preview: false,
            network: NONE,
            used_at: now,
        }
    }

    /// The link itself, which is a secret.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The hash under which it is indexed.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// Whether pages may be admitted without a request: it has a shared grant that has not expired.
    #[must_use]
    pub fn is_granted(&self, now: Instant) -> bool {
        self.grant.shared && now < self.granted_until && self.topic != NONE
    }

    /// The denial of the link as a whole, while it is remembered.
    #[must_use]
    pub fn denied_now(&self, now: Instant) -> Option<Denied> {
        self.denied.filter(|denied| now < denied.until)
    }

    /// Ends its grant: waiting pages need a new request, and nothing is renewed.
    pub const fn end_grant(&mut self, now: Instant) {
        self.topic = NONE;
        self.granted_until = now;
        self.renew_at = Instant::NEVER;
        self.waiting.uncover();
    }

    /// Whether the row may be freed.
    #[must_use]
    pub fn is_idle(&self, now: Instant) -> bool {
        self.is_spare()
            && self.denied.is_none_or(|denied| denied.until <= now)
            && (self.topic == NONE || self.granted_until <= now)
    }

    /// Whether the row only remembers something: a denial, or a grant that no page uses.
    #[must_use]
    pub const fn is_spare(&self) -> bool {
        self.waiting.ring().is_empty()
            && self.watching.live() == 0
            && !self.asked.is_held()
            && !self.asked.is_whole()
            && self.previewers.is_empty()
    }

    /// Whether its pages depend on a shared grant that is renewed. A link that is requested again
    /// because the uplink was lost does not count as a renewal.
    #[must_use]
    pub const fn is_renewed(&self) -> bool {
        self.grant.shared && self.grant.ttl_s > 0 && self.watching.live() > 0 && !self.ask_again
    }

    /// Whether each page needs a request of its own.
    #[must_use]
    pub const fn asks_by_page(&self) -> bool {
        self.each || self.by_name
    }
}

/// A denial of a link as a whole.
#[derive(Clone, Copy, Debug)]
pub struct Denied {
    /// Until when it is remembered.
    pub until: Instant,
    /// The reason.
    pub reason: Reason,
    /// No request that names a page has been tried yet: the next page may try one.
    pub untried: bool,
}

/// A denial of a link as a whole that one request in a page's name must confirm.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// The number of that request.
    pub request: u32,
    /// The reason for the denial of the whole.
    pub reason: Reason,
}

/// A link as logs and consoles may show it: its first four bytes. A link is printable ASCII
/// (`wire`), so these are four characters.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a>(pub &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.get(..4) {
            Some(beginning) if self.0.len() > 4 => write!(f, "{beginning}…"),
            _ => f.write_str(self.0),
        }
    }
}
