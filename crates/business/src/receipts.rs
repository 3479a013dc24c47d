//! Pages' messages with an id: which came already, and who is to be told that they did.
//!
//! Owns a row for each message of the last 10 minutes, up to a number; the oldest give way. A page
//! that got no answer sends its message again under the same id, perhaps through another relay:
//! that is no new message. Knows no frames, and does not decide when a message counts as received.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use wire::{page::MessageId, uplink::ToRelay};

use super::{Business, event::RelayId};

/// For so long a message that comes again is known.
const KNOWN: Duration = Duration::from_secs(600);

/// What became of a message that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// It is new.
    First,
    /// It came before, and nobody has said yet that it was received.
    Again,
    /// It was received before: the page is to be told at once.
    Received,
}

/// Its topic, and its id there: one of another topic is another message, whatever its id.
type Key = (u32, MessageId);

#[derive(Clone, Copy, Debug)]
struct Row {
    came: Duration,
    /// Where it came from last: the answer goes there.
    relay: RelayId,
    page: u32,
    is_received: bool,
}

/// The messages.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    rows: BTreeMap<Key, Row>,
    /// Their keys with the time when they first came, oldest first.
    order: VecDeque<(Duration, Key)>,
}

impl Receipts {
    /// A message came, from a page of a relay.
    pub fn come(&mut self, now: Duration, rows_max: usize, key: Key, from: (RelayId, u32)) -> Came {
        while let Some((came, oldest)) = self.order.front()
            && (now.saturating_sub(*came) >= KNOWN || self.order.len() >= rows_max.max(1))
        {
            // One that was forgotten, and came again since, has a newer entry.
            if self.rows.get(oldest).is_some_and(|row| row.came == *came) {
                self.rows.remove(oldest);
            }
            self.order.pop_front();
        }
        let (relay, page) = from;
        if let Some(row) = self.rows.get_mut(&key) {
            (row.relay, row.page) = (relay, page);
            return if row.is_received { Came::Received } else { Came::Again };
        }
        self.rows.insert(key, Row { came: now, relay, page, is_received: false });
        self.order.push_back((now, key));
        Came::First
    }

    /// A message was received: the page to be told, if the message is known and was not received
    /// before.
    pub fn received(&mut self, key: &Key) -> Option<(RelayId, u32)> {
        let row = self.rows.get_mut(key).filter(|row| !row.is_received)?;
        row.is_received = true;
        Some((row.relay, row.page))
    }

    /// A message was not received after all: if it comes again, it is new.
    pub fn forget(&mut self, key: &Key) {
        let is_newest = self.order.back().is_some_and(|(_, newest)| newest == key);
        // One that was never received takes no place from others.
        if self.rows.remove(key).is_some() && is_newest {
            self.order.pop_back();
        }
    }
}

impl Business {
    /// Whether a page's message is a new one. One that was received before is confirmed again.
    pub(crate) fn is_new(
        &mut self,
        now: Duration,
        (topic, id): (u32, Option<MessageId>),
        from: (RelayId, u32),
    ) -> bool {
        let Some(id) = id else { return true };
        let came = self.receipts.come(now, self.settings.limits.receipts_max, (topic, id), from);
        if came == Came::Received {
            let (relay, page) = from;
            self.send(relay, &ToRelay::Sent { page, id });
        }
        came == Came::First
    }

    /// A page's message was received: the page is told, where its relay is still connected.
    /// From now on the page is told at once if it sends the message again. Nothing happens if the
    /// message is not known any more.
    pub fn confirm(&mut self, topic: u32, id: &MessageId) {
        if let Some((relay, page)) = self.receipts.received(&(topic, *id)) {
            self.send(relay, &ToRelay::Sent { page, id: *id });
        }
    }

    /// A page's message can't be received after all, and the page hears nothing. If it sends it
    /// again, it is a new one.
    pub fn forget_message(&mut self, topic: u32, id: &MessageId) {
        self.receipts.forget(&(topic, *id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn a_message_is_new_once_and_its_answer_goes_where_it_came_from_last() {
        let mut receipts = Receipts::default();
        let (one, two, other) = ((7, [1; 16]), (7, [2; 16]), (8, [1; 16]));
        let from = |relay, page| (RelayId(relay), page);
        assert_eq!(receipts.come(at(0), 9, one, from(1, 5)), Came::First);
        assert_eq!(receipts.come(at(1), 9, one, from(2, 6)), Came::Again);
        assert_eq!(receipts.received(&one), Some((RelayId(2), 6)));
        assert_eq!(receipts.received(&one), None, "it was told");
        assert_eq!(receipts.come(at(2), 9, one, from(1, 5)), Came::Received);
        assert_eq!(receipts.come(at(3), 9, other, from(3, 5)), Came::First, "another topic's");
        assert_eq!(receipts.come(at(3), 9, one, from(1, 5)), Came::Received, "which changes nothing for this one");
        assert_eq!(receipts.received(&other), Some((RelayId(3), 5)));
        assert_eq!(receipts.come(at(4), 9, two, from(1, 5)), Came::First);
        receipts.forget(&two);
        assert_eq!((receipts.received(&two), receipts.rows.len()), (None, 2));
        assert_eq!(receipts.come(at(5), 9, two, from(1, 5)), Came::First);
        assert_eq!(receipts.come(at(602), 9, (7, [3; 16]), from(1, 5)), Came::First);
        assert_eq!(receipts.come(at(604), 9, two, from(1, 5)), Came::Again, "it came again at 5 s");
    }

    #[test]
    fn messages_are_known_for_ten_minutes_and_up_to_a_number() {
        let mut receipts = Receipts::default();
        let mut come = |s, n: u8| receipts.come(at(s), 3, (7, [n; 16]), (RelayId(1), 5));
        assert_eq!([1, 2, 3].map(|n| come(0, n)), [Came::First; 3]);
        assert_eq!(come(1, 3), Came::Again);
        assert_eq!(come(2, 4), Came::First);
        assert_eq!(come(599, 4), Came::Again);
        assert_eq!(come(602, 4), Came::First, "ten minutes have passed");
        assert_eq!((receipts.rows.len(), receipts.order.len()), (1, 1));
    }

    #[test]
    fn messages_that_are_forgotten_at_once_displace_no_others() {
        let mut receipts = Receipts::default();
        let mut come = |n: u8| receipts.come(at(0), 3, (7, [n; 16]), (RelayId(1), 5));
        assert_eq!([1, 2].map(&mut come), [Came::First; 2]);
        for n in 3..100 {
            let key = (7, [n; 16]);
            assert_eq!(receipts.come(at(0), 3, key, (RelayId(1), 5)), Came::First);
            receipts.forget(&key);
        }
        assert_eq!((receipts.rows.len(), receipts.order.len()), (2, 2));
        assert_eq!(receipts.come(at(0), 3, (7, [1; 16]), (RelayId(1), 5)), Came::Again);
    }
}
