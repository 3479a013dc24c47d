//! One relay, as the machine has it: its session, and its place in each topic that it was admitted to.
//!
//! Owns the relay's topics, and the queue of those with news, which take turns. Doesn't know other relays.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::{
    session::Session,
    topic::{Cursors, Topic},
};

/// The topics of the machine by number; an ended one is its reason.
pub(crate) type Topics = BTreeMap<u32, Result<Topic, String>>;

/// A relay that is connected.
#[derive(Debug)]
pub(crate) struct Relay {
    /// The name that it gave.
    pub name: String,
    pub session: Session,
    /// It proved itself, and is counted.
    pub is_counted: bool,
    /// In the machine's list of relays that may be written to.
    pub is_ready: bool,
    topics: BTreeMap<u32, Held>,
    /// Topics that may have something ahead of it.
    news: VecDeque<u32>,
}

/// A topic, as one relay has it.
#[derive(Debug)]
struct Held {
    cursors: Cursors,
    pages: u32,
    /// In the queue of topics with news.
    has_news: bool,
}

impl Relay {
    /// A relay that has just connected.
    pub fn new(session: Session) -> Self {
        let (topics, news) = (BTreeMap::new(), VecDeque::new());
        Self { name: String::new(), session, is_counted: false, is_ready: false, topics, news }
    }

    /// It is admitted to a topic. One that it has already is sent again from where it asks, but for media.
    pub fn admit(&mut self, topic: u32, asked: Cursors) {
        let fresh = Held { cursors: asked, pages: 0, has_news: false };
        self.topics.entry(topic).and_modify(|held| held.cursors.go_back(asked)).or_insert(fresh);
        self.has_news(topic);
    }

    /// It has a topic no longer; whether it had.
    pub fn leave(&mut self, topic: u32) -> bool {
        self.topics.remove(&topic).is_some()
    }

    /// Whether it was admitted to a topic.
    pub fn has(&self, topic: u32) -> bool {
        self.topics.contains_key(&topic)
    }

    /// The topics that it was admitted to.
    pub fn topics(&self) -> impl Iterator<Item = u32> {
        self.topics.keys().copied()
    }

    /// Pages that it has in a topic.
    pub fn pages(&self, topic: u32) -> u32 {
        self.topics.get(&topic).map_or(0, |held| held.pages)
    }

    /// It told its pages in a topic; whether it has the topic.
    pub fn set_pages(&mut self, topic: u32, pages: u32) -> bool {
        self.topics.get_mut(&topic).map(|held| held.pages = pages).is_some()
    }

    /// Something may be ahead of it in a topic; whether it has the topic.
    pub fn has_news(&mut self, topic: u32) -> bool {
        let Some(held) = self.topics.get_mut(&topic) else { return false };
        if !held.has_news {
            held.has_news = true;
            self.news.push_back(topic);
        }
        true
    }

    /// What it is sent next: answers, then a publication of the topic whose turn it is.
    pub fn take(&mut self, topics: &Topics) -> Option<Arc<[u8]>> {
        if let Some(answer) = self.session.take() {
            return Some(answer);
        }
        while let Some(number) = self.news.pop_front() {
            let Some(held) = self.topics.get_mut(&number) else { continue };
            let next = topics.get(&number).and_then(|topic| topic.as_ref().ok()?.take(&mut held.cursors));
            held.has_news = next.is_some();
            if let Some(publication) = next {
                self.news.push_back(number);
                return Some(Arc::clone(publication.frame()));
            }
        }
        None
    }
}
