//! What the business server answers and decides: accepted, denied, taken back, ended; the topics that this leads to.
//!
//! Owns a topic's row from its first `Accept` to its `Unsubscribe`, and its epochs. An answer that crossed our `Unsubscribe` is
//! asked for again; a topic that finds no room is refused, and its pages come back. Doesn't know what was asked, beyond the
//! request that an answer names (`asking.rs`).

use super::{
    Relay,
    cursor::epoch_cursors,
    event::Event,
    link::Request,
    session::{Cursor, Live, Stage, UNPLACED},
    table::NONE,
    texts::Reason,
    time::Instant,
    topic::Topic,
};
use crate::wire::{
    Track,
    uplink::{Grant, ToBusiness},
};

/// A denied link is remembered for this time, so that a herd on a dead link costs one request.
const DENIED_MS: u64 = 2_000;

impl Relay {
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

    /// Answers those that a request was for with `denied`, each with a retry of its own where there is one.
    pub(super) fn answer_waiting(
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

    pub(super) fn for_live(&mut self, link: u32, mut each: impl FnMut(&mut Live)) {
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
            let lingering = self.topics.iter().filter(|(_, topic)| topic.pages == 0);
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

    /// The row of a topic that is published, by the business server's number.
    pub(super) fn topic_row(&self, number: u32) -> Option<u32> {
        let at = self.numbers.binary_search_by_key(&number, |&(number, _)| number).ok()?;
        self.numbers.get(at).map(|&(_, row)| row)
    }

    /// Forgets a topic without pages: links to it, its number, its logs. Pages that stand inside one of its frames
    /// finish it from the reserve.
    pub(super) fn forget_topic(&mut self, now: Instant, topic: u32) {
        debug_assert_eq!(self.topics[topic].pages, 0);
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
        if let Some(mut row) = self.topics.remove(topic) {
            if let Ok(at) = self.numbers.binary_search_by_key(&row.number, |&(number, _)| number) {
                self.numbers.remove(at);
            }
            row.clear(&mut self.store);
        }
        self.dirty.retain(|&dirty| dirty != topic);
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
}
