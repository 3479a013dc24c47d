//! Calls that wait for their turn: first those for links that were good before; then the relays
//! take turns, so that one that asks for links without end doesn't make the viewers of the others
//! wait.
//!
//! Owns the order alone: of one relay, first come, first served. Doesn't know whether a call is
//! still wanted; what is not wanted any more costs its relay no turn.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
};

use business::RelayId;

/// Identifies a call of the webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuestionId(pub(super) u64);

/// Calls that wait.
#[derive(Debug)]
pub(super) struct Turns {
    renewals: VecDeque<QuestionId>,
    /// Those for other links, by the relay that asked first.
    queues: BTreeMap<RelayId, VecDeque<QuestionId>>,
    /// Whose turn it was last.
    last: Option<RelayId>,
}

impl Turns {
    pub const fn new() -> Self {
        Self { renewals: VecDeque::new(), queues: BTreeMap::new(), last: None }
    }

    pub fn is_empty(&self) -> bool {
        self.renewals.is_empty() && self.queues.is_empty()
    }

    /// Without a relay it is a renewal.
    pub fn push(&mut self, relay: Option<RelayId>, id: QuestionId) {
        let queue = relay.map_or(&mut self.renewals, |relay| self.queues.entry(relay).or_default());
        queue.push_back(id);
    }

    /// The next call: a renewal, or one of the relay whose turn it is.
    pub fn pop(&mut self) -> Option<(Option<RelayId>, QuestionId)> {
        if let Some(id) = self.renewals.pop_front() {
            return Some((None, id));
        }
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let mut next = self.queues.range((after, Bound::Unbounded)).chain(&self.queues);
        let relay = next.next().map(|(relay, _)| *relay)?;
        let queue = self.queues.get_mut(&relay)?;
        let id = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&relay);
        }
        id.map(|id| (Some(relay), id))
    }

    /// A call is made: after one of a relay, the next relay has its turn.
    pub fn made(&mut self, relay: Option<RelayId>) {
        self.last = relay.or(self.last);
    }
}
