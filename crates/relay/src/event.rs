//! The machine's events, for the daemon's log.
//!
//! A bounded ring that the daemon drains after each step; events that don't fit are dropped and
//! counted. The machine itself writes no log. No event contains a whole link.

use core::fmt;

use heapless::Deque;

use super::topic::DropReason;
use board::size_text;
use wire::Track;

/// The most events between two drains of the ring.
const EVENTS_MAX: usize = 32;

/// An event, one line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A publication was dropped.
    Dropped {
        /// The business server's number.
        topic: u32,
        /// The track.
        track: Track,
        /// The publication's sequence.
        sequence: u64,
        /// Why.
        why: DropReason,
    },
    /// A topic has a new epoch.
    Epoch {
        /// The business server's number.
        topic: u32,
        /// The new epoch.
        epoch: u64,
    },
    /// A topic was ended, by the business server or at the console.
    Ended {
        /// The business server's number.
        topic: u32,
        /// How many pages were subscribed to it.
        pages: u32,
    },
    /// A topic was accepted, but the table of topics is full.
    TopicsFull {
        /// The business server's number.
        topic: u32,
    },
    /// The business server didn't answer a `Subscribe` in time.
    Unanswered {
        /// The request's number.
        request: u32,
    },
    /// The kernel held more for the pages than the board allows: the slowest were closed.
    KernelFull {
        /// How many were closed.
        pages: u32,
        /// Bytes that it held for all pages before that.
        held: u64,
    },
    /// The handshake with the business server is complete.
    UplinkUp,
    /// The business server asked the relay to connect elsewhere.
    UplinkAway {
        /// Within this time, in seconds.
        within_s: u32,
    },
}

impl Event {
    /// Whether the event is logged as a warning.
    #[must_use]
    pub const fn is_warning(&self) -> bool {
        match self {
            Self::Dropped { why, .. } => !matches!(why, DropReason::Superfluous | DropReason::Undecodable),
            Self::TopicsFull { .. } | Self::Unanswered { .. } | Self::KernelFull { .. } => true,
            Self::Epoch { .. } | Self::Ended { .. } | Self::UplinkUp | Self::UplinkAway { .. } => false,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dropped { topic, track, sequence, why } => {
                write!(f, "publication {sequence} on {} of topic {topic} was dropped: ", track.name())?;
                match why {
                    DropReason::Superfluous => f.write_str("it was published before"),
                    DropReason::NotJson => f.write_str("its data is not one JSON value in UTF-8"),
                    DropReason::TooLarge { size, max } => {
                        write!(f, "its data has {size} bytes, this board allows {max}")
                    }
                    DropReason::MimeTooLong(size) => write!(f, "its MIME type has {size} bytes, 255 are allowed"),
                    DropReason::Undecodable => f.write_str("its group's start or init segment is missing"),
                    DropReason::Full => f.write_str("the arena is full"),
                }
            }
            Self::Epoch { topic, epoch } => write!(f, "topic {topic} begins epoch {epoch}"),
            Self::Ended { topic, pages } => write!(f, "topic {topic} has ended; pages notified: {pages}"),
            Self::TopicsFull { topic } => {
                write!(f, "no room for topic {topic}: its pages are denied with a retry (limit: topics)")
            }
            Self::Unanswered { request } => {
                write!(f, "the business server did not answer subscribe request {request} within 10 s")
            }
            Self::KernelFull { pages, held } => {
                let held = size_text(*held);
                write!(f, "{held} wait in the kernel for pages: the {pages} slowest were closed (limit: kernel_size)")
            }
            Self::UplinkUp => f.write_str("the business server is connected"),
            Self::UplinkAway { within_s } => {
                write!(f, "the business server ends within {within_s} s: another one is looked for")
            }
        }
    }
}

/// The ring of events since it was last drained.
#[derive(Debug, Default)]
pub struct Events {
    ring: Deque<Event, EVENTS_MAX>,
    lost: u64,
}

impl Events {
    /// Adds an event; if the ring is full, drops and counts it.
    pub fn add(&mut self, event: Event) {
        self.lost += u64::from(self.ring.push_back(event).is_err());
    }

    /// Removes and returns the oldest event.
    pub fn poll(&mut self) -> Option<Event> {
        self.ring.pop_front()
    }

    /// How many events were dropped because the ring was full.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }
}
