//! What the hub counts.

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests of relays.
    pub asked: u64,
    /// Accepted.
    pub accepted: u64,
    /// Denied.
    pub denied: u64,
    /// Left unanswered, because something was full or had no answer.
    pub unanswered: u64,
    /// Calls of the webhook `subscribe`.
    pub subscribes: u64,
    /// Those without an answer.
    pub subscribes_failed: u64,
    /// Publications of this hub's API.
    pub published: u64,
    /// Publications that were read from the engine.
    pub read: u64,
    /// Page messages.
    pub page_messages: u64,
    /// Requests to the engine that it could not answer.
    pub engine_failures: u64,
    /// Topics refused since another one has their number.
    pub collisions: u64,
    /// Publications that found no room in the rings for relays.
    pub unkept: u64,
    /// Epochs that ended under a hub, because the engine had lost the topic.
    pub epochs_lost: u64,
}
