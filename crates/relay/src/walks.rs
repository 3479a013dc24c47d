//! Walks: which page is served next when topics have news.
//!
//! A publication starts one walk over its topic: around the ring of subscriptions, from where the
//! last walk ended, so that no page is always last. Walks of several topics take turns
//! (round-robin). Owns each topic's ring, how far its walk has come, and the order of the topics.
//! Doesn't know what a page is sent.

use alloc::collections::VecDeque;

use super::{
    ring::{InRing, Ring, Walk},
    table::{NONE, Table},
};

/// Pages of one topic's walk before it is the next topic's turn.
const WALK_TURN: u32 = 64;

/// The live subscriptions of a topic, and how many of them its walk has not reached yet.
#[derive(Debug)]
pub struct Viewers {
    ring: Ring,
    left: u32,
}

impl Default for Viewers {
    fn default() -> Self {
        Self { ring: Ring::EMPTY, left: 0 }
    }
}

impl Viewers {
    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.ring.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// The ring of them.
    #[must_use]
    pub const fn ring(&self) -> &Ring {
        &self.ring
    }

    /// A walk over all of them, from the one whose turn is next.
    #[must_use]
    pub const fn walk(&self) -> Walk {
        self.ring.walk()
    }

    pub(super) fn join(&mut self, rows: &mut Table<impl InRing>, index: u32) {
        self.ring.join(rows, index);
    }

    pub(super) fn leave(&mut self, rows: &mut Table<impl InRing>, index: u32) {
        self.ring.leave(rows, index);
        self.left = self.left.min(self.ring.len());
    }

    /// The next subscription of the topic's walk.
    fn advance(&mut self, rows: &Table<impl InRing>) -> Option<u32> {
        self.left = self.left.checked_sub(1)?;
        let index = self.ring.turn(rows);
        (index != NONE).then_some(index)
    }

    /// Restarts the walk over all of them; returns how many the previous one had not reached.
    fn begin(&mut self) -> u32 {
        core::mem::replace(&mut self.left, self.ring.len())
    }
}

/// The topics whose walks are in progress, each once.
#[derive(Debug)]
pub struct Walks {
    topics: VecDeque<u32>,
    /// Pages left in the first topic's turn.
    turn: u32,
}

impl Walks {
    /// None in progress; room for `topics_max`.
    #[must_use]
    pub fn new(topics_max: u32) -> Self {
        Self { topics: VecDeque::with_capacity(topics_max as usize), turn: WALK_TURN }
    }

    /// Whether no walk is in progress.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// The topic whose turn it is.
    #[must_use]
    pub fn first(&self) -> Option<u32> {
        self.topics.front().copied()
    }

    /// A topic has something for all of its pages: begins or restarts its walk. Returns how many
    /// pages the previous one had not reached.
    pub(super) fn begin(&mut self, topic: u32, viewers: &mut Viewers) -> u32 {
        let left = viewers.begin();
        if left == 0 && !self.topics.contains(&topic) {
            self.topics.push_back(topic);
        }
        left
    }

    /// Advances the first topic's walk: returns the next subscription, or `None` if its
    /// walk was over. Another topic is next once its turn is over.
    pub(super) fn advance(&mut self, viewers: &mut Viewers, rows: &Table<impl InRing>) -> Option<u32> {
        let next = viewers.advance(rows);
        self.turn = self.turn.saturating_sub(1);
        if viewers.left == 0 {
            // The next walk starts with another page, so that none is always last.
            let _ = viewers.ring.turn(rows);
            self.topics.pop_front();
            self.turn = WALK_TURN;
        } else if self.turn == 0 {
            self.topics.rotate_left(1);
            self.turn = WALK_TURN;
        }
        next
    }

    /// Drops the walk of a topic that is forgotten.
    pub(super) fn forget(&mut self, topic: u32) {
        self.topics.retain(|&other| other != topic);
    }

    /// Checks the order of the topics. For tests.
    ///
    /// # Panics
    /// If a topic with a walk is not in it, or is in it twice.
    pub(super) fn check(&self, topic: u32, viewers: &Viewers) {
        assert!(viewers.left <= viewers.len(), "topic {topic}'s walk is longer than its ring");
        let places = self.topics.iter().filter(|&&other| other == topic).count();
        assert!(places <= 1, "topic {topic} is walked twice");
        assert!(viewers.left == 0 || places == 1, "topic {topic}'s walk is lost");
    }

    /// Checks that each topic with a walk exists. For tests.
    ///
    /// # Panics
    /// If one does not.
    pub(super) fn check_topics(&self, exists: impl Fn(u32) -> bool) {
        assert!(self.topics.iter().all(|&topic| exists(topic)), "NAME: a topic that is walked is gone");
    }

    /// Checks that there are no more walks than topics.
    ///
    /// # Panics
    /// If there are more.
    pub(super) fn check_size(&self, topics_max: u32) {
        assert!(self.topics.len() <= topics_max as usize, "BOUND: more walks than topics");
    }
}
