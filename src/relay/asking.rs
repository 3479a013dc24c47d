//! Asking the business server: who is admitted at once, who waits, what is asked, renewed and given up.
//!
//! The rules of "Subscribing" in `docs/protocol.md`: pages that ask for one link while a request for it
//! is under way cost one request; a shared grant admits the rest; without one each page is asked for.
//! Everything is bounded by the board's tables; whoever finds no room waits or is denied with a retry.

use heapless::String;

use super::{
    Relay,
    cursor::{epoch_cursors, late_cursors, late_messages},
    event::Event,
    link::{Link, Request},
    session::{Cursor, Live, Pace, Stage, Subscription, UNPLACED, ring_insert, ring_remove},
    table::NONE,
    texts::Reason,
    time::Instant,
    topic::Topic,
};
use crate::wire::{
    Track, is_link,
    uplink::{Grant, PageInfo, Since, ToBusiness},
};

/// A `Subscribe` that is not answered within this time is given up; a page waits no longer either.
const ANSWER_MS_MAX: u64 = 10_000;
/// A denied link is remembered for this time, so that a herd on a dead link costs one request.
const DENIED_MS: u64 = 2_000;
/// A page's claim to be further than the topic is dropped once the messages stood still for this time.
pub(super) const SETTLED_MS: u64 = 2_000;

impl Relay {
    /// A page asks for a link.
    pub(super) fn subscribe(&mut self, now: Instant, page: u32, id: u32, name: &str, since: Option<Since>) {
        self.counters.asked += 1;
        let Some(subscription) = self.new_subscription(now, page, id, since) else {
            self.counters.denied += 1;
            if self.sessions[page].refused.replace(id).is_some() {
                // One refusal is kept for a page; one that asks on without reading it comes back later.
                let retry_ms = self.full_retry_ms();
                self.close_page(now, page, 1013, Reason::Own(""), Some(retry_ms));
            }
            self.push_ready(page);
            return;
        };
        if let Err((reason, retry_ms)) = self.seek_admission(now, page, subscription, name) {
            self.finish(now, subscription, reason, retry_ms);
        }
        self.push_ready(page);
    }

    fn seek_admission(
        &mut self,
        now: Instant,
        page: u32,
        subscription: u32,
        name: &str,
    ) -> Result<(), (Reason, Option<u32>)> {
        let never = |reason| Err((Reason::Own(reason), None));
        if self.draining {
            return Err((Reason::Own("the relay restarts"), Some(self.retry_ms())));
        }
        if !is_link(name) {
            return never("this is not a share link");
        }
        if u32::from(self.sessions[page].subscriptions) > self.board.topics_per_page_max {
            return never("this page has too many topics already");
        }
        if !self.may_ask(now, page) {
            return Err((Reason::Own("too many requests, ask again later"), Some(self.retry_ms())));
        }
        let Some(link) = self.link_for(name) else {
            return Err((Reason::Own("the relay has no room for more links now"), Some(self.full_retry_ms())));
        };
        if self.page_holds(page, self.links[link].topic) {
            self.release_link(now, link);
            return never("this page has the topic already");
        }
        if let Some((until, reason)) = self.links[link].denied
            && now < until
        {
            return Err((self.reasons.retain_reason(reason), None));
        }
        self.wait(subscription, link);
        let row = &self.links[link];
        let is_granted = row.grant.shared && now < row.granted_until && row.topic != NONE;
        if is_granted && self.is_up() && self.topics[row.topic].accepted_on == self.uplink.connection() {
            self.admit(now, subscription, row.topic, false);
        } else {
            self.ask_for(now, link);
        }
        Ok(())
    }

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
    fn ask_for(&mut self, now: Instant, link: u32) -> bool {
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
    fn since_for(&self, link: u32) -> (Option<Since>, u64) {
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

    /// The business server answered with `Accept`.
    pub(super) fn accepted(&mut self, now: Instant, number: u32, topic_number: u32, epoch: u64, grant: Grant) {
        let Some(request) = self.take_request(number) else {
            // Given up before: a topic without pages.
            if self.topic_for(now, topic_number, epoch).is_none() {
                self.refuse_topic(topic_number);
            }
            self.flush_audiences(now);
            return;
        };
        let connection = self.uplink.connection();
        let is_held = self.topic_row(topic_number).is_some_and(|row| self.topics[row].accepted_on == connection);
        let has_crossed =
            self.unsubscribed.iter().any(|&(topic, order)| topic == topic_number && order > request.order);
        if has_crossed && !is_held {
            // Our Unsubscribe came behind it: the business server has forgotten us again.
            self.links[request.link].ask_again |= self.links[request.link].live_count > 0;
            self.hungry = true;
            self.let_go(now, request.link);
            return;
        }
        let was_held = self.topic_row(topic_number).is_some();
        let Some(topic) = self.topic_for(now, topic_number, epoch) else {
            self.refuse_topic(topic_number);
            let reason = Reason::Own("the relay has no room for more topics now");
            self.answer_waiting(now, &request, reason, Some(Self::full_retry_ms));
            self.let_go(now, request.link);
            self.hungry = true;
            return;
        };
        if !was_held {
            // What was asked for says something of this epoch alone.
            let (since, from) = self.since_for(request.link);
            let is_same = from == request.replay_from && since.is_some_and(|since| since.epoch == epoch);
            self.topics[topic].replay_from = if is_same { from } else { 0 };
        }
        self.leave_other_topic(now, request.link, topic);
        let was_asked_again = core::mem::take(&mut self.links[request.link].ask_again);
        let row = &mut self.links[request.link];
        row.topic = topic;
        row.grant = grant;
        if let Some((_, reason)) = row.denied.take() {
            self.reasons.release_reason(reason);
        }
        if grant.shared {
            self.accepted_shared(now, request.link, topic);
        } else {
            self.accepted_one(now, &request, topic, was_asked_again);
        }
        self.let_go(now, request.link);
        self.flush_audiences(now);
    }

    fn accepted_shared(&mut self, now: Instant, link: u32, topic: u32) {
        let row = &mut self.links[link];
        let ttl_ms = u64::from(row.grant.ttl_s) * 1000;
        row.each = false;
        row.granted_until = now.after(ttl_ms);
        // Renewed in the last fifth of its time, not by all links at once.
        let early_ms = ttl_ms / 10 + self.jitter.below(ttl_ms / 10 + 1);
        row.renew_at = if ttl_ms > 0 { now.after(ttl_ms - early_ms) } else { Instant::NEVER };
        self.for_live(link, |live| (live.own, live.ask_again) = (false, false));
        self.links[link].ask_again_count = 0;
        while self.links[link].waiting != NONE {
            self.admit(now, self.links[link].waiting, topic, false);
        }
    }

    fn accepted_one(&mut self, now: Instant, request: &Request, topic: u32, was_asked_again: bool) {
        let link = request.link;
        let row = &mut self.links[link];
        row.each = true;
        row.granted_until = now;
        row.renew_at = Instant::NEVER;
        match self.subscriptions.get(request.asker).map(|row| row.stage) {
            Some(Stage::Waiting { .. }) => self.admit(now, request.asker, topic, true),
            Some(Stage::Live(_)) => {
                // A shared answer may have come in between and settled it for all.
                if let Some(live) = self.live_mut(request.asker)
                    && core::mem::take(&mut live.ask_again)
                {
                    self.links[link].ask_again_count -= 1;
                }
            }
            _ => {}
        }
        if was_asked_again && !request.own {
            // Shared before, and not any more: each page needs its own grant now.
            let mut count = 0;
            self.for_live(link, |live| {
                count += u32::from(!live.own && !live.ask_again);
                live.ask_again |= !live.own;
                live.own = true;
            });
            self.links[link].ask_again_count += count;
        }
        self.hungry = true;
    }

    /// The business server answered with `Deny`.
    pub(super) fn denied(&mut self, now: Instant, number: u32, reason: &str) {
        let Some(request) = self.take_request(number) else { return };
        let reason = self.reasons.keep_reason(reason, "the business server said no");
        let link = request.link;
        if !request.own {
            self.end_link(now, link, reason);
            let kept = self.reasons.retain_reason(reason);
            if let Some((_, old)) = self.links[link].denied.replace((now.after(DENIED_MS), kept)) {
                self.reasons.release_reason(old);
            }
        }
        self.answer_waiting(now, &request, reason, None);
        if let Some(Stage::Live(_)) = self.subscriptions.get(request.asker).map(|row| row.stage) {
            let reason = self.reasons.retain_reason(reason);
            self.finish(now, request.asker, reason, None);
        }
        self.reasons.release_reason(reason);
        self.let_go(now, link);
        self.hungry = true;
    }

    /// The business server takes a link back.
    pub(super) fn revoked(&mut self, now: Instant, name: &str, reason: &str) {
        let Some(link) = self.find_link(name) else { return };
        let reason = self.reasons.keep_reason(reason, "the link was taken back");
        self.end_link(now, link, reason);
        self.reasons.release_reason(reason);
        self.release_link(now, link);
    }

    /// The business server ends a topic for all.
    pub(super) fn ended(&mut self, now: Instant, topic_number: u32, reason: &str) {
        let Some(topic) = self.topic_row(topic_number) else { return };
        self.end_pages(now, topic, reason);
        self.forget_topic(now, topic);
    }

    /// Tells all pages of a topic that it is over.
    pub(super) fn end_pages(&mut self, now: Instant, topic: u32, reason: &str) {
        let reason = self.reasons.keep_reason(reason, "it is over");
        let (number, pages) = (self.topics[topic].number, self.topics[topic].pages);
        while self.topics[topic].walk != NONE {
            let reason = self.reasons.retain_reason(reason);
            self.finish(now, self.topics[topic].walk, reason, None);
        }
        self.reasons.release_reason(reason);
        self.events.add(Event::Ended { topic: number, pages });
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

    /// A waiting page is denied once it waited too long, whoever was to be asked.
    pub(super) fn sweep_waiting(&mut self, now: Instant, page: u32) {
        let mut subscription = self.sessions[page].first;
        while subscription != NONE {
            let row = &self.subscriptions[subscription];
            let sibling = row.sibling;
            match row.stage {
                Stage::Waiting { from, .. } if from.age_ms(now) > ANSWER_MS_MAX + 500 => {
                    let retry_ms = self.retry_ms();
                    let reason = if self.is_up() {
                        "the business server did not answer"
                    } else {
                        "the business server can't be reached now"
                    };
                    self.finish(now, subscription, Reason::Own(reason), Some(retry_ms));
                    self.push_ready(page);
                }
                Stage::Live(live) if live.claimed => self.check_claim(now, subscription, live),
                _ => {}
            }
            subscription = sibling;
        }
    }

    /// A page said that it had come further than the topic has: once the topic stands still, that counts
    /// as no `since`.
    fn check_claim(&mut self, now: Instant, subscription: u32, live: Live) {
        let topic = &self.topics[live.topic];
        let told = topic.log(Track::Messages).told();
        let is_reached = live.cursors[Track::Messages.index()].sequence <= told;
        // Without an uplink nothing is settled: the rest of a replay may still come.
        let is_settled = self.is_up()
            && topic.accepted_on == self.uplink.connection()
            && told != 0
            && now.since(topic.settled_from) >= SETTLED_MS;
        if !is_reached && !is_settled {
            return;
        }
        let replay = self.links[self.subscriptions[subscription].link].grant.replay;
        let place = late_messages(topic, &self.store, replay);
        if let Some(live) = self.live_mut(subscription) {
            live.claimed = false;
            if !is_reached && !live.behind_epoch {
                live.cursors[Track::Messages.index()] = place;
            }
        }
        self.push_ready(self.subscriptions[subscription].page);
    }

    /// After the uplink came back: what nobody watches is dropped, everything else is asked for again.
    pub(super) fn ask_everything_again(&mut self, now: Instant) {
        for topic in 0..self.topics.end() {
            if self.topics.get(topic).is_some_and(|topic| topic.pages == 0 && !topic.ended) {
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

    /// The row of a topic that is published, by the business server's number.
    pub(super) fn topic_row(&self, number: u32) -> Option<u32> {
        let at = self.numbers.binary_search_by_key(&number, |&(number, _)| number).ok()?;
        self.numbers.get(at).map(|&(_, row)| row)
    }

    /// Forgets a topic without pages: links to it, its number, and its logs once nobody needs them.
    pub(super) fn forget_topic(&mut self, now: Instant, topic: u32) {
        debug_assert_eq!(self.topics[topic].pages, 0);
        let number = self.topics[topic].number;
        if let Ok(at) = self.numbers.binary_search_by_key(&number, |&(number, _)| number) {
            self.numbers.remove(at);
        }
        self.topics[topic].ended = true;
        for link in 0..self.links.end() {
            if let Some(row) = self.links.get_mut(link)
                && row.topic == topic
            {
                row.topic = NONE;
                row.granted_until = now;
                row.renew_at = Instant::NEVER;
                self.release_link(now, link);
            }
        }
        self.forget_if_ended(topic);
    }

    /// Gives an ended topic's row back once no page stands in the middle of its frames.
    pub(super) fn forget_if_ended(&mut self, topic: u32) {
        let row = &self.topics[topic];
        if row.ended && row.halves == 0 && row.pages == 0 {
            if let Some(mut row) = self.topics.remove(topic) {
                row.clear(&mut self.store);
            }
            self.dirty.retain(|&dirty| dirty != topic);
        }
    }

    /// Tells the business server that a topic is not wanted any more; `false` where it must wait.
    pub(super) fn unsubscribe_topic(&mut self, number: u32) -> bool {
        let Some(order) = self.uplink.send_reserved(&ToBusiness::Unsubscribe { topic: number }) else { return false };
        self.unsubscribed.retain(|&(topic, _)| topic != number);
        if self.unsubscribed.is_full() {
            self.unsubscribed.pop_front();
        }
        let _ = self.unsubscribed.push_back((number, order));
        true
    }

    /// Ends a subscription: the page is told, and the row stays until it was.
    pub(super) fn finish(&mut self, now: Instant, subscription: u32, reason: Reason, retry_ms: Option<u32>) {
        let page = self.subscriptions[subscription].page;
        let topic = match self.detach(now, subscription) {
            Some(live) if !live.unconfirmed => Some(self.topics[live.topic].number),
            _ => None,
        };
        if topic.is_none() {
            self.counters.denied += 1;
        }
        self.subscriptions[subscription].stage = Stage::Over { topic, reason, retry_ms };
        self.push_ready(page);
    }

    /// Frees a subscription's row, whatever its stage.
    pub(super) fn forget_subscription(&mut self, subscription: u32) {
        let page = self.subscriptions[subscription].page;
        if let Stage::Over { reason, .. } = self.subscriptions[subscription].stage {
            self.reasons.release_reason(reason);
        }
        let sibling = self.subscriptions[subscription].sibling;
        let session = &mut self.sessions[page];
        if session.first == subscription {
            session.first = sibling;
        } else {
            let mut before = session.first;
            while self.subscriptions[before].sibling != subscription {
                before = self.subscriptions[before].sibling;
            }
            self.subscriptions[before].sibling = sibling;
        }
        self.subscriptions.remove(subscription);
    }

    /// Takes a subscription out of its topic or its link's waiting ones; what it was served, if it was.
    pub(super) fn detach(&mut self, now: Instant, subscription: u32) -> Option<Live> {
        let row = &mut self.subscriptions[subscription];
        let (page, stage) = (row.page, row.stage);
        let link = core::mem::replace(&mut row.link, NONE);
        if matches!(stage, Stage::Over { .. }) {
            return None;
        }
        self.sessions[page].subscriptions -= 1;
        if link == NONE {
            // Refused before it waited for anything.
            return None;
        }
        self.forget_asker(subscription);
        let live = match stage {
            Stage::Live(live) => {
                let topic = &mut self.topics[live.topic];
                ring_remove(&mut self.subscriptions, &mut topic.walk, subscription);
                topic.pages -= 1;
                topic.audience_told = None;
                topic.walk_left = topic.walk_left.min(topic.pages);
                if topic.pages == 0 {
                    topic.forget_at = now.after(self.settings.linger_ms);
                }
                let row = &mut self.links[link];
                row.live_count -= 1;
                row.ask_again_count -= u32::from(live.ask_again);
                Some(live)
            }
            _ => {
                let row = &mut self.links[link];
                ring_remove(&mut self.subscriptions, &mut row.waiting, subscription);
                row.waiting_count -= 1;
                None
            }
        };
        self.release_link(now, link);
        live
    }

    fn new_subscription(&mut self, now: Instant, page: u32, id: u32, since: Option<Since>) -> Option<u32> {
        let since = since.map_or((0, 0), |since| {
            let next = since.next[Track::Messages.index()];
            if next < crate::wire::SEQUENCE_END { (since.epoch, next) } else { (0, 0) }
        });
        let stage = Stage::Waiting { asked: false, from: now.stamp(), since };
        let row = Subscription { page, link: NONE, id, sibling: NONE, next: NONE, previous: NONE, stage };
        let index = self.subscriptions.insert(row).ok()?;
        let session = &mut self.sessions[page];
        session.pace = Pace::CatchesUp;
        session.subscriptions += 1;
        let mut last = session.first;
        if last == NONE {
            session.first = index;
            return Some(index);
        }
        while self.subscriptions[last].sibling != NONE {
            last = self.subscriptions[last].sibling;
        }
        self.subscriptions[last].sibling = index;
        Some(index)
    }

    fn wait(&mut self, subscription: u32, link: u32) {
        self.subscriptions[subscription].link = link;
        let row = &mut self.links[link];
        ring_insert(&mut self.subscriptions, &mut row.waiting, subscription);
        row.waiting_count += 1;
    }

    /// A waiting subscription becomes a live one.
    fn admit(&mut self, now: Instant, subscription: u32, topic: u32, own: bool) {
        let (page, link) = (self.subscriptions[subscription].page, self.subscriptions[subscription].link);
        let Stage::Waiting { since, .. } = self.subscriptions[subscription].stage else { return };
        if self.page_holds(page, topic) {
            self.finish(now, subscription, Reason::Own("this page has the topic already"), None);
            return;
        }
        self.forget_asker(subscription);
        let row = &mut self.links[link];
        ring_remove(&mut self.subscriptions, &mut row.waiting, subscription);
        row.waiting_count -= 1;
        row.live_count += 1;
        let (messages, claimed) = self.first_place(now, topic, since, self.links[link].grant.replay);
        self.subscriptions[subscription].stage = Stage::Live(Live {
            topic,
            cursors: late_cursors(&self.topics[topic], &self.store, messages),
            unconfirmed: true,
            behind_epoch: false,
            own,
            ask_again: false,
            asked: false,
            claimed,
        });
        let row = &mut self.topics[topic];
        ring_insert(&mut self.subscriptions, &mut row.walk, subscription);
        row.pages += 1;
        row.audience_told = None;
        row.forget_at = Instant::NEVER;
        self.counters.subscribed += 1;
        self.sessions[page].pace = Pace::CatchesUp;
        self.push_ready(page);
    }

    /// Where a page begins on `messages`, and whether that is its own claim alone.
    fn first_place(&self, now: Instant, topic: u32, since: (u64, u64), replay: u16) -> (Cursor, bool) {
        let topic = &self.topics[topic];
        let told = topic.log(Track::Messages).told();
        let (epoch, next) = since;
        let may_replay = told == 0 || topic.replay_from != 0 || now.since(topic.accepted_at) < SETTLED_MS;
        if next == 0 || epoch != topic.epoch || (next > told && !may_replay) {
            return (late_messages(topic, &self.store, replay), false);
        }
        (Cursor { sequence: next, at: UNPLACED }, next > told)
    }

    /// Whether a page has a topic already.
    fn page_holds(&self, page: u32, topic: u32) -> bool {
        let mut subscription = self.sessions[page].first;
        while subscription != NONE {
            let row = &self.subscriptions[subscription];
            if row.live().is_some_and(|live| live.topic == topic) {
                return true;
            }
            subscription = row.sibling;
        }
        false
    }

    /// Answers those that a request was for with `denied`, each with a retry of its own where there is one.
    fn answer_waiting(
        &mut self,
        now: Instant,
        request: &Request,
        reason: Reason,
        draw_ms: Option<fn(&mut Self) -> u32>,
    ) {
        if request.own {
            if let Some(Stage::Waiting { .. }) = self.subscriptions.get(request.asker).map(|row| row.stage) {
                let retry_ms = draw_ms.map(|draw| draw(self));
                let reason = self.reasons.retain_reason(reason);
                self.finish(now, request.asker, reason, retry_ms);
            }
            return;
        }
        while self.links[request.link].waiting != NONE {
            let retry_ms = draw_ms.map(|draw| draw(self));
            let reason = self.reasons.retain_reason(reason);
            self.finish(now, self.links[request.link].waiting, reason, retry_ms);
        }
    }

    /// Ends every live subscription made with a link, and its grant.
    fn end_link(&mut self, now: Instant, link: u32, reason: Reason) {
        let row = &mut self.links[link];
        let topic = core::mem::replace(&mut row.topic, NONE);
        row.granted_until = now;
        row.renew_at = Instant::NEVER;
        row.each = false;
        row.ask_again = false;
        // Held for as long as the loop runs.
        row.holds += 1;
        if let Some(row) = self.topics.get(topic) {
            let mut subscription = row.walk;
            for _ in 0..row.pages {
                let next = self.subscriptions[subscription].next;
                if self.subscriptions[subscription].link == link {
                    let reason = self.reasons.retain_reason(reason);
                    self.finish(now, subscription, reason, None);
                }
                subscription = next;
            }
        }
        self.links[link].holds -= 1;
    }

    /// A link leads to another topic than before: its pages there are told that it is over.
    fn leave_other_topic(&mut self, now: Instant, link: u32, topic: u32) {
        let row = &self.links[link];
        if row.topic != NONE && row.topic != topic && row.live_count > 0 {
            self.end_link(now, link, Reason::Own("the link leads elsewhere now"));
        }
    }

    fn for_live(&mut self, link: u32, mut each: impl FnMut(&mut Live)) {
        let Some(topic) = self.topics.get(self.links[link].topic) else { return };
        let mut subscription = topic.walk;
        for _ in 0..topic.pages {
            let row = &mut self.subscriptions[subscription];
            subscription = row.next;
            if row.link == link
                && let Stage::Live(live) = &mut row.stage
            {
                each(live);
            }
        }
    }

    fn topic_for(&mut self, now: Instant, number: u32, epoch: u64) -> Option<u32> {
        let connection = self.uplink.connection();
        if let Some(index) = self.topic_row(number) {
            if self.topics[index].epoch != epoch {
                self.begin_epoch(now, index, epoch);
            }
            let topic = &mut self.topics[index];
            if topic.accepted_on != connection {
                // What was missed is replayed now.
                topic.accepted_on = connection;
                topic.accepted_at = now;
                topic.settled_from = now;
            }
            topic.audience_told = None;
            return Some(index);
        }
        if self.topics.is_full() {
            // One that only lingers makes room.
            let lingering = self.topics.iter().filter(|(_, topic)| topic.pages == 0 && !topic.ended);
            let (oldest, other) =
                lingering.min_by_key(|(_, topic)| topic.forget_at).map(|(index, row)| (index, row.number))?;
            if !self.unsubscribe_topic(other) {
                return None;
            }
            self.forget_topic(now, oldest);
        }
        let (board, forget_at) = (&self.board, now.after(self.settings.linger_ms));
        let index = self.topics.insert_with(|index| {
            let mut topic = Topic::new(board, index, number, epoch, now);
            topic.accepted_on = connection;
            topic.forget_at = forget_at;
            topic
        })?;
        let at = self.numbers.partition_point(|&(other, _)| other < number);
        self.numbers.insert(at, (number, index));
        Some(index)
    }

    fn begin_epoch(&mut self, now: Instant, topic: u32, epoch: u64) {
        self.settle_places(now, topic);
        let row = &mut self.topics[topic];
        row.begin_epoch(&mut self.store, epoch, now);
        row.replay_from = 0;
        self.events.add(Event::Epoch { topic: row.number, epoch });
        let mut subscription = row.walk;
        for _ in 0..row.pages {
            let row = &mut self.subscriptions[subscription];
            let (page, next) = (row.page, row.next);
            if let Stage::Live(live) = &mut row.stage {
                if live.behind_epoch {
                    // Two epochs behind: what it missed of the first is not known any more.
                    self.close_slow(now, page);
                } else if !live.unconfirmed {
                    live.behind_epoch = true;
                    live.claimed = false;
                } else {
                    // It will be told the new epoch by `subscribed`.
                    live.claimed = false;
                    live.cursors = epoch_cursors(&self.topics[topic], Cursor { sequence: 0, at: UNPLACED });
                }
            }
            subscription = next;
        }
        self.mark_dirty(topic);
    }

    /// Gives every cursor that waits for its place its place, before an epoch ends that it belongs to.
    fn settle_places(&mut self, now: Instant, topic: u32) {
        let base = self.topics[topic].log(Track::Messages).base();
        let mut subscription = self.topics[topic].walk;
        for _ in 0..self.topics[topic].pages {
            let row = &mut self.subscriptions[subscription];
            subscription = row.next;
            if let Stage::Live(live) = &mut row.stage {
                let lag_ms_max = self.board.media_lag_ms_max.into();
                let topic = &self.topics[topic];
                let ahead = super::cursor::ahead(topic, &self.store, live, Track::Messages, now, lag_ms_max);
                let cursor = &mut live.cursors[Track::Messages.index()];
                match ahead {
                    super::cursor::Ahead::Placed(place) => *cursor = place,
                    // It got nothing yet and was there from the epoch's first message on.
                    super::cursor::Ahead::Gap { .. } | super::cursor::Ahead::Frames { .. } if cursor.sequence == 0 => {
                        cursor.sequence = base;
                    }
                    _ => {}
                }
            }
        }
    }

    fn refuse_topic(&mut self, number: u32) {
        self.events.add(Event::TopicsFull { topic: number });
        self.counters.topics_refused += 1;
        // Where even this finds no room, the publications that come are dropped and counted.
        let _ = self.unsubscribe_topic(number);
    }

    /// Takes a request out of the table; its link is held until [`let_go`](Self::let_go).
    fn take_request(&mut self, number: u32) -> Option<Request> {
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
    fn forget_asker(&mut self, subscription: u32) {
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

    pub(super) fn find_link(&self, name: &str) -> Option<u32> {
        let hash = self.hash_of(name);
        let from = self.link_hashes.partition_point(|(other, _)| *other < hash);
        let same = self.link_hashes.iter().skip(from).take_while(|(other, _)| *other == hash);
        same.map(|(_, link)| *link).find(|link| self.links[*link].name == name)
    }

    fn link_for(&mut self, name: &str) -> Option<u32> {
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
    fn let_go(&mut self, now: Instant, link: u32) {
        self.links[link].holds -= 1;
        self.release_link(now, link);
    }

    /// Gives a link's row back where nobody would miss it.
    fn release_link(&mut self, now: Instant, link: u32) {
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
        assert!(!rig.relay.holds_topic(7));
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
