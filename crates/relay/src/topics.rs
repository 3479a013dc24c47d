//! The table of topics, found by the business server's numbers, and the walks over topics with
//! news.
//!
//! Owns the rows, the index by number and the order of the walks; removing a row removes it from
//! both. Doesn't know when a topic is created or forgotten (`topic_life.rs`), nor what it holds
//! (`topic.rs`).

use alloc::vec::Vec;

use super::{
    subscription::{Subscription, Subscriptions},
    table::Table,
    topic::Topic,
    walks::Walks,
};

/// The table of topics.
#[derive(Debug)]
pub struct Topics {
    rows: Table<Topic>,
    /// Rows by the business server's number, sorted.
    numbers: Vec<(u32, u32)>,
    walks: Walks,
}

/// The rows, to read. Rows come and go only by the methods here.
impl core::ops::Deref for Topics {
    type Target = Table<Topic>;

    fn deref(&self) -> &Table<Topic> {
        &self.rows
    }
}

impl Topics {
    /// An empty table for `topics_max` topics.
    #[must_use]
    pub fn new(topics_max: u32) -> Self {
        let numbers = Vec::with_capacity(topics_max as usize);
        Self { rows: Table::new(topics_max), numbers, walks: Walks::new(topics_max) }
    }

    /// The topic at an index, if there is one, mutably.
    #[must_use]
    pub fn get_mut(&mut self, topic: u32) -> Option<&mut Topic> {
        self.rows.get_mut(topic)
    }

    /// The row of the topic with this number at the business server.
    #[must_use]
    pub fn find(&self, number: u32) -> Option<u32> {
        let at = self.numbers.binary_search_by_key(&number, |&(number, _)| number).ok()?;
        self.numbers.get(at).map(|&(_, row)| row)
    }

    /// Adds a topic that is built from its index; `None` if there is no room. Its number must not
    /// be in use.
    pub fn insert(&mut self, topic: impl FnOnce(u32) -> Topic) -> Option<u32> {
        let index = self.rows.insert_with(topic)?;
        let number = self.rows[index].number();
        let at = self.numbers.partition_point(|&(other, _)| other < number);
        self.numbers.insert(at, (number, index));
        Some(index)
    }

    /// Removes a topic, which must have no pages.
    pub fn remove(&mut self, topic: u32) -> Option<Topic> {
        let row = self.rows.remove(topic)?;
        debug_assert!(row.viewers.is_empty(), "topic {topic} is removed but has pages");
        if let Ok(at) = self.numbers.binary_search_by_key(&row.number(), |&(number, _)| number) {
            self.numbers.remove(at);
        }
        self.walks.forget(topic);
        Some(row)
    }

    /// A topic has something for all of its pages: begins or restarts its walk.
    pub fn begin_walk(&mut self, topic: u32) {
        let row = &mut self.rows[topic];
        if row.viewers.is_empty() {
            return;
        }
        let left = self.walks.begin(topic, &mut row.viewers);
        row.probe.walk_again(left, row.viewers.len());
    }

    /// Whether a walk is in progress.
    #[must_use]
    pub fn has_walks(&self) -> bool {
        !self.walks.is_empty()
    }

    /// The next subscription of the walks for which `serves` is true; `None` once all walks are
    /// over.
    pub fn next_of_walks<'a>(
        &mut self,
        subscriptions: &'a Subscriptions,
        serves: impl Fn(&Subscription) -> bool,
    ) -> Option<&'a Subscription> {
        while let Some(topic) = self.walks.first() {
            let next = self.walks.advance(&mut self.rows[topic].viewers, subscriptions);
            if let Some(row) = next.map(|index| &subscriptions[index]).filter(|row| serves(row)) {
                return Some(row);
            }
        }
        None
    }

    /// Checks sizes only.
    ///
    /// # Panics
    /// If a table has grown.
    pub fn check_size(&self, topics_max: u32) {
        self.rows.check_size("topics", topics_max);
        self.walks.check_size(topics_max);
    }

    /// Checks the index and the walks. For tests.
    ///
    /// # Panics
    /// If a topic is not found, or its walk is lost.
    pub fn check(&self, topics_max: u32) {
        self.rows.check("topics", topics_max);
        assert_eq!(self.numbers.len(), self.iter().count(), "the topics' numbers are indexed wrongly");
        for (topic, row) in self.iter() {
            assert_eq!(self.find(row.number()), Some(topic), "topic {topic} is not found by its number");
            self.walks.check(topic, &row.viewers);
        }
        self.walks.check_topics(|topic| self.get(topic).is_some());
    }
}

impl core::ops::Index<u32> for Topics {
    type Output = Topic;

    fn index(&self, topic: u32) -> &Topic {
        &self.rows[topic]
    }
}

impl core::ops::IndexMut<u32> for Topics {
    fn index_mut(&mut self, topic: u32) -> &mut Topic {
        &mut self.rows[topic]
    }
}
