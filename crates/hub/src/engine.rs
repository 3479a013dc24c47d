//! What the hub asks of an engine, and what the engine answers.
//!
//! An engine holds the topics: it numbers what is published, keeps it for late relays, and rings a
//! doorbell. The hub asks by a [`Request`], gets one [`Reply`] at some later time, and never waits:
//! an engine may be this process ([`Memory`](super::Memory)) or a server behind a network. A
//! doorbell may be late, doubled or lost: [`Request::Position`] says what is true.
//!
//! *Reign*: the time in which one process numbers. A new one starts far above the numbers of the
//! one before, in the same epoch, so that no (epoch, track, sequence) ever names two contents.

use core::time::Duration;
use std::sync::Arc;

use wire::Track;

use super::Name;

/// The number of partitions: position counters.
pub const PARTITIONS: usize = 256;

/// What kind of publication it is: `wire::uplink::Part`, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Of state and messages: a value complete in itself.
    Whole,
    /// Of media: the init segment.
    Init {
        /// Its MIME type, at most 255 bytes.
        mime: Arc<str>,
    },
    /// Of media: the first chunk of a group.
    Start,
    /// Of media: a further chunk.
    Continue,
}

impl Part {
    /// As the uplink has it.
    #[must_use]
    pub fn on_the_uplink(&self) -> wire::uplink::Part<'_> {
        match self {
            Self::Whole => wire::uplink::Part::Whole,
            Self::Init { mime } => wire::uplink::Part::Init { mime },
            Self::Start => wire::uplink::Part::Start,
            Self::Continue => wire::uplink::Part::Continue,
        }
    }
}

/// One publication of a track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its sequence.
    pub sequence: u64,
    /// Its kind.
    pub part: Part,
    /// The bytes for pages.
    pub data: Arc<[u8]>,
}

/// A key under which a publication may be sent again without being published twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The caller's own text, at most [`KEY_SIZE_MAX`] bytes.
    pub text: Arc<str>,
    /// A hash of what is published: another content under the same key is refused.
    pub content: [u8; 32],
}

/// The maximum size of an idempotency key, in bytes.
pub const KEY_SIZE_MAX: usize = 128;

/// One publication to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The track.
    pub track: Track,
    /// Its kind.
    pub part: Part,
    /// The bytes for pages. On state and messages one JSON value.
    pub data: Arc<[u8]>,
    /// The idempotency key, if there is one.
    pub key: Option<Key>,
    /// Of state alone: published only if this is the newest one's sequence (0: if there is none).
    pub replaces: Option<u64>,
    /// Of media alone: the stream that it is of. Refused if another one has the track's lease.
    pub stream: Option<StreamId>,
}

/// Identifies one stream of media: an HTTP request or a WebSocket. Random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// Who wants to publish a media track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The stream.
    pub stream: StreamId,
    /// A hash of the key or token by which it came: another stream of the same one takes the track
    /// over where the first has published nothing for [`LEASE_QUIET`].
    pub owner: [u8; 32],
}

/// A lease ends after this time without a publication and without being asked for again.
pub const LEASE_TIME: Duration = Duration::from_secs(5);
/// A stream that has published nothing for this time gives way to another of its owner.
pub const LEASE_QUIET: Duration = Duration::from_secs(1);

/// Something that the hub asks of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Number it and keep it. Opens a topic that doesn't exist. Answered by [`Reply::Appended`].
    Append {
        /// The topic.
        topic: Name,
        /// What is published.
        append: Append,
        /// By track, the highest sequence that the hub has seen in this topic's epoch, or 0.
        seen: Seen,
    },
    /// What the topic is now. Opens one that doesn't exist. Answered by [`Reply::Attached`].
    Attach {
        /// The topic.
        topic: Name,
        /// As of `Append`.
        seen: Seen,
    },
    /// What the topic is, if it exists. Answered by [`Reply::Attached`].
    Look {
        /// The topic.
        topic: Name,
    },
    /// What is kept of a track from a sequence on: at most `count_max` entries, oldest first.
    /// Answered by [`Reply::Entries`].
    Read {
        /// The topic.
        topic: Name,
        /// The track.
        track: Track,
        /// The lowest sequence wanted.
        from: u64,
        /// The most entries wanted.
        count_max: usize,
    },
    /// Take a message down: what is kept becomes a tombstone under the same number. Answered by
    /// [`Reply::Done`]. Where it was taken down before, and the message that said so is kept, by
    /// [`Reply::Appended`] with that one's place.
    Remove {
        /// The topic.
        topic: Name,
        /// The message.
        sequence: u64,
        /// What is kept in its place.
        tombstone: Arc<[u8]>,
    },
    /// Take a media track for one stream, or keep it. Opens a topic that doesn't exist. Answered by
    /// [`Reply::Done`].
    Lease {
        /// The topic.
        topic: Name,
        /// Audio or video.
        track: Track,
        /// By whom.
        lease: Lease,
        /// The stream begins: it may take the track over from another of its owner.
        begins: bool,
    },
    /// Give a media track back, if this stream has it. Answered by [`Reply::Done`].
    Release {
        /// The topic.
        topic: Name,
        /// Audio or video.
        track: Track,
        /// By whom.
        stream: StreamId,
    },
    /// End a topic: it takes no publications until it is opened. Answered by [`Reply::Done`].
    End {
        /// The topic.
        topic: Name,
        /// For its viewers.
        reason: Arc<str>,
    },
    /// Open an ended topic again, in its epoch; open one that doesn't exist. Answered by
    /// [`Reply::Done`].
    Open {
        /// The topic.
        topic: Name,
    },
    /// Topics by name, after this one. Answered by [`Reply::Topics`].
    List {
        /// The name after which the list begins; empty: from the first.
        after: String,
        /// Only names below this prefix.
        prefix: String,
        /// The most names wanted.
        count_max: usize,
    },
    /// Which reign it is, and how many changes each partition has had in it. Answered by
    /// [`Reply::Position`].
    Position,
    /// Keep a revocation for all hubs, those to come included. Answered by [`Reply::Done`].
    Revoke {
        /// The link's hash.
        link: LinkHash,
        /// For its viewers.
        reason: Arc<str>,
        /// How long it has to be kept, in seconds.
        ttl_s: u64,
    },
    /// The revocations that are in force. Answered by [`Reply::Revocations`].
    Revocations,
}

/// SHA-256 of a share link: the engine holds no links.
pub type LinkHash = [u8; 32];

/// By track, the highest sequence that was seen, with the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The epoch; 0: none.
    pub epoch: u64,
    /// By track; 0: none.
    pub highest: [u64; 4],
}

/// A topic as the engine has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Its epoch.
    pub epoch: u64,
    /// By track, the sequence of the next publication.
    pub next: [u64; 4],
    /// By track, where a late relay begins to read: the oldest message kept, the newest state, the
    /// running group's start. The same as `next` where there is nothing.
    pub first: [u64; 4],
    /// Of audio and video: the init segment.
    pub init: [Option<Entry>; 2],
    /// Of audio and video: whether a stream has the track.
    pub is_live: [bool; 2],
    /// It has ended, with this reason.
    pub ended: Option<Arc<str>>,
}

/// How far an engine is. Two positions of one reign tell which topics changed in between; after
/// another reign began, all may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The reign.
    pub reign: u64,
    /// By partition, the number of changes.
    pub counts: Box<[u64; PARTITIONS]>,
}

/// What the engine answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The publication's place.
    Appended {
        /// The topic's epoch.
        epoch: u64,
        /// Its sequence.
        sequence: u64,
        /// It was published before under the same key.
        is_repeated: bool,
    },
    /// The topic; `None` to [`Request::Look`] if there is none.
    Attached(Option<Attached>),
    /// The entries, and the epoch that they are of.
    Entries {
        /// The topic's epoch.
        epoch: u64,
        /// Oldest first.
        entries: Vec<Entry>,
    },
    /// It is done.
    Done,
    /// Names in order, each with whether it has ended.
    Topics(Vec<(Name, bool)>),
    /// How far the engine is.
    Position(Position),
    /// Each with its reason and the seconds for which it is still kept.
    Revocations(Vec<(LinkHash, Arc<str>, u64)>),
    /// It was refused; nothing changed.
    Refused(Refusal),
    /// The engine can't be reached, or did not answer. Whether it did what was asked is not known.
    Unavailable,
}

/// Why the engine refused. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such topic, or no such message.
    Missing,
    /// The topic has ended, with this reason.
    Ended(Arc<str>),
    /// Another stream publishes this track.
    Leased,
    /// The key was used for another content.
    KeyReused,
    /// The state is another one: its sequence, 0 if there is none.
    Replaced(u64),
    /// The publication is wrong in itself.
    Publication(business::PublishError),
    /// There is no room: what is full.
    Full(Room),
}

/// What can be full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// The number of topics.
    Topics,
    /// The bytes of all topics together.
    Memory,
    /// The number of idempotency keys.
    Keys,
    /// The number of revocations.
    Revocations,
    /// The bytes of this hub's rings for relays.
    Rings,
}

/// Something was published: the engine's sign to the hubs that follow the topic. It may be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doorbell {
    /// The topic.
    pub topic: Name,
    /// What happened.
    pub what: Bell,
}

/// What a doorbell says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bell {
    /// In this epoch, a publication of this track has this sequence.
    Published(u64, Track, u64),
    /// A message was taken down.
    Removed(u64),
    /// The topic has ended, or was opened again.
    Changed,
}
