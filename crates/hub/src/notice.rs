//! What the hub tells the company's API without being asked: webhooks that need no answer.
//!
//! Owns the queue. It is bounded: what doesn't fit is dropped and counted, page messages first, so
//! that a flood of them can't hide that a topic has an audience.

use std::collections::VecDeque;

use wire::{Track, page::MessageId, uplink::Author};

use super::Name;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A page sent a message.
    PageMessage {
        /// The topic.
        topic: Name,
        /// The relay's name.
        relay: String,
        /// The relay's connection.
        connection: u64,
        /// The page's number on it.
        page: u32,
        /// What it sent: at most 512 bytes, untrusted.
        data: String,
        /// The page as an author.
        author: Author,
        /// If the page wants to know that it was received: see
        /// [`confirm`](super::Hub::confirm).
        id: Option<MessageId>,
    },
    /// The first page came.
    Occupied {
        /// The topic.
        topic: Name,
    },
    /// The last page is gone.
    Vacated {
        /// The topic.
        topic: Name,
    },
    /// The number of pages changed; told from time to time.
    Audience {
        /// The topic.
        topic: Name,
        /// Pages, over all relays.
        pages: u64,
    },
    /// A stream of picture or sound began.
    StreamStarted {
        /// The topic.
        topic: Name,
        /// Audio or video.
        track: Track,
    },
    /// It has ended.
    StreamEnded {
        /// The topic.
        topic: Name,
        /// Audio or video.
        track: Track,
    },
}

/// Notices that wait to be sent.
#[derive(Debug)]
pub(crate) struct Notices {
    count_max: usize,
    queue: VecDeque<Notice>,
    /// Those that were dropped.
    pub dropped: u64,
}

impl Notices {
    pub const fn new(count_max: usize) -> Self {
        Self { count_max, queue: VecDeque::new(), dropped: 0 }
    }

    /// Adds one, or gives it back where there is no room.
    pub fn push(&mut self, notice: Notice) -> Result<(), Notice> {
        let count_max = if matches!(notice, Notice::PageMessage { .. }) { self.count_max / 2 } else { self.count_max };
        if self.queue.len() < count_max {
            self.queue.push_back(notice);
            Ok(())
        } else {
            self.dropped += 1;
            Err(notice)
        }
    }

    pub fn pop(&mut self) -> Option<Notice> {
        self.queue.pop_front()
    }
}
