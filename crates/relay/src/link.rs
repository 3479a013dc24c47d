//! A share link, and what the business server granted for it.
//!
//! A [`Link`] is there while it is of use: pages wait for it or are served by it, a request for it is
//! under way, its grant or its denial still holds. Owns the answers to that question. Who waits and who watches is counted
//! where it changes (`waiting.rs`, `subscription.rs`), and so is what is under way (`requests.rs`). Decides nothing.

use core::fmt;

use heapless::String;

use super::{
    preview::Previewers, requests::Asked, subscription::Watching, table::NONE, texts::Reason, time::Instant,
    waiting::Waiting,
};
use wire::{LINK_SIZE_MAX, uplink::Grant};

/// A share link that is of use.
#[derive(Debug)]
pub struct Link {
    name: String<LINK_SIZE_MAX>,
    hash: u64,
    /// The topic that it was granted for; [`NONE`] without.
    pub topic: u32,
    /// What it was granted.
    pub grant: Grant,
    /// Until when pages are admitted without asking.
    pub granted_until: Instant,
    /// When the grant is to be renewed.
    pub renew_at: Instant,
    /// The link as a whole was denied.
    pub denied: Option<Denied>,
    /// The link as a whole was denied, and one page is asked for by name before that counts.
    pub on_trial: Option<Trial>,
    /// The connection on which anything was accepted with this link last; 0 without.
    pub accepted_on: u64,
    /// What is under way for it.
    pub asked: Asked,
    /// Requests for the link as a whole that were given up in a row.
    pub unanswered: u8,
    /// Accepts in a row that were given back, to be asked for again from where waiting pages are.
    pub replays: u8,
    /// The epoch that such an `Accept` named.
    pub epoch: Option<u64>,
    /// The last answer was not shared: each page is asked for by itself.
    pub each: bool,
    /// On this connection only requests that name a page are accepted.
    pub by_name: bool,
    /// That was so on the connection before.
    pub was_by_name: bool,
    /// To be asked for again as a whole, since the uplink was lost.
    pub ask_again: bool,
    /// Those that wait for it.
    pub waiting: Waiting,
    /// Those that are served by it.
    pub watching: Watching,
    /// Previews that wait for it.
    pub previewers: Previewers,
    /// Previews alone asked for it so far.
    pub for_preview: bool,
    /// The network whose page asked for it first; [`NONE`] without.
    pub network: u32,
    /// When somebody asked for it last.
    pub used_at: Instant,
}

impl Link {
    /// A link that nothing is known of.
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

    /// The link itself: a secret.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The hash that it is found by.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// Whether pages may be admitted without asking: a shared grant that is not over.
    #[must_use]
    pub fn is_granted(&self, now: Instant) -> bool {
        self.grant.shared && now < self.granted_until && self.topic != NONE
    }

    /// The denial of the link as a whole, while it is remembered.
    #[must_use]
    pub fn denied_now(&self, now: Instant) -> Option<Denied> {
        self.denied.filter(|denied| now < denied.until)
    }

    /// Its grant is over: pages that wait are asked for anew, nothing is renewed.
    pub const fn end_grant(&mut self, now: Instant) {
        self.topic = NONE;
        self.granted_until = now;
        self.renew_at = Instant::NEVER;
        self.waiting.uncover();
    }

    /// Whether nobody would miss the link.
    #[must_use]
    pub fn is_idle(&self, now: Instant) -> bool {
        self.is_spare()
            && self.denied.is_none_or(|denied| denied.until <= now)
            && (self.topic == NONE || self.granted_until <= now)
    }

    /// Whether it is only remembered: a denial, or a grant that nobody uses.
    #[must_use]
    pub const fn is_spare(&self) -> bool {
        self.waiting.ring().is_empty()
            && self.watching.live() == 0
            && !self.asked.is_held()
            && !self.asked.is_whole()
            && self.previewers.is_empty()
    }

    /// Whether its pages are held by a shared grant that is renewed. One that is asked for again
    /// since the uplink was lost is no renewal.
    #[must_use]
    pub const fn is_renewed(&self) -> bool {
        self.grant.shared && self.grant.ttl_s > 0 && self.watching.live() > 0 && !self.ask_again
    }

    /// Whether each page is asked for by itself.
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
    /// Why.
    pub reason: Reason,
    /// No page was asked for by name: the next one may be.
    pub untried: bool,
}

/// A denial of a link as a whole that one page's own request puts to the test.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// The number of the page's request.
    pub request: u32,
    /// Why the whole was denied.
    pub reason: Reason,
}

/// A link as logs and consoles may show it: its first four bytes. A link is printable ASCII (`wire`), so that four bytes are four letters.
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
