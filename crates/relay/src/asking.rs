//! Requests to the business server: what is requested, when it is repeated, and when it times out.
//!
//! Implements "Subscribing" in `docs/protocol.md`: pages that subscribe to a link while a request
//! for it is in flight share that request; without a shared grant each page is requested by itself;
//! everything is requested again on a new connection. Admission is in `admission.rs`, the handling
//! of answers in `answering.rs`. Bounded by the board's tables and by the room in the uplink's
//! buffer; while that is short, `turns.rs` decides whose request is sent next.

use heapless::String;

use super::{
    Relay,
    event::Event,
    requests::{Asker, Request},
    session::Session,
    subscription::Stage,
    table::NONE,
    texts::Reason,
    time::Instant,
};
use wire::uplink::{PageInfo, Since, ToBusiness};

/// Timeout of a `Subscribe`; a page doesn't wait longer either.
pub(super) const ANSWER_MS_MAX: u64 = 10_000;
/// Back-off of unanswered renewals: the first step, doubled after each further one, up to
/// [`RENEW_MS_MAX`].
const RENEW_MS_MIN: u64 = 2_000;
const RENEW_MS_MAX: u64 = 30_000;
/// How many different epochs in the `since` of waiting pages are counted. If there are more, the
/// requested epoch may not be the most frequent one; the `Accept` then names the right one.
const EPOCHS_MAX: usize = 16;

impl Relay {
    /// Sends a `Subscribe` that names the page of `asker`, or one for the link as a whole if
    /// `asker` is [`NONE`]. Returns `false` if there is no room for it now.
    pub(super) fn request(&mut self, now: Instant, link: u32, asker: u32) -> bool {
        if !self.is_up() || self.requests.is_full() {
            self.requests.set_backlog();
            return false;
        }
        let since = self.since_for(link);
        // Recorded only for a link without a topic, where the place is that of waiting pages. For a
        // topic that the relay holds, nothing that it has is replayed.
        let replay =
            since.filter(|_| self.links[link].topic() == NONE).map_or((0, 0), |since| (since.epoch, since.next[1]));
        let mut address = String::<48>::new();
        let mut origin = "";
        let mut page = None;
        if let Some(row) = self.subscriptions.get(asker) {
            let session = &self.sessions[row.page()];
            // An IPv6 address has at most 45 characters.
            let _ = core::fmt::Write::write_fmt(&mut address, format_args!("{}", session.address()));
            origin = self.sessions.origin(session);
            page = Some(self.asker(session));
        }
        let number = self.requests.next_number();
        let info = PageInfo { address: &address, origin };
        let frame = ToBusiness::Subscribe { request: number, link: self.links[link].name(), since, page: info };
        let Some(order) = self.uplink.send(&frame) else {
            self.requests.set_backlog();
            return false;
        };
        let deadline = now.after(ANSWER_MS_MAX);
        let row = &self.links[link];
        let for_preview = !row.previewers.is_empty() && row.waiting.ring().is_empty() && row.watching.live() == 0;
        let network = self.network_of(if page.is_some() { asker } else { row.waiting.ring().first() });
        let request = Request { number, link, asker, page, network, for_preview, order, deadline, replay };
        if !self.requests.insert(request, &mut self.links[link].asked) {
            return false;
        }
        self.counters.requests += 1;
        self.subscriptions.set_asked(asker, true);
        true
    }

    /// The key under which a page's denial is remembered.
    pub(super) fn asker(&self, session: &Session) -> Asker {
        Asker { address: session.address(), origin: self.hash_of(self.sessions.origin(session)) }
    }

    /// The place from which the business server should publish.
    fn since_for(&self, link: u32) -> Option<Since> {
        if let Some(topic) = self.topics.get(self.links[link].topic()) {
            return Some(Since { epoch: topic.epoch(), next: topic.next() });
        }
        let (epoch, lowest) = self.place_of_most(link)?;
        let from = lowest.saturating_sub(self.board.messages.frames_max.into()).max(1);
        Some(Since { epoch, next: [0, from, 0, 0] })
    }

    /// The epoch that most of the waiting pages bring (of equals, the one that came first), or the
    /// epoch that the business server named; and the lowest `messages` sequence that pages bring
    /// for it.
    fn place_of_most(&self, link: u32) -> Option<(u64, u64)> {
        let row = &self.links[link];
        let mut places = heapless::Vec::<(u64, u64, u32), EPOCHS_MAX>::new();
        let mut walk = row.waiting.ring().walk();
        while let Some(subscription) = self.subscriptions.next(&mut walk) {
            let Stage::Waiting { since: (epoch, next @ 1..), .. } = *self.subscriptions[subscription].stage() else {
                continue;
            };
            if let Some((_, lowest, count)) = places.iter_mut().find(|(known, ..)| *known == epoch) {
                (*lowest, *count) = (next.min(*lowest), *count + 1);
                continue;
            }
            if places.is_full() && row.is_named_epoch(epoch) {
                // The epoch that the business server named is always counted.
                places.pop();
            }
            let _ = places.push((epoch, next, 1));
        }
        let named = places.iter().find(|(epoch, ..)| row.is_named_epoch(*epoch));
        // `max_by_key` returns the last of equals, hence `rev`.
        let chosen = named.or_else(|| places.iter().rev().max_by_key(|(.., count)| *count));
        chosen.map(|(epoch, lowest, _)| (*epoch, *lowest))
    }

    /// Times out requests, schedules due renewals, and removes idle links.
    pub(super) fn sweep_links(&mut self, now: Instant) {
        for index in 0..self.requests.end() {
            let request = self.requests.get(index).filter(|request| request.deadline <= now);
            if let Some(number) = request.map(|request| request.number) {
                self.events.add(Event::Unanswered { request: number });
                self.counters.requests_unanswered += 1;
                if let Some(request) = self.take_request(number) {
                    self.give_up(now, &request);
                }
            }
        }
        for link in 0..self.links.end() {
            let Some(row) = self.links.get(link) else { continue };
            if row.renew_at() <= now && row.watching.live() > 0 {
                self.requests.set_backlog();
            } else if row.is_idle(now) {
                self.release_link(now, link);
            }
        }
    }

    /// Handles a request that timed out: its waiting pages are denied with a retry, and a renewal
    /// is scheduled again.
    fn give_up(&mut self, now: Instant, request: &Request) {
        let link = request.link;
        self.unanswered.remember(request, &self.links, &self.subscriptions);
        match self.end_trial(link, request.number) {
            Some(denied) => {
                // The link was denied as a whole and the trial timed out: neither settles it.
                self.reasons.release_reason(denied);
                let reason = Reason::Own("the business server did not answer");
                self.deny_waiting(now, link, reason, Some(Self::retry_ms));
            }
            None => {
                let reason = Reason::Own("the business server did not answer");
                self.answer_waiting(now, request, reason, Some(Self::retry_ms));
            }
        }
        self.plan_renewal(now, link);
        self.previews.add_news();
        self.let_go(now, link);
        self.requests.set_backlog();
    }

    /// Schedules the next attempt of a renewal that failed, with back-off and jitter.
    pub(super) fn plan_renewal(&mut self, now: Instant, link: u32) {
        let row = &mut self.links[link];
        if row.lacks_renewal() && !row.asked.is_whole() {
            let step_ms = (RENEW_MS_MIN << row.give_up().min(8)).min(RENEW_MS_MAX);
            row.renew_from(now.after(step_ms / 2 + self.jitter.below(step_ms / 2 + 1)));
        }
    }

    /// The first live subscription that holds a link's shared grant and has no request of its own
    /// in flight; [`NONE`] if there is none.
    pub(super) fn first_live(&self, link: u32) -> u32 {
        let Some(topic) = self.topics.get(self.links[link].topic()) else { return NONE };
        let mut walk = topic.viewers.walk();
        while let Some(subscription) = self.subscriptions.next(&mut walk) {
            let row = &self.subscriptions[subscription];
            if row.link() == link && row.live().is_some_and(|live| !live.own && !live.is_asked()) {
                return subscription;
            }
        }
        NONE
    }

    /// After the uplink is back: forgets topics and grants without pages, and requests everything
    /// else again.
    pub(super) fn ask_everything_again(&mut self, now: Instant) {
        for topic in 0..self.topics.end() {
            if self.topics.get(topic).is_some_and(|topic| topic.viewers.is_empty()) {
                self.forget_topic(now, topic);
            }
        }
        for link in 0..self.links.end() {
            let Some(row) = self.links.get(link) else { continue };
            if row.watching.live() == 0 {
                self.links[link].forget_grant(now);
                self.release_link(now, link);
                continue;
            }
            let mut is_shared = false;
            let each = row.is_each();
            self.for_live(link, |live, watching| {
                // A link that was not shared is requested page by page.
                live.own |= each;
                live.set_ask_again(watching, live.own);
                is_shared |= !live.own;
            });
            self.links[link].reconnect(now, is_shared);
        }
        self.requests.set_backlog();
        self.ask_more(now);
    }

    /// Drops all requests in flight: their connection is gone.
    pub(super) fn drop_requests(&mut self, now: Instant) {
        self.unanswered.clear();
        self.links.forget_accepted();
        for index in 0..self.requests.end() {
            if let Some(number) = self.requests.get(index).map(|request| request.number)
                && let Some(request) = self.take_request(number)
            {
                if let Some(reason) = self.end_trial(request.link, number) {
                    self.reasons.release_reason(reason);
                }
                self.let_go(now, request.link);
            }
        }
        self.previews.add_news();
    }

    /// Removes a request from the table; its link's row is held until [`let_go`](Self::let_go).
    pub(super) fn take_request(&mut self, number: u32) -> Option<Request> {
        let request = self.requests.take(number, |link| &mut self.links[link].asked)?;
        self.subscriptions.set_asked(request.asker, false);
        Some(request)
    }

    /// The request that an answer refers to: one in flight, or one that timed out and whose link is
    /// still in use. The link's row is held until [`let_go`](Self::let_go).
    pub(super) fn take_answered(&mut self, number: u32) -> Option<Request> {
        let under_way = self.take_request(number);
        under_way.or_else(|| self.unanswered.take(number, &mut self.links, &self.subscriptions))
    }

    /// Whether a request was sent for previews alone.
    pub(super) fn is_for_preview(&self, number: u32) -> bool {
        let mut requests = self.requests.iter();
        requests.any(|(_, request)| request.number == number && request.for_preview)
            || self.unanswered.is_for_preview(number)
    }

    /// A link was denied: answers to its earlier requests are ignored. Their rows stay, since they
    /// are still in flight.
    pub(super) fn void_requests(&mut self, now: Instant, link: u32) {
        for index in 0..self.requests.end() {
            let voided = self.requests.void(index, link, &mut self.links[link].asked);
            let Some((asker, page)) = voided else { continue };
            self.subscriptions.set_asked(asker, false);
            if page.is_some() {
                self.let_go(now, link);
            }
        }
    }

    /// Releases a link's row once the answer to a request has been handled.
    pub(super) fn let_go(&mut self, now: Instant, link: u32) {
        self.links[link].asked.release();
        self.release_link(now, link);
    }
}

#[cfg(test)]
mod tests {
    use super::super::rig::{BOARD, OWN, Rig, SHARED, message};
    use board::Board;
    use wire::uplink::{Grant, ToRelay};

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
    fn without_a_shared_grant_each_page_is_requested() {
        let mut rig = Rig::up(&BOARD);
        let (a, b) = (rig.page(), rig.page_at([10, 0, 0, 2].into()));
        rig.subscribe(a, 1, "link");
        rig.subscribe(b, 1, "link");
        assert_eq!(rig.said(), ["Subscribe 1 link"], "as a whole, with no page named");
        rig.accept(1, 7, 1, OWN);
        assert!(
            rig.read(a).is_empty() && rig.read(b).is_empty(),
            "a grant that is not shared admits no page by itself"
        );
        let said = rig.said();
        assert_eq!(
            said,
            [
                "Audience 7 0",
                "Subscribe 2 link by 127.0.0.1 since 1 [0, 0, 0, 0]",
                "Subscribe 3 link by 10.0.0.2 since 1 [0, 0, 0, 0]"
            ]
        );
        rig.tell(ToRelay::Deny { request: 3, reason: "no" });
        rig.accept(2, 7, 1, OWN);
        assert!(rig.read(a)[0].contains("subscribed"));
        assert_eq!(rig.read(b), [r#"{"type":"denied","id":1,"reason":"no"}"#]);
        assert!(rig.read(a).is_empty());
    }

    #[test]
    fn pages_that_got_no_answer_retry_each_at_a_time_of_its_own() {
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
        let denials: alloc::collections::BTreeSet<String> = pages
            .into_iter()
            .map(|page| {
                let read = rig.read(page);
                read.iter().find(|text| text.contains("did not answer")).unwrap_or_else(|| panic!("{read:?}")).clone()
            })
            .collect();
        assert!(denials.len() == 4 && denials.iter().all(|text| text.contains("retry")), "{denials:?}");
    }

    #[test]
    fn pages_refused_by_a_full_table_retry_each_at_a_time_of_its_own() {
        let mut rig = Rig::up(&Board { subscriptions_max: 1, ..BOARD });
        let _ = rig.viewer();
        let denials: alloc::collections::BTreeSet<String> = (0..3)
            .map(|_| {
                let page = rig.page();
                rig.subscribe(page, 1, "link");
                rig.read(page).into_iter().find(|text| text.contains("no room for more subscriptions")).unwrap()
            })
            .collect();
        assert!(denials.len() == 3 && denials.iter().all(|text| text.contains("retry")), "{denials:?}");
    }

    #[test]
    fn a_topic_that_is_ended_at_the_console_is_unsubscribed_once_the_buffer_has_room() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.viewer();
        rig.said();
        while rig.relay.uplink.send_reserved(&super::ToBusiness::Ping { nonce: 1 }).is_some() {}
        assert_eq!(rig.relay.end_by_hand(rig.now, 7), Some(1));
        assert!(rig.read(page)[0].contains("end"));
        assert!(!rig.said().iter().any(|said| said.contains("Unsubscribe")));
        rig.pass(1_000);
        assert_eq!(rig.said(), ["Unsubscribe 7"]);
        assert_eq!(rig.relay.end_by_hand(rig.now, 7), None, "the topic is forgotten");
    }

    #[test]
    fn a_denied_link_is_remembered_for_two_seconds() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.page();
        rig.subscribe(page, 1, "link");
        rig.tell(ToRelay::Deny { request: 1, reason: "no" });
        assert_eq!(rig.said(), ["Subscribe 1 link", "Subscribe 2 link by 127.0.0.1"]);
        rig.tell(ToRelay::Deny { request: 2, reason: "no" });
        rig.subscribe(page, 2, "link");
        assert_eq!(rig.read(page).len(), 2);
        assert_eq!(rig.said(), [""; 0]);
        rig.pass(2_100);
        rig.subscribe(page, 3, "link");
        assert_eq!(rig.said(), ["Subscribe 3 link"]);
    }

    #[test]
    fn a_request_that_is_not_answered_times_out() {
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
    fn a_cold_link_is_requested_from_the_place_of_its_pages() {
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
    fn of_several_epochs_the_most_frequent_is_requested_and_of_equals_the_first() {
        let mut rig = Rig::up(&BOARD);
        let pages = [rig.page(), rig.page(), rig.page()];
        rig.relay.handle_uplink_lost(rig.now);
        for (page, epoch, next) in [(pages[0], u64::MAX, 9), (pages[1], 4, 28), (pages[2], 4, 30)] {
            let since = format!(r#"{{"epoch":"{epoch}","next":[0,{next},0,0]}}"#);
            rig.say(page, &format!(r#"{{"type":"subscribe","id":1,"link":"link","since":{since}}}"#));
        }
        rig.connect();
        assert_eq!(rig.said(), ["Subscribe 1 link since 4 [0, 24, 0, 0]"]);
        let mut rig = Rig::up(&BOARD);
        let pages = [rig.page(), rig.page()];
        rig.relay.handle_uplink_lost(rig.now);
        for (page, epoch) in [(pages[0], 3), (pages[1], 4)] {
            let since = format!(r#"{{"epoch":"{epoch}","next":[0,9,0,0]}}"#);
            rig.say(page, &format!(r#"{{"type":"subscribe","id":1,"link":"link","since":{since}}}"#));
        }
        rig.connect();
        assert_eq!(rig.said(), ["Subscribe 1 link since 3 [0, 5, 0, 0]"]);
    }

    #[test]
    fn a_page_that_names_another_epoch_costs_no_other_page_its_place() {
        for (epoch, next) in [(u64::MAX, 27), (4, (1_u64 << 53) - 1)] {
            let mut rig = Rig::up(&BOARD);
            let (liar, back) = (rig.page(), rig.page());
            let since = format!(r#"{{"epoch":"{epoch}","next":[0,{next},0,0]}}"#);
            rig.say(liar, &format!(r#"{{"type":"subscribe","id":1,"link":"link","since":{since}}}"#));
            rig.say(back, r#"{"type":"subscribe","id":1,"link":"link","since":{"epoch":"4","next":[0,28,0,0]}}"#);
            assert_eq!(rig.said(), [format!("Subscribe 1 link since {epoch} [0, {}, 0, 0]", next - 4)]);
            rig.accept(1, 7, 4, SHARED);
            assert!(rig.read(back).is_empty(), "a page is confirmed only once its replay is requested");
            assert_eq!(rig.said(), ["Unsubscribe 7", "Subscribe 2 link since 4 [0, 24, 0, 0]"]);
            rig.messages(30..=31);
            rig.accept(2, 7, 4, SHARED);
            rig.messages(24..=31);
            let read = rig.read(back);
            assert_eq!(read[1..], [message(28), message(29), message(30), message(31)]);
        }
    }

    #[test]
    fn a_link_whose_pages_keep_bringing_older_places_is_accepted_in_the_end() {
        let mut rig = Rig::up(&BOARD);
        let pages: Vec<_> = (0..4).map(|_| rig.page()).collect();
        let mut request = 0;
        for (page, next) in pages.into_iter().zip([1_u64 << 50, 1 << 40, 1 << 30, 1 << 20]) {
            let since = format!(r#"{{"epoch":"4","next":[0,{next},0,0]}}"#);
            rig.say(page, &format!(r#"{{"type":"subscribe","id":1,"link":"link","since":{since}}}"#));
            let said = rig.said();
            let asked = said.iter().find_map(|said| said.strip_prefix("Subscribe ")?.split(' ').next()?.parse().ok());
            if let Some(asked) = asked {
                request = asked;
            }
            if next < 1 << 50 {
                rig.accept(request, 7, 4, SHARED);
                request += 1;
            }
        }
        rig.said();
        rig.accept(request, 7, 4, SHARED);
        assert_eq!(rig.relay.counters().subscribed, 4);
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
    fn a_link_whose_accept_crossed_the_unsubscribe_is_requested_again() {
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
    fn a_topic_without_room_is_unsubscribed_and_its_pages_get_a_retry() {
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
    fn a_shared_answer_settles_the_requests_of_single_pages() {
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
    fn pages_that_wait_while_their_link_is_revoked_cost_no_second_request() {
        let mut rig = Rig::up(&BOARD);
        let (a, b) = (rig.page(), rig.page());
        rig.subscribe(a, 1, "link");
        rig.accept(1, 7, 1, OWN);
        rig.accept(2, 7, 1, OWN);
        rig.read(a);
        rig.subscribe(b, 1, "link");
        rig.said();
        rig.tell(ToRelay::Revoke { link: "link", reason: "back" });
        assert!(rig.read(a).iter().any(|text| text.contains("end")));
        rig.pass(200);
        assert!(!rig.said().iter().any(|said| said.starts_with("Subscribe")));
        rig.accept(3, 7, 1, OWN);
        assert!(rig.read(b).iter().any(|text| text.contains("subscribed")));
    }

    #[test]
    fn a_renewal_that_is_not_answered_is_repeated_with_a_back_off() {
        let mut rig = Rig::up(&Board { dead_ms: 600_000, ..BOARD });
        let page = rig.page();
        rig.subscribe(page, 1, "link");
        rig.accept(1, 7, 1, Grant { ttl_s: 6, ..SHARED });
        rig.said();
        let mut asked_at = Vec::new();
        for _ in 0..200 {
            rig.pass(1_000);
            rig.read(page);
            rig.tell(ToRelay::Ping { nonce: 1 });
            asked_at.extend(rig.said().iter().filter(|said| said.starts_with("Subscribe")).map(|_| rig.now));
        }
        let waits: Vec<u64> = asked_at.windows(2).map(|pair| pair[1].since(pair[0])).collect();
        assert!(waits.len() >= 5 && waits.iter().all(|wait| (10_000..=41_000).contains(wait)), "{waits:?}");
        assert!(waits[0] < waits[waits.len() - 1], "{waits:?}");
        assert_eq!(rig.relay.counters().denied, 0, "a live page goes on");
    }

    #[test]
    fn a_late_denial_still_counts_and_a_later_accept_revives_nothing() {
        let mut rig = Rig::up(&Board { dead_ms: 600_000, ..BOARD });
        let page = rig.page();
        rig.subscribe(page, 1, "link");
        rig.accept(1, 7, 1, Grant { ttl_s: 6, ..SHARED });
        rig.read(page);
        rig.said();
        let mut asked = Vec::new();
        while asked.len() < 2 {
            rig.pass(1_000);
            rig.read(page);
            rig.tell(ToRelay::Ping { nonce: 1 });
            asked.extend(rig.said().into_iter().filter(|said| said.starts_with("Subscribe")));
        }
        let [first, second] = [&asked[0], &asked[1]].map(|said| said.split(' ').nth(1).unwrap().parse().unwrap());
        let _ = rig.said();
        rig.tell(ToRelay::Deny { request: first, reason: "over" });
        let read = rig.read(page);
        assert!(read.contains(&r#"{"type":"end","topic":7,"reason":"over"}"#.to_owned()));
        let back = rig.page();
        rig.subscribe(back, 1, "link");
        assert!(rig.read(back)[0].contains("over"), "the denial is remembered");
        rig.pass(10_000);
        rig.tell(ToRelay::Ping { nonce: 1 });
        rig.accept(second, 7, 1, SHARED);
        let said = rig.said();
        assert!(!said.iter().any(|said| said.starts_with("Subscribe")), "{said:?}");
        rig.subscribe(back, 2, "link");
        assert!(rig.said().last().unwrap().starts_with("Subscribe"), "nothing is granted");
    }

    #[test]
    fn a_renewal_that_is_accepted_late_still_renews() {
        let mut rig = Rig::up(&Board { dead_ms: 600_000, ..BOARD });
        let page = rig.page();
        rig.subscribe(page, 1, "link");
        rig.accept(1, 7, 1, Grant { ttl_s: 6, ..SHARED });
        rig.read(page);
        rig.pass(16_500);
        rig.tell(ToRelay::Ping { nonce: 1 });
        rig.accept(2, 7, 1, SHARED);
        rig.said();
        let other = rig.page();
        rig.subscribe(other, 1, "link");
        assert!(rig.read(other)[0].contains("subscribed"));
    }

    #[test]
    fn of_links_that_are_only_remembered_the_least_recently_used_is_evicted() {
        let mut rig = Rig::up(&Board { links_max: 2, requests_max: 2, ..BOARD });
        let page = rig.page();
        for (link, request) in [("old", 1), ("young", 3)] {
            rig.subscribe(page, 1, link);
            rig.tell(ToRelay::Deny { request, reason: "no" });
            rig.tell(ToRelay::Deny { request: request + 1, reason: "no" });
            rig.pass(100);
            rig.read(page);
        }
        // Used again, `old` is now the more recently used one.
        rig.subscribe(page, 1, "old");
        rig.read(page);
        rig.subscribe(page, 1, "third");
        rig.said();
        rig.subscribe(page, 1, "old");
        rig.read(page);
        assert_eq!(rig.said(), [""; 0], "still remembered");
        let other = rig.page_at([10, 0, 0, 2].into());
        rig.subscribe(other, 1, "young");
        assert_eq!(rig.said(), ["Subscribe 6 young"]);
    }
}
