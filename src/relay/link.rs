//! Links and requests: what was asked of the business server, and what it granted.
//!
//! A [`Link`] is there while it is of use: pages wait for it or are served by it, a request for it is
//! under way, its grant or its denial still holds. A [`Request`] is a `Subscribe` that was sent and
//! not answered. The rules of asking are in `asking.rs`. The machine's side finds, makes and forgets links; nothing here decides.

use core::fmt;

use heapless::String;

use super::{Relay, table::NONE, texts::Reason, time::Instant};
use crate::wire::{LINK_SIZE_MAX, uplink::Grant};

/// A share link that is of use.
#[derive(Debug)]
pub struct Link {
    /// The link itself: a secret.
    pub name: String<LINK_SIZE_MAX>,
    /// Its hash, to find it by.
    pub hash: u64,
    /// The topic that it was granted for; [`NONE`] without.
    pub topic: u32,
    /// What it was granted.
    pub grant: Grant,
    /// Until when pages are admitted without asking.
    pub granted_until: Instant,
    /// When the grant is to be renewed.
    pub renew_at: Instant,
    /// Until when it counts as denied, and why.
    pub denied: Option<(Instant, Reason)>,
    /// The request for the link as a whole that is under way; [`NONE`] without.
    pub request: u32,
    /// The last answer was not shared: each page is asked for by itself.
    pub each: bool,
    /// To be asked for again as a whole, since the uplink was lost.
    pub ask_again: bool,
    /// The ring of subscriptions that wait.
    pub waiting: u32,
    /// How many of them.
    pub waiting_count: u32,
    /// Live subscriptions made with it.
    pub live_count: u32,
    /// Live subscriptions of their own grant that must be asked for again.
    pub ask_again_count: u32,
    /// Requests of single pages that are under way, and answers being worked on: the row must stay.
    pub holds: u32,
}

impl Link {
    /// A link that nothing is known of.
    #[must_use]
    pub const fn new(name: String<LINK_SIZE_MAX>, hash: u64) -> Self {
        Self {
            name,
            hash,
            topic: NONE,
            grant: Grant { shared: false, ttl_s: 0, page_messages: false, replay: 0 },
            granted_until: Instant(0),
            renew_at: Instant::NEVER,
            denied: None,
            request: NONE,
            each: false,
            ask_again: false,
            waiting: NONE,
            waiting_count: 0,
            live_count: 0,
            ask_again_count: 0,
            holds: 0,
        }
    }

    /// Whether nobody would miss the link.
    #[must_use]
    pub fn is_idle(&self, now: Instant) -> bool {
        self.waiting_count == 0
            && self.live_count == 0
            && self.request == NONE
            && self.holds == 0
            && self.denied.is_none_or(|(until, _)| until <= now)
            && (self.topic == NONE || self.granted_until <= now)
    }
}

/// A `Subscribe` under way.
#[derive(Debug)]
pub struct Request {
    /// Its number on the wire.
    pub number: u32,
    /// The link's row.
    pub link: u32,
    /// The subscription of the one page that it is for; [`NONE`] where it is for the link as a whole
    /// and nobody waits (a renewal), or where that page left.
    pub asker: u32,
    /// Whether it is for that page alone.
    pub own: bool,
    /// The place among all frames sent on this connection.
    pub order: u64,
    /// When it is given up.
    pub deadline: Instant,
    /// The messages' sequence from which the business server was asked to replay; 0 without.
    pub replay_from: u64,
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

impl Relay {
    pub(super) fn find_link(&self, name: &str) -> Option<u32> {
        let hash = self.hash_of(name);
        let from = self.link_hashes.partition_point(|(other, _)| *other < hash);
        let same = self.link_hashes.iter().skip(from).take_while(|(other, _)| *other == hash);
        same.map(|(_, link)| *link).find(|link| self.links[*link].name == name)
    }

    pub(super) fn link_for(&mut self, name: &str) -> Option<u32> {
        if let Some(link) = self.find_link(name) {
            return Some(link);
        }
        if self.links.is_full() {
            // One that is only remembered makes room: a denial, or a grant that nobody uses.
            let spare = self
                .links
                .iter()
                .find(|(_, link)| link.waiting_count + link.live_count + link.holds == 0 && link.request == NONE);
            let (index, _) = spare?;
            self.remove_link(index);
        }
        let hash = self.hash_of(name);
        let link = self.links.insert(Link::new(String::try_from(name).ok()?, hash)).ok()?;
        let place = self.link_hashes.partition_point(|known| *known < (hash, link));
        self.link_hashes.insert(place, (hash, link));
        Some(link)
    }

    /// The answer to a request was worked on.
    pub(super) fn let_go(&mut self, now: Instant, link: u32) {
        self.links[link].holds -= 1;
        self.release_link(now, link);
    }

    /// Gives a link's row back where nobody would miss it.
    pub(super) fn release_link(&mut self, now: Instant, link: u32) {
        if self.links.get(link).is_some_and(|row| row.is_idle(now)) {
            self.remove_link(link);
        }
    }

    fn remove_link(&mut self, link: u32) {
        let Some(row) = self.links.remove(link) else { return };
        if let Ok(place) = self.link_hashes.binary_search(&(row.hash, link)) {
            self.link_hashes.remove(place);
        }
        if let Some((_, reason)) = row.denied {
            self.reasons.release_reason(reason);
        }
    }
}
