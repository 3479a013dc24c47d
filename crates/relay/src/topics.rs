//! The table of topics: from a topic's first `Accept` to its `Unsubscribe`, and the epochs between.
//!
//! Owns a topic's row and its number in the index. A topic that finds no room is refused; one
//! without pages lingers, and gives its row to a newcomer first. What a topic publishes is
//! `publish.rs`'s, which pages it has `admission.rs`'s.

use super::{
    Relay,
    cursor::epoch_cursors,
    event::Event,
    preview::PREVIEW_MS_MAX,
    session::{Cursor, Stage, UNPLACED},
    table::NONE,
    time::Instant,
    topic::Topic,
};
use wire::{Track, uplink::ToBusiness};

/// An `Audience` of one topic goes out at most this often.
const AUDIENCE_MS: u64 = 1_000;

impl Relay {
    /// Forgets topics that no page came back to, and tells audiences that have changed.
    pub(super) fn sweep_topics(&mut self, now: Instant) {
        for topic in 0..self.topics.end() {
            let Some(row) = self.topics.get(topic) else { continue };
            if row.pages == 0 && row.forget_at <= now {
                let number = row.number;
                let is_known = row.accepted_on == self.uplink.connection() && self.is_up();
                if !is_known || self.unsubscribe_topic(number) {
                    self.forget_topic(now, topic);
                }
            }
        }
        self.flush_audiences(now);
    }

    pub(super) fn flush_audiences(&mut self, now: Instant) {
        if !self.is_up() {
            return;
        }
        let connection = self.uplink.connection();
        for topic in 0..self.topics.end() {
            let Some(row) = self.topics.get_mut(topic) else { continue };
            let is_due = row.audience_at == Instant(0) || now.since(row.audience_at) >= AUDIENCE_MS;
            if row.for_preview || row.accepted_on != connection || row.audience_told.is_some() || !is_due {
                continue;
            }
            if self.uplink.send(&ToBusiness::Audience { topic: row.number, pages: row.pages }).is_some() {
                row.audience_told = Some(row.pages);
                row.audience_at = now;
            }
        }
    }

    /// The row of a topic that was accepted: as it is, in a new epoch, or made; `None` where there is no room.
    pub(super) fn topic_for(&mut self, now: Instant, number: u32, epoch: u64, for_preview: bool) -> Option<u32> {
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
                // That connection was asked for the relay's own next, and not for what pages brought.
                topic.replay_from = 0;
            }
            topic.audience_told = None;
            return Some(index);
        }
        if for_preview && !self.has_topic_for_preview() {
            return None;
        }
        if self.topics.is_full() {
            // One that only lingers makes room, a preview's first.
            let lingering = self.topics.iter().filter(|(_, topic)| topic.pages == 0);
            let oldest = lingering.min_by_key(|(_, topic)| (!topic.for_preview, topic.forget_at));
            let (oldest, other) = oldest.map(|(index, row)| (index, row.number))?;
            if !self.unsubscribe_topic(other) {
                return None;
            }
            self.forget_topic(now, oldest);
        }
        let linger_ms = if for_preview { PREVIEW_MS_MAX } else { self.settings.linger_ms };
        let (board, forget_at) = (&self.board, now.after(linger_ms));
        let index = self.topics.insert_with(|index| {
            let mut topic = Topic::new(board, index, number, epoch, now);
            topic.accepted_on = connection;
            topic.forget_at = forget_at;
            topic.for_preview = for_preview;
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

    /// A topic found no room: the business server is told that it is not wanted.
    pub(super) fn refuse_topic(&mut self, number: u32) {
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
        // Pages that were to be admitted to it are asked for anew.
        self.hungry = true;
        for link in 0..self.links.end() {
            if let Some(row) = self.links.get_mut(link)
                && row.topic == topic
            {
                row.topic = NONE;
                row.granted_until = now;
                row.renew_at = Instant::NEVER;
                row.uncover();
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
