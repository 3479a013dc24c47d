//! The events that the machine reports to its caller, and the names in them.

use std::fmt;

use wire::{
    page::MessageId,
    uplink::{Author, Since},
};

use super::Ended;

/// Identifies a connection of a relay. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayId(pub(crate) u64);

impl RelayId {
    /// Its number: 1 for the first connection.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for RelayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An event of a relay or its pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A relay has authenticated.
    RelayUp {
        /// Its connection.
        relay: RelayId,
        /// Its name.
        name: String,
        /// The place of its secret in [`Settings::secrets`](super::Settings::secrets).
        secret: usize,
    },
    /// A relay's connection has ended.
    RelayDown {
        /// Its connection.
        relay: RelayId,
        /// Its name; empty if it never authenticated. If it was refused as one too many, there was
        /// no `RelayUp`.
        name: String,
        /// Why.
        why: Ended,
    },
    /// A relay requests a link. Answer with [`accept`](super::Business::accept) or
    /// [`deny`](super::Business::deny), now or later. The relay's timeout is 10 s.
    Asked {
        /// The relay's connection.
        relay: RelayId,
        /// The number of the request.
        request: u32,
        /// The link.
        link: String,
        /// What the relay already has; must be passed to `accept`.
        since: Option<Since>,
        /// The page's address; empty if the link is requested as a whole.
        address: String,
        /// The page's `Origin`, if it has one.
        origin: String,
    },
    /// The current number of pages of a topic, over all relays. Intermediate changes are not
    /// reported.
    Audience {
        /// The topic.
        topic: u32,
        /// Pages.
        pages: u64,
    },
    /// A relay dropped a topic.
    Unsubscribed {
        /// Its connection.
        relay: RelayId,
        /// The topic.
        topic: u32,
    },
    /// A page sent a message.
    PageMessage {
        /// The topic.
        topic: u32,
        /// The relay's connection.
        relay: RelayId,
        /// The page's number on that connection.
        page: u32,
        /// The message: at most 512 bytes, untrusted.
        data: String,
        /// The page as an author, which it knows of itself: different on each connection of the
        /// relay.
        author: Author,
        /// If the page wants to know that the message was received: see
        /// [`confirm`](super::Business::confirm).
        id: Option<MessageId>,
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
    /// It has ended, with this reason.
    Ended(String),
}
