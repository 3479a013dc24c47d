//! What the machine has to report: to the log, and one day to the console.
//!
//! A bounded ring that the daemon drains after each step; what finds no room is counted. The
//! machine itself writes no log. No event holds a whole link.

use core::fmt;

use heapless::Deque;

use super::topic::DropReason;
use board::size_text;
use wire::Track;

/// Events that one step may report.
const EVENTS_MAX: usize = 32;

/// Something worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A publication was not used.
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
        /// Pages that it had.
        pages: u32,
    },
    /// A topic was accepted for which there is no row.
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
        /// How many.
        pages: u32,
        /// Bytes that it held for all of them.
        held: u64,
    },
    /// The handshake is done.
    UplinkUp,
}

impl Event {
    /// Whether an operator should look.
    #[must_use]
    pub const fn is_warning(&self) -> bool {
        match self {
            Self::Dropped { why, .. } => !matches!(why, DropReason::Superfluous | DropReason::Undecodable),
            Self::TopicsFull { .. } | Self::Unanswered { .. } | Self::KernelFull { .. } => true,
            Self::Epoch { .. } | Self::Ended { .. } | Self::UplinkUp => false,
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
            Self::Ended { topic, pages } => write!(f, "topic {topic} has ended; pages told: {pages}"),
            Self::TopicsFull { topic } => {
                write!(f, "no room for topic {topic}: its pages are told to come back (limit: topics)")
            }
            Self::Unanswered { request } => {
                write!(f, "the business server did not answer subscribe request {request} within 10 s")
            }
            Self::KernelFull { pages, held } => {
                let held = size_text(*held);
                write!(f, "{held} wait in the kernel for pages: the {pages} slowest were closed (limit: kernel_size)")
            }
            Self::UplinkUp => f.write_str("the business server is connected"),
        }
    }
}

/// The ring of events of the steps since it was last drained.
#[derive(Debug, Default)]
pub struct Events {
    ring: Deque<Event, EVENTS_MAX>,
    lost: u64,
}

impl Events {
    /// Adds an event, or counts it as lost.
    pub fn add(&mut self, event: Event) {
        self.lost += u64::from(self.ring.push_back(event).is_err());
    }

    /// The oldest event.
    pub fn poll(&mut self) -> Option<Event> {
        self.ring.pop_front()
    }

    /// Events that found no room.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }
}
