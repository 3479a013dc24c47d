//! The limits of the engine `memory`.

use core::time::Duration;

/// What the engine holds at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Topics.
    pub topics_max: usize,
    /// All topics together, in bytes.
    pub size_max: usize,
    /// Messages of a topic.
    pub messages_max: usize,
    /// Their size, in bytes.
    pub messages_size_max: usize,
    /// A media track's running group with the one before it, in bytes.
    pub media_size_max: usize,
    /// Idempotency keys of all topics.
    pub keys_max: usize,
    /// Revocations.
    pub revocations_max: usize,
    /// A topic is forgotten after this time without a publication and without a hub that follows
    /// it.
    pub history_ttl: Duration,
    /// The media of a track are forgotten after this time without a chunk.
    pub media_ttl: Duration,
    /// An idempotency key is forgotten after this time.
    pub key_ttl: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            topics_max: 10_000,
            size_max: 256 << 20,
            messages_max: 1024,
            messages_size_max: 256 << 10,
            media_size_max: 4 << 20,
            keys_max: 100_000,
            revocations_max: 10_000,
            history_ttl: Duration::from_secs(24 * 3600),
            media_ttl: Duration::from_secs(180),
            key_ttl: Duration::from_secs(300),
        }
    }
}
