//! Admission: a page subscribes to a link and is admitted at once, waits, or is denied.
//!
//! Owns the life of a subscription's row, from `Waiting` through `Live` to `Over` and removal. With
//! a shared grant, pages are admitted without a request. If a table is full the page is denied with
//! a retry. Doesn't know how requests are sent to the business server (`asking.rs`), nor what its
//! answers mean (`answering.rs`).

use super::{
    Relay,
    asking::ANSWER_MS_MAX,
    cursor::{late_cursors, late_messages},
    position::{Cursor, UNPLACED},
    session::Pace,
    subscription::{Live, Stage},
    table::NONE,
    texts::Reason,
    time::Instant,
};
use wire::{Track, is_link, uplink::Since};

/// A page whose `since` is ahead of the topic loses that place once the messages have been quiet
/// for this time.
pub(super) const SETTLED_MS: u64 = 2_000;

/// Pages admitted in one turn. Each looks up its place in the rings, which takes some microseconds
/// if its replay is long. The rest follow in the next turns, so that a burst of pages on one link
/// doesn't delay everything else.
const ADMISSIONS_PER_TURN: u32 = 256;

impl Relay {
    /// A page subscribes to a link.
    pub(super) fn subscribe(&mut self, now: Instant, page: u32, id: u32, name: &str, since: Option<Since>) {
        self.counters.asked += 1;
        let Some(subscription) = self.new_subscription(now, page, id, since) else {
            self.counters.denied += 1;
            self.sessions[page].chain.refuse();
            if self.sessions[page].refused.replace(id).is_some() {
                // Only one unsent refusal is kept for a page. One that subscribes again before
                // reading it is closed with a retry.
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
        if u32::from(self.sessions[page].chain.wanted()) > self.board.topics_per_page_max {
            return never("this page has too many topics already");
        }
        if !self.may_ask(now, page) {
            return Err((Reason::Own("too many requests, ask again later"), Some(self.retry_ms())));
        }
        let Some(link) = self.link_for(now, name, self.sessions[page].shares_with()) else {
            return Err((Reason::Own("the relay has no room for more links now"), Some(self.full_retry_ms())));
        };
        if self.page_holds(page, self.links[link].topic()) {
            self.release_link(now, link);
            return never("this page has the topic already");
        }
        let denied = self.links[link].denied_now(now);
        if let Some(denied) = denied.filter(|denied| !denied.untried) {
            return Err((self.reasons.retain_reason(denied.reason), None));
        }
        let asker = self.asker(&self.sessions[page]);
        if let Some(reason) = self.denials.remembered(&mut self.reasons, now, self.links[link].hash(), asker) {
            self.release_link(now, link);
            return Err((reason, None));
        }
        let row = &mut self.links[link];
        self.subscriptions.wait(subscription, link, &mut row.waiting);
        let row = &self.links[link];
        if row.is_granted(now) && self.is_published(row.topic()) {
            self.admit(now, subscription, row.topic(), false);
        } else if let Some(denied) = denied {
            // The link was denied before any page subscribed; a request that names this page may
            // succeed.
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
            if next <= wire::SEQUENCE_END { (since.epoch, next) } else { (0, 0) }
        });
        let session = &mut self.sessions[page];
        let subscription = self.subscriptions.insert(&mut session.chain, now, page, id, since)?;
        session.pace = Pace::CatchesUp;
        Some(subscription)
    }

    /// The row of a link that a page subscribes to. `None` if it has no row and the table is full,
    /// or is more than three quarters full and the page's network has used its quarter.
    fn link_for(&mut self, now: Instant, name: &str, network: u32) -> Option<u32> {
        if let Some(link) = self.links.find(name) {
            self.links[link].used_by_page(now, network);
            return Some(link);
        }
        let used = self.links.iter().filter(|(_, link)| !link.is_spare());
        let (all, own) = used.fold((0, 0), |(all, own), (_, link)| {
            (all + 1, own + u32::from(network != NONE && link.network() == network))
        });
        let quarter = self.board.links_max / 4;
        if all >= self.board.links_max - quarter && own >= quarter.max(1) {
            return None;
        }
        if self.links.is_full() {
            // Evicts the least recently used of the links that are only remembered; links that no
            // page ever subscribed to go first.
            let spare = self.links.iter().filter(|(_, link)| link.is_spare());
            let (index, _) = spare.min_by_key(|(_, link)| (!link.is_for_preview(), link.used_at()))?;
            self.remove_link(index);
        }
        let link = self.links.insert(now, name, self.uplink.connection())?;
        self.links[link].set_network(network);
        Some(link)
    }

    /// Frees a link's row if nothing needs it any more.
    pub(super) fn release_link(&mut self, now: Instant, link: u32) {
        if self.links.get(link).is_some_and(|row| row.is_idle(now)) {
            self.remove_link(link);
        }
    }

    pub(super) fn remove_link(&mut self, link: u32) {
        if let Some(row) = self.links.remove(link, self.uplink.connection()) {
            row.reasons().for_each(|reason| self.reasons.release_reason(reason));
        }
    }

    /// A shared grant arrived: every waiting subscription is covered, and the first ones are
    /// admitted now.
    pub(super) fn begin_admitting(&mut self, now: Instant, link: u32) {
        let waiting = &mut self.links[link].waiting;
        waiting.cover();
        if !waiting.ring().is_empty() {
            self.links.push_admitting(link);
        }
        self.admit_more(now);
    }

    /// Admits up to one turn's worth of the waiting subscriptions that a shared grant covers.
    pub fn admit_more(&mut self, now: Instant) {
        let mut left = ADMISSIONS_PER_TURN;
        while let Some(link) = self.links.admitting() {
            let row = self.links.get(link).filter(|row| row.topic() != NONE);
            let first = row.and_then(|row| {
                let first = row.waiting.ring().first();
                let Stage::Waiting { ticket, .. } = *self.subscriptions.get(first)?.stage() else { return None };
                row.waiting.covers(ticket).then_some((first, row.topic()))
            });
            let Some((subscription, topic)) = first else {
                self.links.pop_admitting();
                continue;
            };
            if left == 0 {
                return;
            }
            left -= 1;
            self.admit(now, subscription, topic, false);
        }
    }

    /// Turns a waiting subscription into a live one.
    pub(super) fn admit(&mut self, now: Instant, subscription: u32, topic: u32, own: bool) {
        let row = &self.subscriptions[subscription];
        let (page, link) = (row.page(), row.link());
        let Stage::Waiting { since, .. } = *row.stage() else { return };
        if self.page_holds(page, topic) {
            self.finish(now, subscription, Reason::Own("this page has the topic already"), None);
            return;
        }
        self.forget_asker(subscription);
        let (messages, claimed) = self.first_place(now, topic, since, self.links[link].grant().replay);
        let cursors = late_cursors(&self.topics[topic], &self.store, messages);
        let (session, link, row) = (&mut self.sessions[page], &mut self.links[link], &mut self.topics[topic]);
        self.subscriptions.admit(
            subscription,
            Live::new(topic, cursors, own, claimed),
            &mut session.chain,
            (&mut link.waiting, &mut link.watching),
            &mut row.viewers,
        );
        row.acceptance.joined();
        session.pace = Pace::CatchesUp;
        self.counters.subscribed += 1;
        self.push_ready(page);
    }

    /// Where a page starts on `messages`, and whether that place is known only from the page's own
    /// `since`.
    fn first_place(&self, now: Instant, topic: u32, since: (u64, u64), replay: u16) -> (Cursor, bool) {
        let topic = &self.topics[topic];
        let newest = topic.log(Track::Messages).next_sequence();
        let (epoch, next) = since;
        let acceptance = &topic.acceptance;
        let may_replay = newest == 0 || acceptance.replay_from() != 0 || acceptance.age_ms(now) < SETTLED_MS;
        if next == 0 || epoch != topic.epoch() || (next > newest && !may_replay) {
            return (late_messages(topic, &self.store, replay), false);
        }
        (Cursor { sequence: next, at: UNPLACED }, next > newest)
    }

    /// Whether a page already has a subscription to a topic.
    fn page_holds(&self, page: u32, topic: u32) -> bool {
        let mut of_page = self.subscriptions.of(&self.sessions[page].chain);
        of_page.any(|(_, row)| row.live().is_some_and(|live| live.topic() == topic))
    }

    /// Ends a subscription. The page is notified, and the row stays until that notice is sent.
    pub(super) fn finish(&mut self, now: Instant, subscription: u32, reason: Reason, retry_ms: Option<u32>) {
        let row = &self.subscriptions[subscription];
        let page = row.page();
        let topic = row.live().filter(|live| !live.unconfirmed).map(|live| self.topics[live.topic()].number());
        if topic.is_none() {
            self.counters.denied += 1;
        }
        self.detach(now, subscription, topic, reason, retry_ms);
        self.push_ready(page);
    }

    /// Moves a subscription to `Over`: takes it out of its topic's ring or its link's waiting ring.
    fn detach(&mut self, now: Instant, subscription: u32, number: Option<u32>, reason: Reason, retry_ms: Option<u32>) {
        let row = &self.subscriptions[subscription];
        let (page, link, live) = (row.page(), row.link(), row.live().map(Live::topic));
        let over = Stage::Over { topic: number, reason, retry_ms };
        self.forget_asker(subscription);
        let chain = &mut self.sessions[page].chain;
        if let Some(topic) = live {
            let (row, watching) = (&mut self.topics[topic], &mut self.links[link].watching);
            self.subscriptions.end(now, subscription, over, chain, watching, &mut row.viewers);
            row.acceptance.left(row.viewers.is_empty(), now.after(self.settings.linger_ms));
        } else {
            // Without a link, the subscription was refused before it waited for anything.
            let waiting = (link != NONE).then(|| &mut self.links[link].waiting);
            self.subscriptions.deny(subscription, over, chain, waiting);
        }
        self.release_link(now, link);
    }

    /// Removes all subscriptions of a page that is gone.
    pub(super) fn forget_page(&mut self, now: Instant, page: u32) {
        loop {
            let subscription = self.sessions[page].chain.first();
            let Some(row) = self.subscriptions.get(subscription) else { return };
            if !matches!(row.stage(), Stage::Over { .. }) {
                self.detach(now, subscription, None, Reason::Own(""), None);
            }
            self.forget_subscription(subscription);
        }
    }

    /// Frees the row of a subscription that is over.
    pub(super) fn forget_subscription(&mut self, subscription: u32) {
        let row = &self.subscriptions[subscription];
        if let Stage::Over { reason, .. } = *row.stage() {
            self.reasons.release_reason(reason);
        }
        let page = row.page();
        self.subscriptions.remove(subscription, &mut self.sessions[page].chain);
    }

    /// A subscription that ends is no longer the asker of any request.
    fn forget_asker(&mut self, subscription: u32) {
        if self.subscriptions[subscription].is_asked() {
            self.requests.forget_asker(subscription);
        }
    }

    /// Denies a page's subscriptions that have waited too long, whether or not a request was sent
    /// for them; checks claimed places.
    pub(super) fn sweep_waiting(&mut self, now: Instant, page: u32) {
        let mut subscription = self.sessions[page].chain.first();
        while subscription != NONE {
            let next = self.subscriptions.next_of_page(subscription);
            match *self.subscriptions[subscription].stage() {
                Stage::Waiting { from, .. } if from.age_ms(now) > ANSWER_MS_MAX + 500 => {
                    let retry_ms = self.retry_ms();
                    let reason = if self.is_up() {
                        "the business server did not answer"
                    } else {
                        "the business server can't be reached now"
                    };
                    self.finish(now, subscription, Reason::Own(reason), Some(retry_ms));
                }
                Stage::Live(live) if live.claimed => self.check_claim(now, subscription, live),
                _ => {}
            }
            subscription = next;
        }
    }

    /// The page's `since` was ahead of the topic. Once the topic is quiet, such a `since` is
    /// ignored.
    fn check_claim(&mut self, now: Instant, subscription: u32, live: Live) {
        let topic = &self.topics[live.topic()];
        let newest = topic.log(Track::Messages).next_sequence();
        let is_reached = live.cursors[Track::Messages.index()].sequence <= newest;
        // Without an uplink the topic is not settled: the rest of a replay may still come.
        let is_settled = self.is_up()
            && topic.acceptance.is_on(self.uplink.connection())
            && newest != 0
            && topic.acceptance.settled_ms(now) >= SETTLED_MS;
        if !is_reached && !is_settled {
            return;
        }
        let replay = self.links[self.subscriptions[subscription].link()].grant().replay;
        let place = late_messages(topic, &self.store, replay);
        if let Some(live) = self.subscriptions.live_mut(subscription) {
            live.claimed = false;
            if !is_reached && !live.behind_epoch {
                live.cursors[Track::Messages.index()] = place;
            }
        }
        self.push_ready(self.subscriptions[subscription].page());
    }
}
