//! Asking the business server: what is asked for, again and when, and what is given up.
//!
//! The rules of "Subscribing" in `docs/protocol.md`: pages that ask for one link while a request for it
//! is under way cost one request; without a shared grant each page is asked for; everything is asked for anew on a new
//! connection. Who is admitted is `admission.rs`'s, what an answer leads to `answering.rs`'s. Bounded by the board's
//! tables and by the room in the uplink's buffer: what finds none waits ("hungry").

use heapless::String;

use super::{Relay, event::Event, link::Request, session::Stage, table::NONE, texts::Reason, time::Instant};
use crate::wire::uplink::{PageInfo, Since, ToBusiness};

/// A `Subscribe` that is not answered within this time is given up; a page waits no longer either.
pub(super) const ANSWER_MS_MAX: u64 = 10_000;

impl Relay {
    /// Asks for whatever is still to be asked for, as far as there is room.
    pub(super) fn ask_more(&mut self, now: Instant) {
        if !self.hungry || !self.is_up() {
            return;
        }
        self.hungry = false;
        let end = self.links.end();
        for step in 0..end {
            let link = (self.asked_link + step) % end;
            if self.links.get(link).is_some() && !self.ask_for(now, link) {
                self.asked_link = link;
                return;
            }
        }
    }

    /// Asks for what a link needs; `false` where there was no room for all of it.
    pub(super) fn ask_for(&mut self, now: Instant, link: u32) -> bool {
        let row = &self.links[link];
        let mut all = true;
        if row.request == NONE {
            if row.ask_again && row.live_count > 0 {
                all &= self.request(now, link, NONE, false);
            } else if !row.each && row.waiting != NONE && row.holds == 0 {
                // Requests of single pages that are still under way (the link was taken back) come first.
                all &= self.request(now, link, row.waiting, false);
            }
        }
        let row = &self.links[link];
        if row.each && row.waiting_count > 0 {
            all = all && self.ask_each(now, link, row.waiting, row.waiting_count);
        }
        let row = &self.links[link];
        if row.ask_again_count > 0 && row.topic != NONE {
            let topic = &self.topics[row.topic];
            all = all && self.ask_each(now, link, topic.walk, topic.pages);
        }
        self.hungry |= !all;
        all
    }

    /// Asks for each subscription of a link in a ring that has no request under way and needs one.
    fn ask_each(&mut self, now: Instant, link: u32, head: u32, count: u32) -> bool {
        let mut subscription = head;
        for _ in 0..count {
            let row = &self.subscriptions[subscription];
            let next = row.next;
            let needs = row.link == link
                && match row.stage {
                    Stage::Waiting { asked, .. } => !asked,
                    Stage::Live(live) => live.ask_again && !live.asked,
                    Stage::Over { .. } => false,
                };
            if needs && !self.request(now, link, subscription, true) {
                return false;
            }
            subscription = next;
        }
        true
    }

    /// Sends a `Subscribe`; `false` where there is no room for it now.
    fn request(&mut self, now: Instant, link: u32, asker: u32, own: bool) -> bool {
        if !self.is_up() || self.requests.is_full() {
            self.hungry = true;
            return false;
        }
        let (since, replay_from) = self.since_for(link);
        let mut address = String::<48>::new();
        let mut origin = "";
        if let Some(row) = self.subscriptions.get(asker) {
            let session = &self.sessions[row.page];
            // An IPv6 address has at most 45 characters.
            let _ = core::fmt::Write::write_fmt(&mut address, format_args!("{}", session.address));
            origin = session.origin.map_or("", |id| self.origins.text(id));
        }
        let number = self.next_request;
        let page = PageInfo { address: &address, origin };
        let frame = ToBusiness::Subscribe { request: number, link: &self.links[link].name, since, page };
        let Some(order) = self.uplink.send(&frame) else {
            self.hungry = true;
            return false;
        };
        self.next_request = self.next_request.wrapping_add(1);
        let deadline = now.after(ANSWER_MS_MAX);
        let request = Request { number, link, asker, own, order, deadline, replay_from };
        let Ok(index) = self.requests.insert(request) else { return false };
        self.counters.requests += 1;
        if own {
            self.links[link].holds += 1;
        } else {
            self.links[link].request = index;
        }
        self.set_asked(asker, true);
        true
    }

    /// From where the business server should publish, and the messages' sequence that was asked for.
    pub(super) fn since_for(&self, link: u32) -> (Option<Since>, u64) {
        let row = &self.links[link];
        if let Some(topic) = self.topics.get(row.topic) {
            return (Some(Since { epoch: topic.epoch, next: topic.next }), 0);
        }
        let mut newest = None::<(u64, u64)>;
        let mut subscription = row.waiting;
        for _ in 0..row.waiting_count {
            let waiting = &self.subscriptions[subscription];
            if let Stage::Waiting { since: (epoch, next), .. } = waiting.stage
                && next > 0
            {
                newest = Some(match newest {
                    Some((other, lowest)) if other == epoch => (epoch, lowest.min(next)),
                    Some(other) if other.0 > epoch => other,
                    _ => (epoch, next),
                });
            }
            subscription = waiting.next;
        }
        let Some((epoch, lowest)) = newest else { return (None, 0) };
        let from = lowest.saturating_sub(self.board.messages.frames_max.into()).max(1);
        (Some(Since { epoch, next: [0, from, 0, 0] }), from)
    }

    /// Gives up requests that were not answered, renews grants, forgets links of no use.
    pub(super) fn sweep_links(&mut self, now: Instant) {
        for index in 0..self.requests.end() {
            if self.requests.get(index).is_some_and(|request| request.deadline <= now) {
                let number = self.requests[index].number;
                self.events.add(Event::Unanswered { request: number });
                self.counters.requests_unanswered += 1;
                if let Some(request) = self.take_request(number) {
                    let reason = Reason::Own("the business server did not answer");
                    self.answer_waiting(now, &request, reason, Some(Self::retry_ms));
                    self.let_go(now, request.link);
                    self.hungry = true;
                }
            }
        }
        for link in 0..self.links.end() {
            let Some(row) = self.links.get(link) else { continue };
            if row.renew_at <= now && row.request == NONE && row.live_count > 0 {
                if self.request(now, link, NONE, false) {
                    self.links[link].renew_at = Instant::NEVER;
                }
            } else if row.is_idle(now) {
                self.release_link(now, link);
            }
        }
    }

    /// After the uplink came back: what nobody watches is dropped, everything else is asked for again.
    pub(super) fn ask_everything_again(&mut self, now: Instant) {
        for topic in 0..self.topics.end() {
            if self.topics.get(topic).is_some_and(|topic| topic.pages == 0) {
                self.forget_topic(now, topic);
            }
        }
        for link in 0..self.links.end() {
            let Some(row) = self.links.get(link) else { continue };
            if row.live_count == 0 {
                let row = &mut self.links[link];
                row.granted_until = now;
                row.topic = NONE;
                self.release_link(now, link);
                continue;
            }
            let (mut own, mut shared) = (0, 0);
            self.for_live(link, |live| {
                live.asked = false;
                live.ask_again = live.own;
                *(if live.own { &mut own } else { &mut shared }) += 1;
            });
            let row = &mut self.links[link];
            row.ask_again_count = own;
            row.ask_again = shared > 0;
            row.renew_at = Instant::NEVER;
        }
        self.hungry = true;
        self.ask_more(now);
    }

    /// Every request under way is void: the connection is gone.
    pub(super) fn drop_requests(&mut self, now: Instant) {
        for index in 0..self.requests.end() {
            if let Some(number) = self.requests.get(index).map(|request| request.number)
                && let Some(request) = self.take_request(number)
            {
                self.let_go(now, request.link);
            }
        }
    }

    /// Takes a request out of the table; its link is held until [`let_go`](Self::let_go).
    pub(super) fn take_request(&mut self, number: u32) -> Option<Request> {
        let index = self.requests.iter().find(|(_, request)| request.number == number).map(|(index, _)| index)?;
        let request = self.requests.remove(index)?;
        let row = &mut self.links[request.link];
        if !request.own {
            row.request = NONE;
            row.holds += 1;
        }
        self.set_asked(request.asker, false);
        Some(request)
    }

    fn set_asked(&mut self, subscription: u32, now_asked: bool) {
        match self.subscriptions.get_mut(subscription).map(|row| &mut row.stage) {
            Some(Stage::Waiting { asked, .. }) => *asked = now_asked,
            Some(Stage::Live(live)) => live.asked = now_asked,
            _ => {}
        }
    }

    /// A subscription that goes away is nobody's asker any more.
    pub(super) fn forget_asker(&mut self, subscription: u32) {
        let asked = match &self.subscriptions[subscription].stage {
            Stage::Waiting { asked, .. } => *asked,
            Stage::Live(live) => live.asked,
            Stage::Over { .. } => false,
        };
        if asked {
            for index in 0..self.requests.end() {
                if let Some(request) = self.requests.get_mut(index)
                    && request.asker == subscription
                {
                    request.asker = NONE;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rig::{BOARD, OWN, Rig, SHARED, message};
    use crate::{
        board::Board,
        wire::uplink::{Grant, ToRelay},
    };

    #[test]
    fn a_herd_costs_one_request() {
        let mut rig = Rig::up(&BOARD);
        let pages = [rig.page(), rig.page(), rig.page()];
        for page in pages {
            rig.subscribe(page, 1, "link");
        }
        assert_eq!(rig.said(), ["Subscribe 1 link"]);
        rig.accept(1, 7, 1, SHARED);
        for page in pages {
            assert!(rig.read(page)[0].contains("subscribed"));
        }
        assert_eq!(rig.said(), ["Audience 7 3"]);
    }

    #[test]
    fn without_a_shared_grant_each_page_is_asked_for() {
        let mut rig = Rig::up(&BOARD);
        let (a, b) = (rig.page(), rig.page());
        rig.subscribe(a, 1, "link");
        rig.subscribe(b, 1, "link");
        assert_eq!(rig.said(), ["Subscribe 1 link"]);
        rig.accept(1, 7, 1, OWN);
        assert!(rig.read(a)[0].contains("subscribed"));
        assert!(rig.read(b).is_empty());
        assert_eq!(rig.said(), ["Audience 7 1", "Subscribe 2 link since 1 [0, 0, 0, 0]"]);
        rig.tell(ToRelay::Deny { request: 2, reason: "no" });
        assert_eq!(rig.read(b), [r#"{"type":"denied","id":1,"reason":"no"}"#]);
        assert!(rig.read(a).is_empty());
    }

    #[test]
    fn a_herd_that_is_not_answered_asks_again_each_at_a_time_of_its_own() {
        let mut rig = Rig::up(&BOARD);
        let pages = [rig.page(), rig.page(), rig.page(), rig.page()];
        for page in pages {
            rig.subscribe(page, 1, "link");
        }
        rig.pass(super::ANSWER_MS_MAX / 2);
        for page in pages {
            rig.read(page);
        }
        rig.pass(super::ANSWER_MS_MAX / 2 + 100);
        let told: std::collections::BTreeSet<String> = pages
            .into_iter()
            .map(|page| {
                let read = rig.read(page);
                read.iter().find(|text| text.contains("did not answer")).unwrap_or_else(|| panic!("{read:?}")).clone()
            })
            .collect();
        assert!(told.len() == 4 && told.iter().all(|text| text.contains("retry")), "{told:?}");
    }

    #[test]
    fn pages_that_there_is_no_row_for_ask_again_each_at_a_time_of_its_own() {
        let mut rig = Rig::up(&Board { subscriptions_max: 1, ..BOARD });
        let _ = rig.viewer();
        let told: std::collections::BTreeSet<String> = (0..3)
            .map(|_| {
                let page = rig.page();
                rig.subscribe(page, 1, "link");
                rig.read(page).into_iter().find(|text| text.contains("no room for more subscriptions")).unwrap()
            })
            .collect();
        assert!(told.len() == 3 && told.iter().all(|text| text.contains("retry")), "{told:?}");
    }

    #[test]
    fn a_topic_that_is_ended_by_hand_is_unsubscribed_once_there_is_room_to_say_so() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.viewer();
        rig.said();
        while rig.relay.uplink.send_reserved(&super::ToBusiness::Ping { nonce: 1 }).is_some() {}
        assert_eq!(rig.relay.end_by_hand(rig.now, 7), Some(1));
        assert!(rig.read(page)[0].contains("end"));
        assert!(!rig.said().iter().any(|said| said.contains("Unsubscribe")));
        rig.pass(1_000);
        assert_eq!(rig.said(), ["Unsubscribe 7"]);
        assert_eq!(rig.relay.end_by_hand(rig.now, 7), None, "it is forgotten");
    }

    #[test]
    fn a_denied_link_is_remembered_for_two_seconds() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.page();
        rig.subscribe(page, 1, "link");
        rig.tell(ToRelay::Deny { request: 1, reason: "no" });
        rig.subscribe(page, 2, "link");
        assert_eq!(rig.read(page).len(), 2);
        assert_eq!(rig.said(), ["Subscribe 1 link"]);
        rig.pass(2_100);
        rig.subscribe(page, 3, "link");
        assert_eq!(rig.said(), ["Subscribe 2 link"]);
    }

    #[test]
    fn a_request_that_is_not_answered_is_given_up() {
        let mut rig = Rig::up(&Board { dead_ms: 60_000, first_subscribe_ms_max: 60_000, ..BOARD });
        let page = rig.page();
        rig.subscribe(page, 1, "link");
        rig.pass(10_100);
        let read = rig.read(page);
        assert!(read.iter().any(|text| text.contains("did not answer") && text.contains("retry")), "{read:?}");
        rig.said();
        rig.accept(1, 7, 1, SHARED);
        assert_eq!(rig.said(), ["Audience 7 0"], "a topic without pages");
    }

    #[test]
    fn a_cold_link_is_asked_for_from_where_its_pages_were() {
        let mut rig = Rig::up(&BOARD);
        let pages = [rig.page(), rig.page(), rig.page()];
        rig.relay.handle_uplink_lost(rig.now);
        for (page, epoch, next) in [(pages[0], 8, 3), (pages[1], 9, 20), (pages[2], 9, 15)] {
            let since = format!(r#"{{"epoch":"{epoch}","next":[1,{next},1,1]}}"#);
            rig.say(page, &format!(r#"{{"type":"subscribe","id":1,"link":"link","since":{since}}}"#));
        }
        rig.connect();
        assert_eq!(rig.said(), ["Subscribe 1 link since 9 [0, 11, 0, 0]"]);
    }

    #[test]
    fn a_page_that_names_another_epoch_costs_nobody_its_place() {
        let mut rig = Rig::up(&BOARD);
        let (liar, back) = (rig.page(), rig.page());
        rig.say(liar, r#"{"type":"subscribe","id":1,"link":"link","since":{"epoch":"9","next":[0,27,0,0]}}"#);
        rig.say(back, r#"{"type":"subscribe","id":1,"link":"link","since":{"epoch":"4","next":[0,28,0,0]}}"#);
        assert_eq!(rig.said(), ["Subscribe 1 link since 9 [0, 23, 0, 0]"]);
        rig.accept(1, 7, 4, SHARED);
        rig.messages(19..=20);
        assert_eq!(rig.read(back).len(), 1, "subscribed, and nothing that it has");
        rig.messages(21..=28);
        assert_eq!(rig.read(back), [message(28)]);
    }

    #[test]
    fn a_topic_without_pages_lingers_and_is_unsubscribed() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.viewer();
        rig.said();
        rig.relay.handle_page_closed(rig.now, page);
        rig.pass(1_900);
        let back = rig.page();
        rig.subscribe(back, 1, "link");
        assert!(rig.read(back)[0].contains("subscribed"), "warm");
        rig.relay.handle_page_closed(rig.now, back);
        rig.pass(3_000);
        assert_eq!(rig.said().last().unwrap(), "Unsubscribe 7");
        assert_eq!(rig.relay.topic_index(7), None);
    }

    #[test]
    fn an_accept_that_crossed_the_unsubscribe_is_asked_for_again() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.viewer();
        rig.relay.handle_page_closed(rig.now, page);
        let other = rig.page();
        rig.subscribe(other, 1, "other");
        rig.pass(2_200);
        let said = rig.said();
        assert_eq!(said.last().unwrap(), "Unsubscribe 7", "{said:?}");
        rig.accept(2, 7, 1, SHARED);
        assert!(rig.read(other).iter().all(|text| !text.contains("subscribed")));
        assert_eq!(rig.said(), ["Subscribe 3 other"]);
        rig.accept(3, 7, 1, SHARED);
        assert!(rig.read(other).iter().any(|text| text.contains("subscribed")));
    }

    #[test]
    fn a_shared_grant_is_renewed_before_its_end_and_a_denial_ends_all() {
        let mut rig = Rig::up(&Board { dead_ms: 60_000, ..BOARD });
        let page = rig.page();
        rig.subscribe(page, 1, "link");
        rig.accept(1, 7, 1, Grant { ttl_s: 10, ..SHARED });
        rig.said();
        rig.pass(7_900);
        assert!(!rig.said().iter().any(|said| said.starts_with("Subscribe")));
        rig.read(page);
        rig.relay.handle_page_heard(rig.now, page);
        rig.pass(1_300);
        assert!(rig.said().iter().any(|said| said.starts_with("Subscribe 2 link since 1")));
        rig.tell(ToRelay::Deny { request: 2, reason: "over" });
        assert!(rig.read(page).contains(&r#"{"type":"end","topic":7,"reason":"over"}"#.to_owned()));
    }

    #[test]
    fn a_topic_that_finds_no_room_is_unsubscribed_and_its_pages_come_back() {
        let mut rig = Rig::up(&Board { topics_max: 1, topics_per_page_max: 1, ..BOARD });
        rig.viewer();
        rig.said();
        let page = rig.page();
        rig.subscribe(page, 1, "other");
        rig.said();
        rig.accept(2, 8, 1, SHARED);
        assert!(rig.read(page)[0].contains("retry"));
        assert_eq!(rig.said(), ["Unsubscribe 8"]);
    }

    #[test]
    fn a_shared_answer_settles_what_single_pages_were_asked_for() {
        let mut rig = Rig::up(&BOARD);
        let (a, b) = (rig.page(), rig.page());
        rig.subscribe(a, 1, "link");
        rig.accept(1, 7, 1, OWN);
        rig.subscribe(b, 1, "link");
        rig.accept(2, 7, 1, OWN);
        rig.said();
        rig.relay.handle_uplink_lost(rig.now);
        rig.connect();
        assert_eq!(rig.said().len(), 2);
        rig.accept(3, 7, 1, SHARED);
        rig.accept(4, 7, 1, OWN);
        rig.pass(200);
    }

    #[test]
    fn pages_that_wait_while_the_link_is_revoked_cost_no_second_request() {
        let mut rig = Rig::up(&BOARD);
        let (a, b) = (rig.page(), rig.page());
        rig.subscribe(a, 1, "link");
        rig.accept(1, 7, 1, OWN);
        rig.read(a);
        rig.subscribe(b, 1, "link");
        rig.said();
        rig.tell(ToRelay::Revoke { link: "link", reason: "back" });
        assert!(rig.read(a).iter().any(|text| text.contains("end")));
        rig.pass(200);
        assert!(!rig.said().iter().any(|said| said.starts_with("Subscribe")));
        rig.accept(2, 7, 1, OWN);
        assert!(rig.read(b).iter().any(|text| text.contains("subscribed")));
    }
}
