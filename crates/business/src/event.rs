//! What the machine tells its caller, and by which names.

use std::fmt;

use wire::uplink::Since;

use super::Ended;

/// A connection of a relay; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayId(pub(crate) u64);

impl fmt::Display for RelayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What relays and their pages did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A relay proved itself.
    RelayUp {
        /// Its connection.
        relay: RelayId,
        /// The name that it gave.
        name: String,
    },
    /// A relay's connection ended.
    RelayDown {
        /// Its connection.
        relay: RelayId,
        /// The name that it gave; empty where it never proved itself. There was no `RelayUp` where it was one too many.
        name: String,
        /// Why.
        why: Ended,
    },
    /// A relay asks for a link. Answer by [`accept`](super::Business::accept) or [`deny`](super::Business::deny), now or later.
    /// A request that is not answered within 10 s is given up by the relay.
    Asked {
        /// Who asks.
        relay: RelayId,
        /// The number to answer it by.
        request: u32,
        /// The link.
        link: String,
        /// What the relay has already; to be handed to `accept`.
        since: Option<Since>,
        /// The page's address; empty where the link is asked for as a whole.
        address: String,
        /// The page's `Origin`, where it has one.
        origin: String,
    },
    /// The number of pages that a topic has now, over all relays. Changes in between are not reported.
    Audience {
        /// The topic.
        topic: u32,
        /// Pages.
        pages: u64,
    },
    /// A relay gave a topic up.
    Unsubscribed {
        /// Its connection.
        relay: RelayId,
        /// The topic.
        topic: u32,
    },
    /// A page sent something.
    PageMessage {
        /// The topic.
        topic: u32,
        /// The relay's connection.
        relay: RelayId,
        /// The page's number on that connection.
        page: u32,
        /// What it sent: at most 512 bytes that anybody may have written.
        data: String,
    },
    /// A relay answered a [`ping`](super::Business::ping), or the machine's own.
    Pong {
        /// Its connection.
        relay: RelayId,
        /// The ping's.
        nonce: u32,
    },
}

/// Why a topic can't be subscribed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotOpen {
    /// There is no such topic, or it ended long ago.
    Unknown,
    /// It has ended, and why.
    Ended(String),
}
