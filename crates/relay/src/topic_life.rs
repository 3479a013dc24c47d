//! A topic's life: from its first `Accept` to its `Unsubscribe`, and the epochs between.
//!
//! Owns when a topic gets a row, begins an epoch and is forgotten. A topic that finds no room is
//! refused. A topic without pages lingers, and is evicted when a new topic needs its row.
//! Publications are handled in `publish.rs`, and the pages of a topic in `admission.rs`.

use super::{
    Relay, acceptance::Acceptance, cursor::epoch_cursors, event::Event, position::Cursor, preview::PREVIEW_MS_MAX,
    time::Instant, topic::Topic,
};
use wire::{Track, uplink::ToBusiness};

impl Relay {
    /// Forgets topics whose linger time has passed, and sends `Audience` for those whose audience
    /// changed.
    pub(super) fn sweep_topics(&mut self, now: Instant) {
        for topic in 0..self.topics.end() {
            let Some(row) = self.topics.get(topic) else { continue };
            if row.viewers.is_empty() && row.acceptance.forget_at() <= now {
                let number = row.number();
                if !self.is_published(topic) || self.uplink.unsubscribe(number) {
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
            if !row.acceptance.is_on(connection) || !row.acceptance.is_audience_due(now) {
                continue;
            }
            let audience = ToBusiness::Audience { topic: row.number(), pages: row.viewers.len() };
            if self.uplink.send(&audience).is_some() {
                row.acceptance.audience_sent(now);
            }
        }
    }

    /// The row of an accepted topic: the existing one, in a new epoch if need be, or a new one.
    /// `None` if there is no room.
    pub(super) fn topic_for(&mut self, now: Instant, number: u32, epoch: u64, for_preview: bool) -> Option<u32> {
        let connection = self.uplink.connection();
        if let Some(index) = self.topics.find(number) {
            if self.topics[index].epoch() != epoch {
                self.begin_epoch(now, index, epoch);
            }
            self.topics[index].acceptance.renew(now, connection);
            return Some(index);
        }
        if for_preview && !self.has_topic_for_preview() {
            return None;
        }
        if self.topics.is_full() {
            // Evict a topic that only lingers, a preview's first.
            let lingering = self.topics.iter().filter(|(_, topic)| topic.viewers.is_empty());
            let oldest =
                lingering.min_by_key(|(_, topic)| (!topic.acceptance.is_for_preview(), topic.acceptance.forget_at()));
            let (oldest, other) = oldest.map(|(index, row)| (index, row.number()))?;
            if !self.uplink.unsubscribe(other) {
                return None;
            }
            self.forget_topic(now, oldest);
        }
        let linger_ms = if for_preview { PREVIEW_MS_MAX } else { self.settings.linger_ms };
        let acceptance = Acceptance::new(now, connection, now.after(linger_ms), for_preview);
        self.topics.insert(|index| Topic::new(&self.board, index, number, epoch, acceptance))
    }

    fn begin_epoch(&mut self, now: Instant, topic: u32, epoch: u64) {
        self.settle_places(now, topic);
        let row = &mut self.topics[topic];
        row.begin_epoch(&mut self.store, epoch, now);
        let _ = row.acceptance.take_replay_from();
        self.events.add(Event::Epoch { topic: row.number(), epoch });
        let mut walk = row.viewers.walk();
        while let Some(subscription) = self.subscriptions.next(&mut walk) {
            let page = self.subscriptions[subscription].page();
            if let Some(live) = self.subscriptions.live_mut(subscription) {
                if live.behind_epoch {
                    // Two epochs behind: what the page missed of the first is no longer known.
                    self.close_slow(now, page);
                } else if !live.unconfirmed {
                    live.behind_epoch = true;
                    live.claimed = false;
                } else {
                    // Its `subscribed` will name the new epoch.
                    live.claimed = false;
                    live.cursors = epoch_cursors(&self.topics[topic], Cursor::UNSET);
                }
            }
        }
        self.topics.begin_walk(topic);
    }

    /// Before an epoch ends, gives every cursor in it that has no place yet its place.
    fn settle_places(&mut self, now: Instant, topic: u32) {
        let base = self.topics[topic].log(Track::Messages).base();
        let mut walk = self.topics[topic].viewers.walk();
        while let Some(subscription) = self.subscriptions.next(&mut walk) {
            if let Some(live) = self.subscriptions.live_mut(subscription) {
                let lag_ms_max = self.board.media_lag_ms_max.into();
                let topic = &self.topics[topic];
                let ahead = super::cursor::ahead(topic, &self.store, live, Track::Messages, now, lag_ms_max);
                let cursor = &mut live.cursors[Track::Messages.index()];
                match ahead {
                    super::cursor::Ahead::Placed(place) => *cursor = place,
                    // The page got nothing yet, and was there since the epoch's first message.
                    super::cursor::Ahead::Gap { .. } | super::cursor::Ahead::Frames { .. } if cursor.sequence == 0 => {
                        cursor.sequence = base;
                    }
                    _ => {}
                }
            }
        }
    }

    /// A topic found no room: unsubscribes from it at the business server.
    pub(super) fn refuse_topic(&mut self, number: u32) {
        self.events.add(Event::TopicsFull { topic: number });
        self.counters.topics_refused += 1;
        // If even this finds no room, the topic's publications are dropped and counted.
        let _ = self.uplink.unsubscribe(number);
    }

    /// Whether the latest connection to the business server accepted a topic.
    pub(super) fn is_accepted(&self, topic: u32) -> bool {
        self.topics[topic].acceptance.is_on(self.uplink.connection())
    }

    /// Whether the business server publishes a topic now, as far as the relay knows.
    pub(super) fn is_published(&self, topic: u32) -> bool {
        self.is_up() && self.is_accepted(topic)
    }

    /// Forgets a topic without pages: its links' grants, its number, its logs. Pages that stopped
    /// inside one of its frames finish it from the reserve.
    pub(super) fn forget_topic(&mut self, now: Instant, topic: u32) {
        // Pages that were about to be admitted to it need a new request.
        self.requests.set_backlog();
        for link in 0..self.links.end() {
            if let Some(row) = self.links.get_mut(link)
                && row.topic() == topic
            {
                row.end_grant(now);
                self.release_link(now, link);
            }
        }
        if let Some(mut row) = self.topics.remove(topic) {
            row.clear(&mut self.store);
        }
    }
}
