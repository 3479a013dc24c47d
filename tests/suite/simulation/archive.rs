//! Everything that the business server ever published, by topic, epoch and track: the reference for
//! the pages.

use std::collections::{BTreeMap, HashMap};

use wire::Track;

/// The kind of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Whole,
    Init,
    Start,
    Continue,
}

/// One publication.
#[derive(Clone, Debug)]
pub struct Item {
    pub what: What,
    pub mime: String,
    pub data: Vec<u8>,
    /// Whether the relay may show it: small enough, and JSON where required.
    pub good: bool,
    /// The init segment that applies; 0 without.
    pub init: u64,
}

/// One track of one epoch.
#[derive(Debug, Default)]
pub struct History {
    pub items: BTreeMap<u64, Item>,
    /// The counter's next value, including holes.
    pub next: u64,
}

impl History {
    pub fn next(&self) -> u64 {
        self.next.max(1)
    }

    pub fn newest(&self, what: What) -> Option<u64> {
        self.items.iter().rev().find(|(_, item)| item.what == what).map(|(sequence, _)| *sequence)
    }
}

/// All publications.
#[derive(Debug, Default)]
pub struct Archive(HashMap<(u32, u64, usize), History>);

impl Archive {
    pub fn of(&mut self, topic: u32, epoch: u64, track: Track) -> &mut History {
        self.0.entry((topic, epoch, track.index())).or_default()
    }

    pub fn next(&self, topic: u32, epoch: u64, track: Track) -> u64 {
        self.0.get(&(topic, epoch, track.index())).map_or(1, History::next)
    }

    pub fn item(&self, topic: u32, epoch: u64, track: Track, sequence: u64) -> Result<&Item, String> {
        self.0
            .get(&(topic, epoch, track.index()))
            .and_then(|history| history.items.get(&sequence))
            .ok_or_else(|| format!("{} {sequence} of topic {topic} in epoch {epoch} was never published", track.name()))
    }

    /// Whether a sequence was published and could have been shown.
    pub fn is_good(&self, topic: u32, epoch: u64, track: Track, sequence: u64) -> bool {
        self.item(topic, epoch, track, sequence).is_ok_and(|item| item.good)
    }
}
