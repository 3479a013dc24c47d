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

/// The open topics of the machine by number.
pub(crate) type Topics = BTreeMap<u32, Topic>;

/// Requests that wait for an answer, at most: far more than a relay remembers. Further ones push out the oldest, whose answer
/// it would ignore.
const REQUESTS_MAX: usize = 4096;

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
    /// What it asked and was not answered: the number and the link.
    requests: VecDeque<(u32, String)>,
    topics: BTreeMap<u32, Held>,
    /// Topics that may have something ahead of it.
    news: VecDeque<u32>,
}

/// A topic, as one relay has it.
#[derive(Debug)]
struct Held {
    cursors: Cursors,
    pages: u32,
    /// The relay said since then that it has it. Before that an `Unsubscribe` of its own may have crossed the `Accept`: then
    /// it has dropped what it was sent.
    is_confirmed: bool,
    /// In the queue of topics with news.
    has_news: bool,
}

impl Relay {
    /// A relay that has just connected.
    pub fn new(session: Session) -> Self {
        Self {
            name: String::new(),
            session,
            is_counted: false,
            is_ready: false,
            requests: VecDeque::new(),
            topics: BTreeMap::new(),
            news: VecDeque::new(),
        }
    }

    /// It asks for a link.
    pub fn asks(&mut self, request: u32, link: &str) {
        if self.requests.len() >= REQUESTS_MAX {
            self.requests.pop_front();
        }
        self.requests.push_back((request, link.to_owned()));
    }

    /// A request is answered; whether it was open.
    pub fn answered(&mut self, request: u32) -> bool {
        let place = self.requests.iter().position(|(open, _)| *open == request);
        place.and_then(|place| self.requests.remove(place)).is_some()
    }

    /// An open request for a link, which is answered by that.
    pub fn take_request_for(&mut self, link: &str) -> Option<u32> {
        let place = self.requests.iter().position(|(_, asked)| asked == link)?;
        self.requests.remove(place).map(|(request, _)| request)
    }

    /// Admits it to a topic, from the place that it asked for. Where it has confirmed that it has the topic, its cursors stay:
    /// it would drop earlier publications as superfluous.
    pub fn admit(&mut self, topic: u32, asked: Cursors) {
        let fresh = Held { cursors: asked, pages: 0, is_confirmed: false, has_news: false };
        let held = self.topics.entry(topic).or_insert(fresh);
        if !held.is_confirmed {
            held.cursors = asked;
        }
        self.has_news(topic);
    }

    /// It has a topic no longer; whether it had.
    pub fn leave(&mut self, topic: u32) -> bool {
        let held = self.topics.remove(&topic);
        if held.as_ref().is_some_and(|held| held.has_news) {
            self.news.retain(|other| *other != topic);
        }
        held.is_some()
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
        self.topics.get_mut(&topic).map(|held| (held.pages, held.is_confirmed) = (pages, true)).is_some()
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
            let next = topics.get(&number).and_then(|topic| topic.take(&mut held.cursors));
            held.has_news = next.is_some();
            if let Some(publication) = next {
                self.news.push_back(number);
                return Some(Arc::clone(publication.frame()));
            }
        }
        None
    }
}
