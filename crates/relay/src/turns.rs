//! Whose turn it is to be asked for, where there is not room for all of it at once.
//!
//! Requests under way are few, and so is the room in the uplink's buffer: what finds none waits ("hungry"), and links take
//! turns of one request each. Nobody can have all of it: not a link with thousands of pages, and not a network with
//! thousands of links. Owns the order alone; what a request says and what becomes of it is `asking.rs`'s.

use super::{Relay, ring::Ring, subscription::Stage, table::NONE, time::Instant};

/// A network whose pages have this part of the requests under way comes after the others.
const SHARE: usize = 4;
/// At most this many waiting pages of a link are searched for one whose network is below its share.
const SEARCHED_MAX: usize = 256;

/// Networks that have their share of the requests under way: by their rows.
type Sated = heapless::Vec<u32, SHARE>;

/// What a link's turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// It needs nothing.
    Nothing,
    /// One request was sent.
    Asked,
    /// There is no room for one.
    NoRoom,
}

impl Relay {
    /// Sends the requests that are due, as far as there is room: first renewals of shared grants, then links that pages
    /// wait for, one request for each link in turn, then previews. Networks that have their share of the requests under way
    /// come behind the others, and get none of the last quarter.
    pub(super) fn ask_more(&mut self, now: Instant) {
        if !self.is_up() {
            return;
        }
        if self.requests.take_backlog() {
            let is_all = self.take_turns(|relay, link, _| relay.ask_for_watching(now, link))
                && self.take_turns(|relay, link, sated| relay.ask_for_one(now, link, sated))
                && self.take_turns(|relay, link, _| match relay.due(link, &[]) {
                    Some(_) if !relay.has_room_for_sated() => Turn::NoRoom,
                    _ => relay.ask_for_one(now, link, &[]),
                });
            if !is_all {
                self.requests.set_backlog();
                return;
            }
        }
        self.ask_for_previews(now);
    }

    /// A page asks for a link: it is asked for at once where nobody waits for room.
    pub(super) fn ask_for(&mut self, now: Instant, link: u32) {
        if !self.requests.has_backlog() && self.has_room_for_sated() {
            self.ask_for_one(now, link, &[]);
            return;
        }
        self.requests.set_backlog();
        if !self.requests.is_full() {
            self.ask_more(now);
        }
    }

    /// Whether a network may have more than its share: the last quarter of the table is the others'.
    fn has_room_for_sated(&self) -> bool {
        self.requests.len() < self.board.requests_max - self.board.requests_max / 4
    }

    /// Gives each link a turn until none needs anything more; `false` where there was no room: then that link is the first
    /// the next time.
    fn take_turns(&mut self, ask: impl Fn(&mut Self, u32, &[u32]) -> Turn) -> bool {
        let end = self.links.end();
        let mut sated = self.sated();
        let mut passed = 0;
        while passed < end {
            let link = self.requests.turn % end;
            let turn = if self.links.get(link).is_some() { ask(self, link, &sated) } else { Turn::Nothing };
            match turn {
                Turn::NoRoom => return false,
                Turn::Asked => {
                    passed = 0;
                    sated = self.sated();
                }
                Turn::Nothing => passed += 1,
            }
            self.requests.turn = (link + 1) % end;
        }
        true
    }

    /// The networks that have their share of the requests under way.
    fn sated(&self) -> Sated {
        let most = (self.board.requests_max as usize).div_ceil(SHARE);
        let mut sated = Sated::new();
        for (_, request) in self.requests.rows().iter().filter(|(_, request)| request.network != NONE) {
            let has = self.requests.rows().iter().filter(|(_, other)| other.network == request.network).count();
            if has >= most && !sated.contains(&request.network) {
                let _ = sated.push(request.network);
            }
        }
        sated
    }

    /// Asks for a shared grant that pages watch by, where that is due.
    fn ask_for_watching(&mut self, now: Instant, link: u32) -> Turn {
        let row = &self.links[link];
        if row.watching.live() == 0 || row.asked.is_whole() {
            return Turn::Nothing;
        }
        if row.ask_again && row.on_trial.is_none() {
            return self.turn(now, link, NONE);
        }
        if row.renew_at > now {
            return Turn::Nothing;
        }
        // As a whole, or where only pages are accepted in the name of one.
        let asker = if row.by_name { self.first_live(link) } else { NONE };
        let turn = if row.by_name && asker == NONE { Turn::Nothing } else { self.turn(now, link, asker) };
        // One that is asked for already may turn out not to be renewed by that.
        if turn == Turn::Asked {
            self.links[link].renew_at = Instant::NEVER;
        }
        turn
    }

    /// Sends one of the requests that are due for a link's pages; none for those of the sated networks.
    fn ask_for_one(&mut self, now: Instant, link: u32, sated: &[u32]) -> Turn {
        self.due(link, sated).map_or(Turn::Nothing, |asker| self.turn(now, link, asker))
    }

    /// The next request that is due for a link's pages, by whom it names; [`NONE`] for the link as a whole.
    fn due(&self, link: u32, sated: &[u32]) -> Option<u32> {
        let row = &self.links[link];
        if row.asks_by_page() {
            let waits = self.first_that_needs(link, row.waiting.ring(), sated);
            if waits != NONE {
                return Some(waits);
            }
        } else if !row.asked.is_whole()
            && row.on_trial.is_none()
            // Requests of single pages that are still under way (the link was taken back) come first.
            && !row.asked.is_held()
            && self.has_uncovered(link)
            && !sated.contains(&self.network_of(row.waiting.ring().first()))
        {
            return Some(NONE);
        }
        let topic = self.topics.get(row.topic).filter(|_| row.watching.ask_again() > 0)?;
        let watches = self.first_that_needs(link, topic.viewers.ring(), &[]);
        (watches != NONE).then_some(watches)
    }

    fn turn(&mut self, now: Instant, link: u32, asker: u32) -> Turn {
        if self.request(now, link, asker) { Turn::Asked } else { Turn::NoRoom }
    }

    /// Whether somebody waits whom no grant covers: the last of them, if anybody.
    fn has_uncovered(&self, link: u32) -> bool {
        let row = &self.links[link];
        let last = self.subscriptions.last(row.waiting.ring());
        last.is_some_and(|last| matches!(last.stage(), Stage::Waiting { ticket, .. } if !row.waiting.covers(*ticket)))
    }

    /// The network whose share a subscription that waits counts for; [`NONE`] without.
    pub(super) fn network_of(&self, subscription: u32) -> u32 {
        let waiting = self.subscriptions.get(subscription).filter(|row| row.is_waiting());
        waiting.map_or(NONE, |row| self.sessions[row.page()].shares_with())
    }

    /// The first subscription of a link in a ring that has no request under way and needs one, and whose network is none
    /// of `sated`; [`NONE`] without.
    fn first_that_needs(&self, link: u32, ring: &Ring, sated: &[u32]) -> u32 {
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
                if sated.is_empty() || !sated.contains(&self.network_of(subscription)) {
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

    /// A page at an address asks for each of these links.
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
            // Each answer is followed by another request; the grant of a minute is renewed in its last fifth.
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
        // One more answered: the last quarter stays free, and what waits is not forgotten.
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
        // Loopback may be anybody's proxy.
        let mut rig = Rig::up(&board);
        asks(&mut rig, "127.0.0.1", (0..9).map(|number| format!("dead-{number}")));
        assert_eq!(rig.relay.in_use().links, 8);
    }
}
