//! Links and requests: what was asked of the business server, and what it granted.
//!
//! A [`Link`] is there while it is of use: pages wait for it or are served by it, a request for it is
//! under way, its grant or its denial still holds. A [`Request`] is a `Subscribe` that was sent and
//! not answered. The rules of asking are in `asking.rs`. The machine's side finds, makes and forgets links; nothing here decides.

use core::{fmt, net::IpAddr};

use heapless::String;

use super::{Relay, table::NONE, texts::Reason, time::Instant};
use wire::{LINK_SIZE_MAX, uplink::Grant};

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
    /// The link as a whole was denied.
    pub denied: Option<Denied>,
    /// The link as a whole was denied, and one page is asked for by name before that counts.
    pub on_trial: Option<Trial>,
    /// The connection on which anything was accepted with this link last; 0 without.
    pub accepted_on: u64,
    /// The request for the link as a whole that is under way; [`NONE`] without.
    pub request: u32,
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
    /// The ring of subscriptions that wait, the longest waiting first.
    pub waiting: u32,
    /// How many of them.
    pub waiting_count: u32,
    /// The ticket of the next subscription that waits.
    pub next_ticket: u32,
    /// A shared grant covers those that wait with a ticket before this one: they are being admitted.
    pub covered_to: u32,
    /// Previews that wait for it.
    pub previews: u32,
    /// Previews alone asked for it so far.
    pub for_preview: bool,
    /// The network whose page asked for it first; [`NONE`] without.
    pub network: u32,
    /// When somebody asked for it last.
    pub used_at: Instant,
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
            request: NONE,
            unanswered: 0,
            replays: 0,
            epoch: None,
            each: false,
            by_name: false,
            was_by_name: false,
            ask_again: false,
            waiting: NONE,
            waiting_count: 0,
            next_ticket: 0,
            covered_to: 0,
            previews: 0,
            for_preview: false,
            network: NONE,
            used_at: now,
            live_count: 0,
            ask_again_count: 0,
            holds: 0,
        }
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
        self.waiting_count == 0 && self.live_count == 0 && self.holds == 0 && self.previews == 0 && self.request == NONE
    }

    /// Whether its pages are held by a shared grant that is renewed. One that is asked for again
    /// since the uplink was lost is no renewal.
    #[must_use]
    pub const fn is_renewed(&self) -> bool {
        self.grant.shared && self.grant.ttl_s > 0 && self.live_count > 0 && !self.ask_again
    }

    /// Whether each page is asked for by itself.
    #[must_use]
    pub const fn asks_by_page(&self) -> bool {
        self.each || self.by_name
    }

    /// The ticket of one more subscription that waits.
    pub const fn take_ticket(&mut self) -> u32 {
        let ticket = self.next_ticket;
        self.next_ticket = ticket.wrapping_add(1);
        if ticket.wrapping_sub(self.covered_to) > TICKETS_MAX {
            // Nobody has waited since then: numbers may wrap.
            self.uncover();
        }
        ticket
    }

    /// Whether a waiting subscription is covered by the grant already.
    #[must_use]
    pub const fn covers(&self, ticket: u32) -> bool {
        ticket.wrapping_sub(self.covered_to) > u32::MAX / 2
    }

    /// A shared grant covers everybody that waits now.
    pub const fn cover(&mut self) {
        self.covered_to = self.next_ticket;
    }

    /// Those that wait are not covered by a grant any more: they are asked for anew.
    pub const fn uncover(&mut self) {
        self.covered_to = self.next_ticket.wrapping_sub(TICKETS_MAX);
    }
}

/// More tickets than are taken while one subscription waits, which is 10 s at most.
const TICKETS_MAX: u32 = 1 << 30;

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

/// A `Subscribe` under way.
#[derive(Debug)]
pub struct Request {
    /// Its number on the wire.
    pub number: u32,
    /// The link's row; [`NONE`] once the link was denied.
    pub link: u32,
    /// The subscription of the page that it names; [`NONE`] where it is for the link as a whole,
    /// or where that page left.
    pub asker: u32,
    /// Who it names; none where it is for the link as a whole.
    pub page: Option<Asker>,
    /// The row of the network that asks; [`NONE`] where pages that watch do, or a preview.
    pub network: u32,
    /// Sent for a preview alone.
    pub for_preview: bool,
    /// The place among all frames sent on this connection.
    pub order: u64,
    /// When it is given up.
    pub deadline: Instant,
    /// The epoch, and the messages' sequence in it, from which the business server was asked to
    /// replay for pages that wait; 0 without.
    pub replay: (u64, u64),
}

/// The page that a request names, as a denial of it is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// Where it is.
    pub address: IpAddr,
    /// The hash of its origin; that of the empty text without.
    pub origin: u64,
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

    /// A link that a page asks for; `None` where it has no row and there is no room for it, or its network has its share
    /// of a table that is nearly full.
    pub(super) fn link_for(&mut self, now: Instant, name: &str, network: u32) -> Option<u32> {
        if let Some(link) = self.find_link(name) {
            let row = &mut self.links[link];
            row.used_at = now;
            if core::mem::take(&mut row.for_preview) {
                row.network = network;
            }
            return Some(link);
        }
        let used = self.links.iter().filter(|(_, link)| !link.is_spare());
        let (all, own) = used.fold((0, 0), |(all, own), (_, link)| {
            (all + 1, own + u32::from(network != NONE && link.network == network))
        });
        let quarter = self.board.links_max / 4;
        if all >= self.board.links_max - quarter && own >= quarter.max(1) {
            return None;
        }
        if self.links.is_full() {
            // Of those that are only remembered the one that was used longest ago makes room, one that no page ever
            // asked for before all others.
            let spare = self.links.iter().filter(|(_, link)| link.is_spare());
            let (index, _) = spare.min_by_key(|(_, link)| (!link.for_preview, link.used_at))?;
            self.remove_link(index);
        }
        self.new_link(now, name).inspect(|link| self.links[*link].network = network)
    }

    /// A row for a link that only a preview wants: it costs no page anything, and previews hold `links_max` of
    /// the table. `None` where there is no room.
    pub(super) fn link_for_preview(&mut self, now: Instant, name: &str, links_max: u32) -> Option<u32> {
        let held = self.links.iter().filter(|(_, link)| link.for_preview).count();
        if self.links.is_full() || held >= links_max as usize {
            let spare = self.links.iter().filter(|(_, link)| link.for_preview && link.is_spare());
            let (oldest, _) = spare.min_by_key(|(_, link)| link.used_at)?;
            self.remove_link(oldest);
        }
        self.new_link(now, name).inspect(|link| self.links[*link].for_preview = true)
    }

    /// A row for a link that has none; `None` where there is no room.
    fn new_link(&mut self, now: Instant, name: &str) -> Option<u32> {
        let hash = self.hash_of(name);
        let mut row = Link::new(String::try_from(name).ok()?, hash, now);
        if let Some(place) = self.good_links.iter().position(|(known, _)| *known == hash)
            && let Some((_, by_name)) = self.good_links.remove(place)
        {
            row.by_name = by_name;
            row.accepted_on = if by_name { 0 } else { self.uplink.connection() };
        }
        let link = self.links.insert(row).ok()?;
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
        if let Some(denied) = row.denied {
            self.reasons.release_reason(denied.reason);
        }
        if row.by_name || row.accepted_on != 0 && row.accepted_on == self.uplink.connection() {
            // What was accepted with it outlives the row.
            if self.good_links.len() >= self.board.links_max as usize {
                self.good_links.pop_front();
            }
            self.good_links.push_back((row.hash, row.by_name));
        }
    }
}
