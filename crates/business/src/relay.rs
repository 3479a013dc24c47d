//! One relay: its session, and its cursors in each topic that it was admitted to.
//!
//! Owns the relay's topics, and the queue of those with pending publications, which are served
//! round-robin. Doesn't know other relays.

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

/// The maximum number of unanswered requests of a relay, each with its link: far more than it
/// remembers. With more, the oldest is dropped, whose answer the relay would ignore.
pub const REQUESTS_MAX: usize = 4096;

/// A connected relay.
#[derive(Debug)]
pub(crate) struct Relay {
    /// Its name.
    pub name: String,
    pub session: Session,
    /// It has authenticated, and is counted.
    pub is_counted: bool,
    /// In the machine's list of relays that have something to be written.
    pub is_ready: bool,
    /// Unanswered requests: number and link.
    requests: VecDeque<(u32, String)>,
    topics: BTreeMap<u32, Held>,
    /// Topics that may have pending publications.
    pending: VecDeque<u32>,
}

/// A topic of one relay.
#[derive(Debug)]
struct Held {
    cursors: Cursors,
    pages: u32,
    /// The relay has confirmed since then that it has the topic. Before that, its `Unsubscribe` may
    /// have crossed the `Accept`; then it has dropped what it was sent.
    is_confirmed: bool,
    /// In the queue of topics with pending publications.
    is_pending: bool,
}

impl Relay {
    /// A newly connected relay.
    pub fn new(session: Session) -> Self {
        Self {
            name: String::new(),
            session,
            is_counted: false,
            is_ready: false,
            requests: VecDeque::new(),
            topics: BTreeMap::new(),
            pending: VecDeque::new(),
        }
    }

    /// Records a request for a link.
    pub fn add_request(&mut self, request: u32, link: &str) {
        if self.requests.len() >= REQUESTS_MAX {
            self.requests.pop_front();
        }
        self.requests.push_back((request, link.to_owned()));
    }

    /// Removes a request that is being answered. Returns whether it was open.
    pub fn take_request(&mut self, request: u32) -> bool {
        let place = self.requests.iter().position(|(open, _)| *open == request);
        place.and_then(|place| self.requests.remove(place)).is_some()
    }

    /// Removes an open request for a link, which is being answered.
    pub fn take_request_for(&mut self, link: &str) -> Option<u32> {
        let place = self.requests.iter().position(|(_, asked)| asked == link)?;
        self.requests.remove(place).map(|(request, _)| request)
    }

    /// Admits it to a topic, at the requested cursors. If it has confirmed that it has the topic,
    /// its cursors stay: it would drop earlier publications as superfluous. Returns whether it did
    /// not have the topic.
    pub fn admit(&mut self, topic: u32, requested: Cursors) -> bool {
        let is_new = !self.has(topic);
        let fresh = Held { cursors: requested, pages: 0, is_confirmed: false, is_pending: false };
        let held = self.topics.entry(topic).or_insert(fresh);
        if !held.is_confirmed {
            held.cursors = requested;
        }
        self.mark_pending(topic);
        is_new
    }

    /// Removes a topic. Returns its pages in it; `None` if the relay did not have it.
    pub fn leave(&mut self, topic: u32) -> Option<u32> {
        let held = self.topics.remove(&topic)?;
        if held.is_pending {
            self.pending.retain(|other| *other != topic);
        }
        Some(held.pages)
    }

    /// Whether it was admitted to a topic.
    pub fn has(&self, topic: u32) -> bool {
        self.topics.contains_key(&topic)
    }

    /// The topics that it was admitted to, with the number of its pages in each.
    pub fn topics(&self) -> impl Iterator<Item = (u32, u32)> {
        self.topics.iter().map(|(topic, held)| (*topic, held.pages))
    }

    /// The number of its pages in a topic.
    pub fn pages(&self, topic: u32) -> u32 {
        self.topics.get(&topic).map_or(0, |held| held.pages)
    }

    /// Sets the number of its pages in a topic. Returns the number before; `None` if it does not
    /// have the topic.
    pub fn set_pages(&mut self, topic: u32, pages: u32) -> Option<u32> {
        let held = self.topics.get_mut(&topic)?;
        held.is_confirmed = true;
        Some(core::mem::replace(&mut held.pages, pages))
    }

    /// Records that a topic may have pending publications. Returns whether it has the topic.
    pub fn mark_pending(&mut self, topic: u32) -> bool {
        let Some(held) = self.topics.get_mut(&topic) else { return false };
        if !held.is_pending {
            held.is_pending = true;
            self.pending.push_back(topic);
        }
        true
    }

    /// Takes the next frame to send: answers first, then a publication of the next topic.
    pub fn take(&mut self, topics: &Topics) -> Option<Arc<[u8]>> {
        if let Some(answer) = self.session.take() {
            return Some(answer);
        }
        while let Some(number) = self.pending.pop_front() {
            let Some(held) = self.topics.get_mut(&number) else { continue };
            let next = topics.get(&number).and_then(|topic| topic.take(&mut held.cursors));
            held.is_pending = next.is_some();
            if let Some(publication) = next {
                self.pending.push_back(number);
                return Some(Arc::clone(publication.frame()));
            }
        }
        None
    }
}
