//! What the log should say.

use core::fmt;

use business::{Ended, RelayId};

use super::Name;

/// A line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A relay is connected.
    RelayUp {
        /// Its connection.
        relay: RelayId,
        /// Its name.
        name: String,
        /// Another connection has the same name.
        is_double: bool,
    },
    /// A connection has ended.
    RelayDown {
        /// The connection.
        relay: RelayId,
        /// The relay's name; empty if it never authenticated.
        name: String,
        /// Why.
        why: Ended,
    },
    /// Two topics have the same number, and relays want both.
    Collision {
        /// The number.
        number: u32,
        /// The topic that has it.
        shown: Name,
        /// The topic that is refused.
        refused: Name,
    },
    /// Another process of the engine numbers now.
    Reign,
    /// The engine had lost a topic, which began a new epoch.
    EpochLost {
        /// The topic.
        topic: Name,
    },
    /// There is no room for publications in the relays' rings.
    RingsFull,
    /// The engine has no room for revocations that it had lost.
    RevocationsFull,
    /// There was too much to note.
    LeftOut {
        /// So many lines, within a second.
        count: u64,
    },
    /// There is no room for a topic.
    TooManyTopics {
        /// The topic.
        topic: Name,
    },
}

impl Note {
    /// Whether somebody should do something about it.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        match self {
            Self::RelayUp { is_double, .. } => *is_double,
            Self::RelayDown { name, .. } => name.is_empty(),
            Self::Collision { .. }
            | Self::Reign
            | Self::EpochLost { .. }
            | Self::RingsFull
            | Self::RevocationsFull
            | Self::LeftOut { .. }
            | Self::TooManyTopics { .. } => true,
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RelayUp { relay, name, is_double: false } => write!(f, "relay {name:?} is connected ({relay})"),
            Self::RelayUp { relay, name, is_double: true } => {
                write!(f, "relay {name:?} is connected ({relay}), and so is another of that name: give each its own")
            }
            Self::RelayDown { name, why, .. } if name.is_empty() => write!(f, "refused a connection of a relay: {why}"),
            Self::RelayDown { relay, name, why } => write!(f, "relay {name:?} is gone ({relay}): {why}"),
            Self::Collision { number, shown, refused } => write!(
                f,
                "the topics {shown} and {refused} have the same number, {number}, and relays want both: {refused} is refused; give it another name"
            ),
            Self::Reign => f.write_str("the engine began a new reign: publications may be missing, and pages are told"),
            Self::RingsFull => {
                f.write_str("the rings for relays are full, and publications are left out: raise [limits] rings_mib")
            }
            Self::RevocationsFull => f.write_str(
                "the engine has lost revocations and has no room to take them back, so nobody is admitted: raise [limits] revocations and restart",
            ),
            Self::EpochLost { topic } => {
                write!(f, "the engine had lost the topic {topic}: it began a new epoch, and its relays were sent away")
            }
            Self::LeftOut { count } => write!(f, "{count} more lines within a second were left out"),
            Self::TooManyTopics { topic } => {
                write!(f, "too many topics are watched at once: {topic} waits; raise [limits] watched_topics")
            }
        }
    }
}
