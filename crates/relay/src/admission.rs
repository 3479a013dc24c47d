//! Admission: a page asks for a link, and is let in at once, waits, or is denied; its subscription's life.
//!
//! Owns the way of a subscription's row from `Waiting` over `Live` to `Over` and out. A shared grant admits without
//! asking; whoever finds no room in a table is denied with a retry of its own. Doesn't know how the business server is asked
//! (`asking.rs`), nor what it says (`answering.rs`).

use super::{
    Relay,
    asking::ANSWER_MS_MAX,
    cursor::{late_cursors, late_messages},
    session::{Cursor, Live, Pace, Stage, Subscription, UNPLACED, ring_insert, ring_remove},
    table::NONE,
    texts::Reason,
    time::Instant,
};
use wire::{Track, is_link, uplink::Since};

/// A page's claim to be further than the topic is dropped once the messages stood still for this time.
pub(super) const SETTLED_MS: u64 = 2_000;

/// Pages admitted in one turn: each looks for its place in the rings, which takes some microseconds
/// where its replay is long. The others of a herd come with the next turns, so that nobody waits for
/// all of them.
const ADMISSIONS_PER_TURN: u32 = 256;

impl Relay {
    /// A page asks for a link.
    pub(super) fn subscribe(&mut self, now: Instant, page: u32, id: u32, name: &str, since: Option<Since>) {
        self.counters.asked += 1;
        let Some(subscription) = self.new_subscription(now, page, id, since) else {
            self.counters.denied += 1;
            self.sessions[page].may_return = true;
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
        let Some(link) = self.link_for(now, name, self.sessions[page].shares_with()) else {
            return Err((Reason::Own("the relay has no room for more links now"), Some(self.full_retry_ms())));
        };
        if self.page_holds(page, self.links[link].topic) {
            self.release_link(now, link);
            return never("this page has the topic already");
        }
        let denied = self.links[link].denied.filter(|denied| now < denied.until);
        if let Some(denied) = denied.filter(|denied| !denied.untried) {
            return Err((self.reasons.retain_reason(denied.reason), None));
        }
        let asker = self.asker(&self.sessions[page]);
        if let Some(reason) = self.remembered_denial(now, self.links[link].hash, asker) {
            self.release_link(now, link);
            return Err((reason, None));
        }
        self.wait(subscription, link);
        let row = &self.links[link];
        let is_granted = row.grant.shared && now < row.granted_until && row.topic != NONE;
        if is_granted && self.is_up() && self.topics[row.topic].accepted_on == self.uplink.connection() {
            self.admit(now, subscription, row.topic, false);
        } else if let Some(denied) = denied {
            // Denied before any page came: this one's name may be good.
            let reason = self.reasons.retain_reason(denied.reason);
            self.denied_whole(now, link, reason);
        } else {
            self.ask_for(now, link);
        }
        Ok(())
    }

    fn new_subscription(&mut self, now: Instant, page: u32, id: u32, since: Option<Since>) -> Option<u32> {
        let since = since.map_or((0, 0), |since| {
            let next = since.next[Track::Messages.index()];
            if next < wire::SEQUENCE_END { (since.epoch, next) } else { (0, 0) }
        });
        let stage = Stage::Waiting { asked: false, from: now.stamp(), since, ticket: 0 };
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
        let row = &mut self.links[link];
        let next_ticket = row.take_ticket();
        self.subscriptions[subscription].link = link;
        if let Stage::Waiting { ticket, .. } = &mut self.subscriptions[subscription].stage {
            *ticket = next_ticket;
        }
        ring_insert(&mut self.subscriptions, &mut row.waiting, subscription);
        row.waiting_count += 1;
    }

    /// A shared grant came: all that wait for the link are admitted, the first of them now.
    pub(super) fn begin_admitting(&mut self, now: Instant, link: u32) {
        self.links[link].cover();
        if self.links[link].waiting != NONE && !self.admitting.contains(&link) {
            self.admitting.push_back(link);
        }
        self.admit_more(now);
    }

    /// Admits some of those that a shared grant covers and that still wait.
    pub fn admit_more(&mut self, now: Instant) {
        let mut left = ADMISSIONS_PER_TURN;
        while let Some(&link) = self.admitting.front() {
            let row = self.links.get(link).filter(|row| row.topic != NONE);
            let first = row.and_then(|row| {
                let Stage::Waiting { ticket, .. } = self.subscriptions.get(row.waiting)?.stage else { return None };
                row.covers(ticket).then_some((row.waiting, row.topic))
            });
            let Some((subscription, topic)) = first else {
                self.admitting.pop_front();
                continue;
            };
            if left == 0 {
                return;
            }
            left -= 1;
            self.admit(now, subscription, topic, false);
        }
    }

    /// A waiting subscription becomes a live one.
    pub(super) fn admit(&mut self, now: Instant, subscription: u32, topic: u32, own: bool) {
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
        row.for_preview = false;
        row.forget_at = Instant::NEVER;
        self.counters.subscribed += 1;
        self.begin_watching(page);
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

    /// Ends a subscription: the page is told, and the row stays until it was.
    pub(super) fn finish(&mut self, now: Instant, subscription: u32, reason: Reason, retry_ms: Option<u32>) {
        let page = self.subscriptions[subscription].page;
        let topic = match self.detach(now, subscription) {
            Some(live) if !live.unconfirmed => Some(self.topics[live.topic].number),
            _ => None,
        };
        if topic.is_none() {
            self.counters.denied += 1;
            self.sessions[page].may_return |= retry_ms.is_some();
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
                self.end_watching(now, page);
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
}
