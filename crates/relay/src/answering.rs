//! The business server's answers and decisions: accepted, denied, revoked, ended.
//!
//! Owns what an answer means for a link, its grant and the waiting pages. A link is requested again
//! if its `Accept` crossed our `Unsubscribe`, or if a waiting page knows the accepted epoch from an
//! older place than was requested. A denial of a link as a whole applies to all its pages; a denial
//! of a request that names a page applies to that page alone. Doesn't know how and when requests
//! are sent (`asking.rs`), nor the life of topics (`topic_life.rs`).

use super::{
    Relay,
    denials::DENIED_MS,
    event::Event,
    link::{Denied, Trial},
    requests::{Asker, Request},
    subscription::{Live, Stage, Subscription, Watching},
    table::NONE,
    texts::Reason,
    time::Instant,
};
use wire::uplink::Grant;

/// How many times in a row a link gives an `Accept` back, to request an older replay. Once is
/// enough unless pages with yet another place arrive in between.
const REPLAYS_MAX: u8 = 3;

impl Relay {
    /// Handles `Accept`.
    pub(super) fn accepted(&mut self, now: Instant, number: u32, topic_number: u32, epoch: u64, grant: Grant) {
        let for_preview = self.is_for_preview(number);
        let Some(request) = self.take_answered(number) else {
            // Nothing waits for this answer any more, so the topic has no pages. It is unsubscribed
            // if it was unsubscribed lately or only a preview requested it.
            let is_unwanted = for_preview || self.uplink.has_unsubscribed(topic_number, 0);
            if is_unwanted && self.topics.find(topic_number).is_none() {
                let _ = self.uplink.unsubscribe(topic_number);
            } else if self.topic_for(now, topic_number, epoch, false).is_none() {
                self.refuse_topic(topic_number);
            }
            self.flush_audiences(now);
            return;
        };
        let link = request.link;
        self.note_accepted(link, &request);
        self.accept(now, &request, topic_number, epoch, grant);
        self.previews.add_news();
        self.let_go(now, link);
        self.flush_audiences(now);
    }

    /// Records that a link was accepted on this connection: as a whole, or for a page by name.
    fn note_accepted(&mut self, link: u32, request: &Request) {
        let connection = self.uplink.connection();
        let void = self.links[link].accepted(request.number, request.page.is_some(), connection);
        void.into_iter().flatten().for_each(|reason| self.reasons.release_reason(reason));
        if let Some(page) = request.page {
            self.denials.forget(&mut self.reasons, self.links[link].hash(), page);
        }
    }

    fn accept(&mut self, now: Instant, request: &Request, topic_number: u32, epoch: u64, grant: Grant) {
        let link = request.link;
        let held = self.topics.find(topic_number);
        let is_held = held.is_some_and(|topic| self.is_accepted(topic));
        if self.uplink.has_unsubscribed(topic_number, request.order) && !is_held {
            // Our `Unsubscribe` was sent after that request: the business server has dropped the
            // topic again.
            self.ask_anew(now, link);
            return;
        }
        if held.is_none() && self.is_known_from_before(link, epoch, request) && self.uplink.unsubscribe(topic_number) {
            self.links[link].replay_again(epoch);
            self.ask_anew(now, link);
            return;
        }
        self.links[link].settle_replays();
        let for_preview = request.for_preview && self.links[link].waiting.ring().is_empty();
        let Some(topic) = self.topic_for(now, topic_number, epoch, for_preview) else {
            self.refuse_topic(topic_number);
            let reason = Reason::Own("the relay has no room for more topics now");
            self.answer_waiting(now, request, reason, Some(Self::full_retry_ms));
            self.plan_renewal(now, link);
            self.requests.set_backlog();
            return;
        };
        let acceptance = &mut self.topics[topic].acceptance;
        if for_preview && self.links[link].previewers.is_empty() && acceptance.is_for_preview() {
            // The answer was too late for all previews that waited: the next sweep unsubscribes it.
            acceptance.forget_from(now);
        }
        if held.is_none() {
            // The requested place only applies to the requested epoch.
            acceptance.set_replay_from(if request.replay.0 == epoch { request.replay.1 } else { 0 });
        }
        self.leave_other_topic(now, link, topic);
        let was_asked_again = self.links[link].lead_to(topic, grant);
        if grant.shared {
            self.accepted_shared(now, link);
        } else {
            self.accepted_one(now, request, topic, was_asked_again);
        }
    }

    /// Whether a waiting page was in this epoch before, at an older place than the replay was
    /// requested from.
    fn is_known_from_before(&self, link: u32, epoch: u64, request: &Request) -> bool {
        let row = &self.links[link];
        if row.replays() >= REPLAYS_MAX || row.topic() != NONE {
            return false;
        }
        let from = if request.replay.0 == epoch { request.replay.1.max(1) } else { u64::MAX };
        let mut walk = row.waiting.ring().walk();
        while let Some(subscription) = self.subscriptions.next(&mut walk) {
            if let Stage::Waiting { since: (of, next @ 1..), .. } = *self.subscriptions[subscription].stage()
                && of == epoch
                && next < from
            {
                return true;
            }
        }
        false
    }

    /// The answer can't be used: schedules the same request again.
    fn ask_anew(&mut self, now: Instant, link: u32) {
        let row = &mut self.links[link];
        if row.is_by_name() {
            if row.is_renewed() {
                row.renew_from(now);
            }
        } else if row.watching.live() > 0 {
            row.set_ask_again();
        }
        self.requests.set_backlog();
    }

    fn accepted_shared(&mut self, now: Instant, link: u32) {
        let row = &mut self.links[link];
        let ttl_ms = row.ttl_ms();
        // Renewed at a random time in the last fifth of the TTL, so that the renewals of many links
        // don't coincide.
        let early_ms = ttl_ms / 10 + self.jitter.below(ttl_ms / 10 + 1);
        row.grant_shared(now, early_ms);
        self.for_live(link, |live, watching| {
            live.own = false;
            live.set_ask_again(watching, false);
        });
        self.begin_admitting(now, link);
    }

    fn accepted_one(&mut self, now: Instant, request: &Request, topic: u32, was_asked_again: bool) {
        let link = request.link;
        let row = &mut self.links[link];
        row.grant_one(now);
        let watching = &mut row.watching;
        if let Some(live) = self.subscriptions.live_mut(request.asker) {
            // A shared accept may have settled this for all pages in the meantime.
            live.set_ask_again(watching, false);
        } else if self.subscriptions.get(request.asker).is_some_and(Subscription::is_waiting) {
            self.admit(now, request.asker, topic, true);
        }
        if was_asked_again {
            // The link was shared and no longer is: every page but this one now needs its own
            // grant.
            if let Some(live) = self.subscriptions.live_mut(request.asker) {
                live.own = true;
            }
            self.for_live(link, |live, watching| {
                if !core::mem::replace(&mut live.own, true) {
                    live.set_ask_again(watching, true);
                }
            });
        }
        self.requests.set_backlog();
    }

    /// Handles `Deny`.
    pub(super) fn denied(&mut self, now: Instant, number: u32, reason: &str) {
        let Some(request) = self.take_answered(number) else { return };
        let reason = self.reasons.keep_reason(reason, "the business server said no");
        match request.page {
            Some(page) => self.denied_page(now, &request, page, reason),
            None => self.denied_whole(now, request.link, reason),
        }
        self.previews.add_news();
        self.let_go(now, request.link);
        self.requests.set_backlog();
    }

    /// A page was denied by name. The denial is that page's alone. If its request was the trial of
    /// a denial of the whole link, that denial now takes effect for the others.
    fn denied_page(&mut self, now: Instant, request: &Request, page: Asker, reason: Reason) {
        let link = request.link;
        self.denials.remember(&mut self.reasons, now, self.links[link].hash(), page, reason);
        if self.subscriptions.get(request.asker).is_some_and(|row| !matches!(row.stage(), Stage::Over { .. })) {
            self.finish(now, request.asker, reason, None);
        } else {
            self.reasons.release_reason(reason);
        }
        if let Some(reason) = self.end_trial(link, request.number) {
            if self.links[link].watches_by_name() {
                // One denied name does not condemn the others: on the previous connection, too,
                // only names were accepted.
                self.reasons.release_reason(reason);
                self.ask_by_name(link);
            } else {
                self.deny_link(now, link, reason, false);
            }
            return;
        }
        let row = &mut self.links[link];
        if row.is_by_name() && row.lacks_renewal() {
            // The renewal may succeed in another page's name.
            row.renew_from(now);
        }
    }

    /// A link was denied as a whole. If nothing has been accepted for it on this connection, the
    /// business server may decide by address: then one page is requested by name before the denial
    /// counts.
    pub(super) fn denied_whole(&mut self, now: Instant, link: u32, reason: Reason) {
        if self.links[link].on_trial().is_some() {
            // A second denial of the link while the trial is in progress.
            self.reasons.release_reason(reason);
            return;
        }
        let may_try = !self.links[link].is_accepted_on(self.uplink.connection());
        let witness = if may_try { self.witness(link) } else { NONE };
        if witness == NONE {
            self.deny_link(now, link, reason, may_try);
            return;
        }
        let request = self.requests.next_number();
        if self.request(now, link, witness) {
            if let Some(old) = self.links[link].begin_trial(Trial { request, reason }) {
                self.reasons.release_reason(old);
            }
        } else {
            // Lack of room is not a denial: waiting pages get a retry, and live ones are requested
            // again.
            self.reasons.release_reason(reason);
            let reason = Reason::Own("the relay has no room for more requests now");
            self.deny_waiting(now, link, reason, Some(Self::full_retry_ms));
        }
    }

    /// Schedules a request by name for each page of a link, live or waiting.
    fn ask_by_name(&mut self, link: u32) {
        self.for_live(link, |live, watching| {
            live.own = true;
            live.set_ask_again(watching, true);
        });
        self.links[link].ask_by_name();
        self.requests.set_backlog();
    }

    /// The subscription to request by name after a link was denied as a whole: a live one if the
    /// previous connection accepted only names, else the one that has waited longest; [`NONE`] if
    /// there is neither.
    fn witness(&self, link: u32) -> u32 {
        let row = &self.links[link];
        if row.watches_by_name() {
            return self.first_live(link);
        }
        let mut walk = row.waiting.ring().walk();
        while let Some(subscription) = self.subscriptions.next(&mut walk) {
            if !self.subscriptions[subscription].is_asked() {
                return subscription;
            }
        }
        NONE
    }

    /// Denies a link to all waiting pages, ends its live subscriptions, and remembers the denial.
    /// Consumes one use of the reason.
    pub(super) fn deny_link(&mut self, now: Instant, link: u32, reason: Reason, untried: bool) {
        self.unanswered.forget(self.links.id(link));
        self.void_requests(now, link);
        self.end_link(now, link, reason);
        let kept = self.reasons.retain_reason(reason);
        let denied = Denied { until: now.after(DENIED_MS), reason: kept, untried };
        if let Some(old) = self.links[link].deny(denied) {
            self.reasons.release_reason(old);
        }
        self.deny_waiting(now, link, reason, None);
        self.reasons.release_reason(reason);
    }

    /// Ends a link's trial if this request is the one; returns the reason of the denial that was on
    /// trial.
    pub(super) fn end_trial(&mut self, link: u32, number: u32) -> Option<Reason> {
        self.links[link].end_trial(number)
    }

    /// Handles `Revoke`: the link's grant and its live subscriptions end.
    pub(super) fn revoked(&mut self, now: Instant, name: &str, reason: &str) {
        let Some(link) = self.links.find(name) else { return };
        let reason = self.reasons.keep_reason(reason, "the link was taken back");
        self.unanswered.forget(self.links.id(link));
        self.end_link(now, link, reason);
        self.reasons.release_reason(reason);
        self.release_link(now, link);
    }

    /// Handles `End`: the topic ends for all pages.
    pub(super) fn ended(&mut self, now: Instant, topic_number: u32, reason: &str) {
        let Some(topic) = self.topics.find(topic_number) else { return };
        self.end_pages(now, topic, reason);
        self.forget_topic(now, topic);
    }

    /// Notifies all pages of a topic that it is over, and ends their subscriptions.
    pub(super) fn end_pages(&mut self, now: Instant, topic: u32, reason: &str) {
        let reason = self.reasons.keep_reason(reason, "it is over");
        let (number, pages) = (self.topics[topic].number(), self.topics[topic].viewers.len());
        let mut walk = self.topics[topic].viewers.walk();
        while let Some(subscription) = self.subscriptions.next(&mut walk) {
            let reason = self.reasons.retain_reason(reason);
            self.finish(now, subscription, reason, None);
        }
        self.reasons.release_reason(reason);
        self.events.add(Event::Ended { topic: number, pages });
    }

    /// Denies the waiting subscriptions that a request was sent for, each with a retry of its own
    /// if `draw_ms` is given.
    pub(super) fn answer_waiting(
        &mut self,
        now: Instant,
        request: &Request,
        reason: Reason,
        draw_ms: Option<fn(&mut Self) -> u32>,
    ) {
        if request.page.is_none() {
            self.deny_waiting(now, request.link, reason, draw_ms);
        } else if self.subscriptions.get(request.asker).is_some_and(Subscription::is_waiting) {
            let retry_ms = draw_ms.map(|draw| draw(self));
            let reason = self.reasons.retain_reason(reason);
            self.finish(now, request.asker, reason, retry_ms);
        }
    }

    pub(super) fn deny_waiting(
        &mut self,
        now: Instant,
        link: u32,
        reason: Reason,
        draw_ms: Option<fn(&mut Self) -> u32>,
    ) {
        let mut walk = self.links[link].waiting.ring().walk();
        while let Some(subscription) = self.subscriptions.next(&mut walk) {
            let retry_ms = draw_ms.map(|draw| draw(self));
            let reason = self.reasons.retain_reason(reason);
            self.finish(now, subscription, reason, retry_ms);
        }
    }

    /// Ends a link's grant and every live subscription that was made with it.
    fn end_link(&mut self, now: Instant, link: u32, reason: Reason) {
        let row = &mut self.links[link];
        let topic = row.revoke(now);
        // Keeps the link's row during the loop.
        row.asked.hold();
        self.requests.set_backlog();
        if let Some(row) = self.topics.get(topic) {
            let mut walk = row.viewers.walk();
            while let Some(subscription) = self.subscriptions.next(&mut walk) {
                if self.subscriptions[subscription].link() == link {
                    let reason = self.reasons.retain_reason(reason);
                    self.finish(now, subscription, reason, None);
                }
            }
        }
        self.links[link].asked.release();
    }

    /// If a link now leads to another topic, ends its pages' subscriptions to the former one.
    fn leave_other_topic(&mut self, now: Instant, link: u32, topic: u32) {
        let row = &self.links[link];
        if row.topic() != NONE && row.topic() != topic && row.watching.live() > 0 {
            self.end_link(now, link, Reason::Own("the link leads elsewhere now"));
        }
    }

    /// Calls `each` for every live subscription of a link.
    pub(super) fn for_live(&mut self, link: u32, mut each: impl FnMut(&mut Live, &mut Watching)) {
        let row = &mut self.links[link];
        let Some(topic) = self.topics.get(row.topic()) else { return };
        let mut walk = topic.viewers.walk();
        while let Some(subscription) = self.subscriptions.next(&mut walk) {
            if self.subscriptions[subscription].link() == link
                && let Some(live) = self.subscriptions.live_mut(subscription)
            {
                each(live, &mut row.watching);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rig::{BOARD, OWN, Rig, SHARED};
    use board::{Board, HOST};
    use wire::uplink::{Grant, ToRelay};

    /// A page at an address that subscribes to `link`.
    fn subscriber(rig: &mut Rig, address: u8) -> super::super::table::Id<super::super::session::Session> {
        let page = rig.page_at([10, 0, 0, address].into());
        rig.subscribe(page, 1, "link");
        page
    }

    fn is_in(rig: &mut Rig, page: super::super::table::Id<super::super::session::Session>) -> bool {
        rig.read(page).iter().any(|text| text.contains("subscribed"))
    }

    /// A business server that requires a page's name denies the link as a whole.
    fn deny_unnamed(rig: &mut Rig) {
        rig.tell(ToRelay::Deny { request: 1, reason: "which page?" });
    }

    #[test]
    fn a_denial_by_name_affects_no_other_page() {
        let mut rig = Rig::up(&BOARD);
        let good = subscriber(&mut rig, 1);
        rig.accept(1, 7, 1, OWN);
        rig.accept(2, 7, 1, OWN);
        assert!(is_in(&mut rig, good));
        rig.said();
        let banned = subscriber(&mut rig, 2);
        let other = subscriber(&mut rig, 3);
        rig.tell(ToRelay::Deny { request: 3, reason: "you are banned" });
        assert_eq!(rig.read(banned), [r#"{"type":"denied","id":1,"reason":"you are banned"}"#]);
        // Subscribing again costs no request for 2 s.
        rig.said();
        rig.subscribe(banned, 2, "link");
        assert_eq!(rig.read(banned), [r#"{"type":"denied","id":2,"reason":"you are banned"}"#]);
        assert_eq!(rig.said(), [""; 0]);
        rig.accept(4, 7, 1, OWN);
        assert!(is_in(&mut rig, other));
        assert!(rig.read(good).is_empty(), "the live page goes on");
        rig.pass(2_100);
        rig.said();
        rig.subscribe(banned, 3, "link");
        assert_eq!(rig.said(), ["Subscribe 5 link by 10.0.0.2 since 1 [0, 0, 0, 0]"]);
    }

    #[test]
    fn the_table_of_denied_pages_forgets_the_oldest() {
        let mut rig = Rig::up(&Board { denials_max: 1, ..BOARD });
        let [a, b] = [1, 2].map(|address| subscriber(&mut rig, address));
        rig.accept(1, 7, 1, OWN);
        for request in [2, 3] {
            rig.tell(ToRelay::Deny { request, reason: "no" });
        }
        rig.said();
        rig.subscribe(b, 2, "link");
        assert_eq!(rig.said(), [""; 0]);
        rig.subscribe(a, 2, "link");
        assert_eq!(rig.said().len(), 1);
    }

    #[test]
    fn pages_are_requested_by_name_where_only_names_are_accepted() {
        let mut rig = Rig::up(&BOARD);
        let [a, b] = [1, 2].map(|address| subscriber(&mut rig, address));
        deny_unnamed(&mut rig);
        assert_eq!(rig.said(), ["Subscribe 1 link", "Subscribe 2 link by 10.0.0.1"]);
        assert!(rig.read(a).is_empty() && rig.read(b).is_empty(), "no page is denied yet");
        rig.accept(2, 7, 1, OWN);
        assert!(is_in(&mut rig, a));
        assert_eq!(rig.said(), ["Audience 7 1", "Subscribe 3 link by 10.0.0.2 since 1 [0, 0, 0, 0]"]);
        rig.tell(ToRelay::Deny { request: 3, reason: "not you" });
        assert_eq!(rig.read(b), [r#"{"type":"denied","id":1,"reason":"not you"}"#]);
        assert!(rig.read(a).is_empty());
        // A shared accept of one name admits all waiting pages, like an accept of the whole link.
        let [c, d] = [3, 4].map(|address| subscriber(&mut rig, address));
        rig.accept(4, 7, 1, SHARED);
        assert!(is_in(&mut rig, c) && is_in(&mut rig, d));
    }

    #[test]
    fn a_grant_by_name_is_renewed_in_a_page_s_name() {
        let mut rig = Rig::up(&Board { dead_ms: 600_000, ..BOARD });
        let [a, b] = [1, 2].map(|address| subscriber(&mut rig, address));
        deny_unnamed(&mut rig);
        rig.accept(2, 7, 1, Grant { ttl_s: 6, ..SHARED });
        assert!(is_in(&mut rig, a) && is_in(&mut rig, b));
        rig.said();
        rig.pass(5_500);
        let said = rig.said();
        assert!(said.iter().any(|said| said.starts_with("Subscribe 3 link by 10.0.0.1")), "{said:?}");
        // Only the denied page leaves; the renewal is repeated in the next page's name.
        rig.tell(ToRelay::Deny { request: 3, reason: "you are banned" });
        assert!(rig.read(a).iter().any(|text| text.contains("banned")));
        rig.pass(200);
        let said = rig.said();
        assert!(said.contains(&"Subscribe 4 link by 10.0.0.2 since 1 [0, 0, 0, 0]".to_owned()), "{said:?}");
        assert!(!rig.read(b).iter().any(|text| text.contains("end")));
    }

    #[test]
    fn a_link_denied_as_a_whole_and_by_name_costs_two_requests_and_denies_all() {
        let mut rig = Rig::up(&BOARD);
        let pages = [1, 2, 3].map(|address| subscriber(&mut rig, address));
        deny_unnamed(&mut rig);
        rig.tell(ToRelay::Deny { request: 2, reason: "no such link" });
        assert_eq!(rig.said().len(), 2);
        assert_eq!(rig.read(pages[0]), [r#"{"type":"denied","id":1,"reason":"no such link"}"#]);
        for page in &pages[1..] {
            assert_eq!(rig.read(*page), [r#"{"type":"denied","id":1,"reason":"which page?"}"#]);
        }
        let late = subscriber(&mut rig, 4);
        assert_eq!(rig.read(late).len(), 1);
        assert_eq!(rig.said(), [""; 0], "the denial is remembered for 2 s");
    }

    #[test]
    fn a_link_that_was_accepted_on_this_connection_is_denied_without_a_trial() {
        let mut rig = Rig::up(&BOARD);
        let page = subscriber(&mut rig, 1);
        rig.accept(1, 7, 1, SHARED);
        rig.tell(ToRelay::Revoke { link: "link", reason: "back" });
        rig.read(page);
        assert_eq!(rig.relay.in_use().links, 0, "its row was removed");
        rig.said();
        rig.subscribe(page, 2, "link");
        rig.tell(ToRelay::Deny { request: 2, reason: "no more" });
        assert_eq!(rig.read(page), [r#"{"type":"denied","id":2,"reason":"no more"}"#]);
        assert_eq!(rig.said(), ["Subscribe 2 link"]);
    }

    #[test]
    fn a_link_whose_row_was_removed_is_still_requested_by_name() {
        let mut rig = Rig::up(&BOARD);
        let page = subscriber(&mut rig, 1);
        deny_unnamed(&mut rig);
        rig.accept(2, 7, 1, OWN);
        assert!(is_in(&mut rig, page));
        rig.relay.handle_page_closed(rig.now, page);
        assert_eq!(rig.relay.in_use().links, 0);
        rig.said();
        subscriber(&mut rig, 1);
        assert_eq!(rig.said(), ["Subscribe 3 link by 10.0.0.1"]);
    }

    #[test]
    fn after_a_lost_uplink_one_denied_name_ends_no_other_page() {
        let mut rig = Rig::up(&BOARD);
        let [a, b] = [1, 2].map(|address| subscriber(&mut rig, address));
        deny_unnamed(&mut rig);
        rig.accept(2, 7, 1, SHARED);
        assert!(is_in(&mut rig, a) && is_in(&mut rig, b));
        rig.relay.handle_uplink_lost(rig.now);
        let banned = subscriber(&mut rig, 3);
        rig.said();
        rig.connect();
        assert_eq!(rig.said(), ["Subscribe 3 link since 1 [0, 0, 0, 0]"]);
        rig.tell(ToRelay::Deny { request: 3, reason: "which page?" });
        assert_eq!(rig.said(), ["Subscribe 4 link by 10.0.0.1 since 1 [0, 0, 0, 0]"]);
        rig.tell(ToRelay::Deny { request: 4, reason: "you are banned" });
        assert!(rig.read(a).iter().any(|text| text.contains("end")));
        let mut said = rig.said();
        said.sort();
        assert!(said.len() == 2 && said[0].contains("by 10.0.0.") && said[1].contains("by 10.0.0."), "{said:?}");
        let name = |who: &str| -> u32 {
            said.iter().find(|said| said.contains(who)).unwrap().split(' ').nth(1).unwrap().parse().unwrap()
        };
        rig.tell(ToRelay::Deny { request: name("10.0.0.3"), reason: "you are banned" });
        rig.accept(name("10.0.0.2"), 7, 1, OWN);
        assert!(!rig.read(b).iter().any(|text| text.contains("end")));
        assert!(rig.read(banned).iter().any(|text| text.contains("banned")));
    }

    #[test]
    fn a_shared_link_that_is_accepted_for_one_name_after_a_reconnect_is_requested_for_each_page() {
        // Only names were accepted before: the request names a page with a live subscription.
        let mut rig = Rig::up(&BOARD);
        let [_, b] = [1, 2].map(|address| subscriber(&mut rig, address));
        deny_unnamed(&mut rig);
        rig.accept(2, 7, 1, SHARED);
        rig.said();
        rig.relay.handle_uplink_lost(rig.now);
        rig.connect();
        rig.tell(ToRelay::Deny { request: 3, reason: "which page?" });
        let said = rig.said();
        assert!(said[1].starts_with("Subscribe 4 link by 10.0.0."), "{said:?}");
        rig.accept(4, 7, 1, OWN);
        let said = rig.said();
        assert!(said[0].starts_with("Subscribe 5 link by 10.0.0.") && said.len() <= 2, "{said:?}");
        rig.tell(ToRelay::Deny { request: 5, reason: "not you" });
        assert!(rig.read(b).iter().any(|text| text.contains("not you")));

        // The whole link was accepted before: the request names a waiting page.
        let mut rig = Rig::up(&BOARD);
        let watcher = rig.viewer();
        rig.relay.handle_uplink_lost(rig.now);
        let newcomer = subscriber(&mut rig, 3);
        rig.said();
        rig.connect();
        rig.tell(ToRelay::Deny { request: 2, reason: "which page?" });
        assert!(rig.said()[1].starts_with("Subscribe 3 link by 10.0.0.3"));
        rig.accept(3, 7, 1, OWN);
        assert!(is_in(&mut rig, newcomer));
        assert!(rig.said()[0].starts_with("Subscribe 4 link by 127.0.0.1"));
        rig.tell(ToRelay::Deny { request: 4, reason: "not you" });
        assert!(rig.read(watcher).iter().any(|text| text.contains("not you")));
        assert!(!rig.read(newcomer).iter().any(|text| text.contains("end")));
    }

    #[test]
    fn a_grant_of_the_previous_connection_admits_nobody_even_if_its_topic_is_back() {
        let mut rig = Rig::up(&BOARD);
        rig.viewer();
        let other = rig.page();
        rig.subscribe(other, 1, "other");
        rig.accept(2, 7, 1, SHARED);
        rig.read(other);
        rig.relay.handle_uplink_lost(rig.now);
        rig.connect();
        let said = rig.said();
        let number = said.iter().find(|said| said.contains(" other ")).unwrap().split(' ').nth(1).unwrap();
        rig.accept(number.parse().unwrap(), 7, 1, SHARED);
        let newcomer = subscriber(&mut rig, 2);
        assert!(!is_in(&mut rig, newcomer), "its link has not been accepted yet");
    }

    #[test]
    fn an_accept_during_a_trial_settles_it() {
        let mut rig = Rig::up(&Board { dead_ms: 600_000, first_subscribe_ms_max: 60_000, ..BOARD });
        let page = subscriber(&mut rig, 1);
        rig.pass(10_100);
        rig.read(page);
        rig.tell(ToRelay::Ping { nonce: 1 });
        let [a, b] = [2, 3].map(|address| subscriber(&mut rig, address));
        rig.said();
        deny_unnamed(&mut rig);
        // The link was requested again in the meantime, and that request is answered first.
        rig.accept(2, 7, 1, SHARED);
        assert!(is_in(&mut rig, a) && is_in(&mut rig, b));
        rig.tell(ToRelay::Deny { request: 3, reason: "not you" });
        assert!(!rig.read(b).iter().any(|text| text.contains("end")));
    }

    #[test]
    fn a_trial_that_is_not_answered_denies_with_a_retry() {
        let mut rig = Rig::up(&Board { dead_ms: 600_000, first_subscribe_ms_max: 60_000, ..BOARD });
        let page = subscriber(&mut rig, 1);
        rig.pass(1_000);
        deny_unnamed(&mut rig);
        let late = subscriber(&mut rig, 2);
        rig.pass(10_100);
        for page in [page, late] {
            assert!(rig.read(page).iter().any(|text| text.contains("did not answer") && text.contains("retry")));
        }
        rig.relay.check();
    }

    #[test]
    fn a_link_that_is_denied_while_pages_watch_ends_for_all_at_once() {
        let mut rig = Rig::up(&BOARD);
        let page = rig.viewer();
        let other = rig.page();
        rig.subscribe(other, 1, "link");
        rig.read(other);
        rig.said();
        rig.relay.handle_uplink_lost(rig.now);
        rig.connect();
        assert_eq!(rig.said().len(), 1);
        rig.tell(ToRelay::Deny { request: 2, reason: "over" });
        for page in [page, other] {
            assert!(rig.read(page).contains(&r#"{"type":"end","topic":7,"reason":"over"}"#.to_owned()));
        }
        assert_eq!(rig.said(), [""; 0], "no request by name was sent");
    }

    #[test]
    fn a_link_that_was_not_shared_is_requested_page_by_page_after_a_lost_uplink() {
        let mut rig = Rig::up(&BOARD);
        let a = subscriber(&mut rig, 1);
        rig.accept(1, 7, 1, OWN);
        rig.accept(2, 7, 1, OWN);
        assert!(is_in(&mut rig, a));
        rig.said();
        rig.relay.handle_uplink_lost(rig.now);
        let b = subscriber(&mut rig, 2);
        rig.connect();
        let said = rig.said();
        assert!(said.len() == 2 && said.iter().all(|said| said.contains(" by 10.0.0.")), "{said:?}");
        rig.accept(3, 7, 1, OWN);
        rig.accept(4, 7, 1, OWN);
        assert!(is_in(&mut rig, b));
    }

    #[test]
    fn a_herd_is_admitted_in_turns_and_a_grant_with_ttl_0_covers_all_of_it() {
        const HERD: u32 = 1_000;
        let mut rig =
            Rig::up(&Board { pages_max: HERD + 1, subscriptions_max: HERD + 1, address_asks_burst: 60_000, ..HOST });
        let pages: Vec<_> = (0..HERD).map(|_| subscriber(&mut rig, 1)).collect();
        rig.accept(1, 7, 1, Grant { ttl_s: 0, ..SHARED });
        let at_once = rig.relay.counters().subscribed;
        assert!(0 < at_once && at_once < u64::from(HERD) / 2, "{at_once} in one step");
        assert!(rig.relay.has_pages_to_serve());
        rig.said();
        let late = subscriber(&mut rig, 2);
        let said = rig.said();
        assert!(said.iter().any(|said| said.starts_with("Subscribe 2 link ")), "a later page is not covered: {said:?}");
        for _ in 0..HERD {
            rig.relay.admit_more(rig.now);
        }
        assert_eq!(rig.relay.counters().subscribed, u64::from(HERD));
        assert!(is_in(&mut rig, pages[HERD as usize - 1]) && rig.read(late).is_empty());
    }

    #[test]
    fn a_herd_whose_link_is_revoked_before_all_are_admitted_is_requested_again() {
        const HERD: u32 = 1_000;
        let mut rig = Rig::up(&Board { pages_max: HERD, subscriptions_max: HERD, address_asks_burst: 60_000, ..HOST });
        for _ in 0..HERD {
            subscriber(&mut rig, 1);
        }
        rig.accept(1, 7, 1, SHARED);
        rig.tell(ToRelay::Revoke { link: "link", reason: "back" });
        let in_before = rig.relay.counters().subscribed;
        for _ in 0..HERD {
            rig.relay.admit_more(rig.now);
        }
        rig.pass(100);
        assert_eq!(rig.relay.counters().subscribed, in_before, "a revoked grant admits nobody");
        assert!(rig.said().iter().any(|said| said.starts_with("Subscribe 2 link")));
    }
}
