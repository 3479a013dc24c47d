//! Which request is sent next when there is not room for all of them at once.
//!
//! Few requests may be in flight, and the uplink's buffer is small. Requests that find no room are
//! the backlog, and links take turns (round-robin) with one request each. No link with thousands of
//! pages and no network with thousands of links can take everything. Owns only the order;
//! `asking.rs` builds the requests and handles their outcome.

use super::{Relay, ring::Ring, subscription::Stage, table::NONE, time::Instant};

/// A network with this fraction (one in four) of the requests in flight is at its quota.
const SHARE: usize = 4;
/// Most waiting pages of a link that are searched for one whose network is below its quota.
const SEARCHED_MAX: usize = 256;

/// The rows of networks that are at their quota of requests in flight.
type AtQuota = heapless::Vec<u32, SHARE>;

/// The outcome of a link's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// No request is due.
    Nothing,
    /// One request was sent.
    Sent,
    /// There is no room for one.
    NoRoom,
}

impl Relay {
    /// Sends the requests that are due, as far as there is room: first renewals of shared grants,
    /// then links that pages wait for, one request for each link in turn, then previews. Networks
    /// at their quota of requests in flight come after the others, and get none of the last quarter
    /// of the table.
    pub(super) fn ask_more(&mut self, now: Instant) {
        if !self.is_up() {
            return;
        }
        if self.requests.take_backlog() {
            let is_all = self.take_turns(|relay, link, _| relay.ask_for_watching(now, link))
                && self.take_turns(|relay, link, at_quota| relay.ask_for_one(now, link, at_quota))
                && self.take_turns(|relay, link, _| match relay.due(link, &[]) {
                    Some(_) if !relay.has_room_above_quota() => Turn::NoRoom,
                    _ => relay.ask_for_one(now, link, &[]),
                });
            if !is_all {
                self.requests.set_backlog();
                return;
            }
        }
        self.ask_for_previews(now);
    }

    /// A page subscribes to a link: requests it at once unless there is a backlog.
    pub(super) fn ask_for(&mut self, now: Instant, link: u32) {
        if !self.requests.has_backlog() && self.has_room_above_quota() {
            self.ask_for_one(now, link, &[]);
            return;
        }
        self.requests.set_backlog();
        if !self.requests.is_full() {
            self.ask_more(now);
        }
    }

    /// Whether a network may exceed its quota: the last quarter of the table is reserved for the
    /// others.
    fn has_room_above_quota(&self) -> bool {
        self.requests.len() < self.board.requests_max - self.board.requests_max / 4
    }

    /// Gives the links turns until none has a request due; `false` if there was no room: then that
    /// link is first the next time.
    fn take_turns(&mut self, send: impl Fn(&mut Self, u32, &[u32]) -> Turn) -> bool {
        let end = self.links.end();
        let mut at_quota = self.networks_at_quota();
        let mut passed = 0;
        while passed < end {
            let link = self.requests.turn() % end;
            let turn = if self.links.get(link).is_some() { send(self, link, &at_quota) } else { Turn::Nothing };
            match turn {
                Turn::NoRoom => return false,
                Turn::Sent => {
                    passed = 0;
                    at_quota = self.networks_at_quota();
                }
                Turn::Nothing => passed += 1,
            }
            self.requests.set_turn((link + 1) % end);
        }
        true
    }

    /// The networks that are at their quota of requests in flight.
    fn networks_at_quota(&self) -> AtQuota {
        let most = (self.board.requests_max as usize).div_ceil(SHARE);
        let mut at_quota = AtQuota::new();
        for (_, request) in self.requests.iter().filter(|(_, request)| request.network != NONE) {
            let has = self.requests.iter().filter(|(_, other)| other.network == request.network).count();
            if has >= most && !at_quota.contains(&request.network) {
                let _ = at_quota.push(request.network);
            }
        }
        at_quota
    }

    /// Requests a shared grant that pages watch by, if that is due.
    fn ask_for_watching(&mut self, now: Instant, link: u32) -> Turn {
        let row = &self.links[link];
        if row.watching.live() == 0 || row.asked.is_whole() {
            return Turn::Nothing;
        }
        if row.asks_again() && row.on_trial().is_none() {
            return self.turn(now, link, NONE);
        }
        if row.renew_at() > now {
            return Turn::Nothing;
        }
        // As a whole, or in a page's name if the business server accepts only those.
        let asker = if row.is_by_name() { self.first_live(link) } else { NONE };
        let turn = if row.is_by_name() && asker == NONE { Turn::Nothing } else { self.turn(now, link, asker) };
        // The request that is in flight already may turn out not to renew it.
        if turn == Turn::Sent {
            self.links[link].renewing();
        }
        turn
    }

    /// Sends one of the requests that are due for a link's pages, but none for pages of the
    /// networks `at_quota`.
    fn ask_for_one(&mut self, now: Instant, link: u32, at_quota: &[u32]) -> Turn {
        self.due(link, at_quota).map_or(Turn::Nothing, |asker| self.turn(now, link, asker))
    }

    /// The next request that is due for a link's pages: the subscription that it names, or [`NONE`]
    /// for the link as a whole.
    fn due(&self, link: u32, at_quota: &[u32]) -> Option<u32> {
        let row = &self.links[link];
        if row.asks_by_page() {
            let waits = self.first_that_needs(link, row.waiting.ring(), at_quota);
            if waits != NONE {
                return Some(waits);
            }
        } else if !row.asked.is_whole()
            && row.on_trial().is_none()
            // Requests that name a page and are still in flight (the link was revoked) come first.
            && !row.asked.is_held()
            && self.has_uncovered(link)
            && !at_quota.contains(&self.network_of(row.waiting.ring().first()))
        {
            return Some(NONE);
        }
        let topic = self.topics.get(row.topic()).filter(|_| row.watching.ask_again() > 0)?;
        let watches = self.first_that_needs(link, topic.viewers.ring(), &[]);
        (watches != NONE).then_some(watches)
    }

    fn turn(&mut self, now: Instant, link: u32, asker: u32) -> Turn {
        if self.request(now, link, asker) { Turn::Sent } else { Turn::NoRoom }
    }

    /// Whether a page waits that no grant covers. If any does, the last one does.
    fn has_uncovered(&self, link: u32) -> bool {
        let row = &self.links[link];
        let last = self.subscriptions.last(row.waiting.ring());
        last.is_some_and(|last| matches!(last.stage(), Stage::Waiting { ticket, .. } if !row.waiting.covers(*ticket)))
    }

    /// The network that a waiting subscription counts for; [`NONE`] if there is none.
    pub(super) fn network_of(&self, subscription: u32) -> u32 {
        let waiting = self.subscriptions.get(subscription).filter(|row| row.is_waiting());
        waiting.map_or(NONE, |row| self.sessions[row.page()].shares_with())
    }

    /// The first subscription of a link in a ring that needs a request, has none in flight, and
    /// whose network is not `at_quota`; [`NONE`] if there is none.
    fn first_that_needs(&self, link: u32, ring: &Ring, at_quota: &[u32]) -> u32 {
        let waiting = &self.links[link].waiting;
        let mut walk = ring.walk();
        let mut searched = 0;
        while let Some(subscription) = self.subscriptions.next(&mut walk) {
            let row = &self.subscriptions[subscription];
            let needs = row.link() == link
                && match row.stage() {
                    Stage::Waiting { asked, ticket, .. } => !asked && !waiting.covers(*ticket),
                    Stage::Live(live) => live.asks_again() && !live.is_asked(),
                    Stage::Over { .. } => false,
                };
            if needs {
                if at_quota.is_empty() || !at_quota.contains(&self.network_of(subscription)) {
                    return subscription;
                }
                searched += 1;
                if searched == SEARCHED_MAX {
                    break;
                }
            }
        }
        NONE
    }
}

#[cfg(test)]
mod tests {
    use super::super::rig::{BOARD, OWN, Rig, SHARED};
    use board::Board;
    use wire::uplink::ToRelay;

    /// A page at an address subscribes to each of these links.
    fn asks(rig: &mut Rig, address: &str, links: impl IntoIterator<Item = String>) {
        let page = rig.page_from(address, "").unwrap();
        for (id, link) in (1..).zip(links) {
            rig.subscribe(page, id, &link);
        }
    }

    #[test]
    fn a_renewal_and_other_links_get_their_turn_beside_one_that_always_has_more_to_ask() {
        let mut rig =
            Rig::up(&Board { requests_max: 2, pages_max: 30, subscriptions_max: 30, dead_ms: 600_000, ..BOARD });
        let watcher = rig.viewer();
        asks(&mut rig, "10.0.0.1", ["busy".to_owned()]);
        rig.accept(2, 8, 1, OWN);
        rig.said();
        for _ in 0..20 {
            asks(&mut rig, "10.0.0.1", ["busy".to_owned()]);
        }
        asks(&mut rig, "10.0.0.1", ["other".to_owned()]);
        rig.pass(1_000);
        let (mut number, mut other, mut renewed) = (3, None, None);
        for step in 0..60 {
            // Each answer is followed by another request. The grant of one minute is renewed in its
            // last fifth.
            if rig.relay.in_use().requests > 0 {
                rig.tell(ToRelay::Deny { request: number, reason: "no" });
                number += 1;
            }
            let said = rig.said();
            let asked = |link: &str| said.iter().any(|said| said.split(' ').nth(2) == Some(link));
            other = other.or(asked("other").then_some(step));
            renewed = renewed.or(asked("link").then_some(step));
            rig.pass(if step == 20 { 54_000 } else { 100 });
            rig.tell(ToRelay::Ping { nonce: 1 });
            rig.read(watcher);
        }
        assert!(other.is_some_and(|step| step <= 4), "{other:?}");
        assert!(renewed.is_some_and(|step| step <= 23), "{renewed:?}");
    }

    #[test]
    fn the_last_quarter_of_the_requests_is_for_networks_that_have_less_than_their_share() {
        let board = Board {
            requests_max: 8,
            links_max: 32,
            topics_per_page_max: 16,
            pages_max: 8,
            subscriptions_max: 64,
            ..BOARD
        };
        let mut rig = Rig::up(&board);
        asks(&mut rig, "10.0.0.1", (0..10).map(|number| format!("dead-{number}")));
        assert_eq!(rig.said().len(), 6, "of eight");
        asks(&mut rig, "10.0.0.2", ["good".to_owned()]);
        assert_eq!(rig.said(), ["Subscribe 7 good"]);
        // One more answer: the last quarter stays free, and the backlog is not forgotten.
        rig.tell(ToRelay::Deny { request: 7, reason: "no" });
        assert_eq!(rig.said(), ["Subscribe 8 good by 10.0.0.2"]);
        rig.tell(ToRelay::Deny { request: 8, reason: "no" });
        for request in 1..7 {
            rig.accept(request, 7, 1, SHARED);
        }
        let said = rig.said();
        assert_eq!(said.iter().filter(|said| said.starts_with("Subscribe")).count(), 4, "{said:?}");
    }

    #[test]
    fn a_network_that_holds_its_share_of_links_leaves_the_last_quarter_to_others() {
        let board = Board { links_max: 8, topics_per_page_max: 16, subscriptions_max: 64, ..BOARD };
        let mut rig = Rig::up(&board);
        asks(&mut rig, "10.0.0.1", (0..9).map(|number| format!("dead-{number}")));
        assert_eq!(rig.relay.in_use().links, 6, "of eight");
        asks(&mut rig, "10.0.0.2", ["one".to_owned(), "two".to_owned(), "three".to_owned()]);
        assert_eq!(rig.relay.in_use().links, 8);
        // Loopback may be a proxy for anybody.
        let mut rig = Rig::up(&board);
        asks(&mut rig, "127.0.0.1", (0..9).map(|number| format!("dead-{number}")));
        assert_eq!(rig.relay.in_use().links, 8);
    }
}
