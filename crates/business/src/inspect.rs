//! What a business server can be asked about its relays and topics: counts, and nothing changes.
//!
//! Owns no state: it reads the tables of `business.rs`. What does not exist has no pages, and is
//! held by nobody. Refuses nothing.

use super::{business::Business, event::RelayId, topic::Topic};

impl Business {
    /// The number of pages of a topic, over all relays.
    #[must_use]
    pub fn audience(&self, topic: u32) -> u64 {
        self.topics.get(&topic).map_or(0, Topic::pages)
    }

    /// The memory of what all topics keep for relays, in bytes.
    #[must_use]
    pub const fn kept_size(&self) -> usize {
        self.kept_size
    }

    /// The relays that have a topic, with the number of their pages in it.
    pub fn pages_by_relay(&self, topic: u32) -> impl Iterator<Item = (RelayId, u32)> {
        let holders = self.relays.iter().filter(move |(_, relay)| relay.has(topic));
        holders.map(move |(id, relay)| (*id, relay.pages(topic)))
    }

    /// Whether any relay has a topic.
    #[must_use]
    pub fn is_held(&self, topic: u32) -> bool {
        self.topics.get(&topic).is_some_and(|open| open.relays() > 0)
    }

    /// The number of topics that a relay has, and of its pages in them: one in two topics counts
    /// twice.
    #[must_use]
    pub fn held_by(&self, relay: RelayId) -> (usize, u64) {
        let Some(row) = self.relays.get(&relay) else { return (0, 0) };
        row.topics().fold((0, 0), |(topics, pages), (_, more)| (topics + 1, pages + u64::from(more)))
    }

    /// The number of authenticated relays.
    #[must_use]
    pub const fn relays(&self) -> usize {
        self.relays_up
    }
}
