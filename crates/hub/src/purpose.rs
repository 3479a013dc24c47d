//! What each request to the engine is for: how its answer is carried on when it comes.
//!
//! Owns nothing. A request and its answer are tied by a [`Ticket`], so that an answer which comes
//! late, after what it was for began anew, is known and dropped.

use std::sync::Arc;

use wire::Track;

use super::{
    Name,
    call::ApiId,
    engine::{Attached, LinkHash, Part, StreamId},
};

/// Identifies a request to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(crate) u64);

/// What a request to the engine is for.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// A topic as a whole, which is followed or is to be.
    Attach(Name),
    /// What a followed topic's track has.
    Read(Name, Track),
    /// A message that was taken down.
    Reread(Name),
    Position,
    Revocations,
    /// A revocation that the engine had lost.
    Restore,
    /// A call of the API.
    Api(ApiId, Step),
}

/// What a call waits for.
#[derive(Debug)]
pub(crate) enum Step {
    Publishing {
        topic: Name,
        track: Track,
        part: Part,
        data: Arc<[u8]>,
    },
    /// A stream begins, or goes on.
    Leasing {
        topic: Name,
        track: Track,
        stream: StreamId,
    },
    Releasing {
        topic: Name,
        track: Track,
        stream: StreamId,
    },
    /// A message was taken down, and pages are told.
    Announcing {
        topic: Name,
        data: Arc<[u8]>,
    },
    Removing {
        topic: Name,
        sequence: u64,
    },
    Looking {
        topic: Name,
    },
    ReadingState {
        topic: Name,
        attached: Attached,
    },
    ReadingMessages,
    Listing,
    /// With the reason; opening has none.
    Ending {
        topic: Name,
        reason: Option<Arc<str>>,
    },
    Revoking {
        link: String,
        hash: LinkHash,
        reason: Arc<str>,
        ttl_s: u64,
    },
}
