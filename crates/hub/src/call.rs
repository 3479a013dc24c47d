//! What the API asks of the hub, and what it answers.

use std::sync::Arc;

use wire::Track;

use super::{
    Name,
    engine::{Append, Attached, Entry, Lease, LinkHash, Refusal, StreamId},
};

/// Identifies a call of the API; chosen by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiId(pub u64);

/// A call of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Publish. Answered by `Published`.
    Publish {
        /// The topic, opened if there is none.
        topic: Name,
        /// What.
        append: Append,
    },
    /// Begin a stream of a media track, or keep its lease. Answered by `Done`, by `Revoked` if its
    /// token was, and by `Refused` if another stream has the track.
    Lease {
        /// The topic, opened if there is none.
        topic: Name,
        /// Audio or video.
        track: Track,
        /// The stream and its owner.
        lease: Lease,
        /// It begins: it may take the track over from another of its owner.
        begins: bool,
        /// The hash of the token by which it came, if it was one.
        token: Option<LinkHash>,
    },
    /// End a stream, of one track. Answered by `Done`.
    Release {
        /// The topic.
        topic: Name,
        /// Audio or video.
        track: Track,
        /// The stream.
        stream: StreamId,
    },
    /// Take a message down: late pages don't get it, and a message tells the others to hide it.
    /// Answered by `Published`, with that message's place; by `Done` where the topic has ended, so
    /// that nobody is told.
    Remove {
        /// The topic.
        topic: Name,
        /// The message's sequence.
        sequence: u64,
    },
    /// What a topic is. Answered by `Topic`.
    Topic {
        /// The topic.
        topic: Name,
    },
    /// The messages that are kept, from a sequence on. Answered by `Messages`.
    Messages {
        /// The topic.
        topic: Name,
        /// The lowest sequence.
        from: u64,
        /// At most this many.
        count_max: usize,
    },
    /// The topics by name. Answered by `Topics`.
    Topics {
        /// After this name.
        after: String,
        /// Below this prefix.
        prefix: String,
        /// At most this many.
        count_max: usize,
    },
    /// End a topic. Answered by `Done`.
    End {
        /// The topic.
        topic: Name,
        /// For its viewers.
        reason: Arc<str>,
    },
    /// Open a topic again. Answered by `Done`.
    Open {
        /// The topic.
        topic: Name,
    },
    /// Revoke a link. Answered by `Done`.
    Revoke {
        /// The link.
        link: String,
        /// For its viewers.
        reason: Arc<str>,
        /// How long new pages must be kept out, in seconds: until the link's own end.
        ttl_s: u64,
    },
    /// Close a page. Answered by `Done`, or `Missing` if there is no such connection.
    Kick {
        /// The relay's name.
        relay: String,
        /// The connection's number.
        connection: u64,
        /// The page's number on it.
        page: u32,
        /// For the viewer.
        reason: Arc<str>,
    },
    /// Who is connected. Answered by `Fleet`.
    Fleet,
}

/// The answer to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Where it was published.
    Published {
        /// The topic's epoch.
        epoch: u64,
        /// The sequence on its track.
        sequence: u64,
        /// It had been published before: under the same key, or for the same message.
        is_repeated: bool,
    },
    /// It is done.
    Done,
    /// The topic.
    Topic(Box<TopicView>),
    /// Messages.
    Messages {
        /// The topic's epoch.
        epoch: u64,
        /// Oldest first.
        entries: Vec<Entry>,
    },
    /// Names in order, each with whether it has ended.
    Topics(Vec<(Name, bool)>),
    /// Who is connected.
    Fleet(FleetView),
    /// There is no such topic, message or connection.
    Missing,
    /// It was refused; nothing changed.
    Refused(Refusal),
    /// The token was revoked, with this reason.
    Revoked(Arc<str>),
    /// Too many calls wait: come back.
    Busy,
    /// The engine can't be reached: come back. Whether it was done is not known.
    Unavailable,
}

/// A topic as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicView {
    /// As the engine has it.
    pub attached: Attached,
    /// Its newest state.
    pub state: Option<Entry>,
    /// Pages by relay.
    pub audience: Vec<(String, u32)>,
}

/// The fleet as this hub sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetView {
    /// The relays that are connected.
    pub relays: Vec<RelayView>,
    /// Topics that are followed.
    pub topics: usize,
    /// Whether the engine answers.
    pub engine_up: bool,
}

/// A relay as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayView {
    /// Its name.
    pub name: String,
    /// The connection's number.
    pub connection: u64,
    /// How long it is connected, in seconds.
    pub up_s: u64,
    /// Pages, over all topics: one with two topics counts twice.
    pub pages: u64,
    /// Topics.
    pub topics: usize,
}
