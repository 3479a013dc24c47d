//! What a business server is started with: its secret, how much it holds, how long it waits.

use core::time::Duration;

/// How much a business server holds at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Relays that are connected at the same time; further ones are turned away.
    pub relays_max: usize,
    /// Connections that have not proved to be a relay yet; the oldest gives way to a further one.
    pub strangers_max: usize,
    /// Topics that are open.
    pub topics_max: usize,
    /// Messages that a topic keeps for relays that come back or come late.
    pub messages_max: usize,
    /// Bytes of their frames, and 64 for each.
    pub messages_size_max: usize,
    /// Bytes of frames, and 64 for each, that a media track keeps: its running group and the one before. Its init segment
    /// is kept besides, and so is the newest state: 1 MiB each at most.
    pub media_size_max: usize,
    /// Bytes of frames other than `Publish` that may wait for one relay. A relay that reads more slowly is cut off. A caller
    /// that ends thousands of topics must let relays read in between.
    pub answers_size_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            relays_max: 16,
            strangers_max: 16,
            topics_max: 10_000,
            messages_max: 500,
            messages_size_max: 256 * 1024,
            media_size_max: 4 * 1024 * 1024,
            answers_size_max: 1024 * 1024,
        }
    }
}

/// What a business server is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Shared with the relays. Empty only where nobody else reaches the listener.
    pub secret: Vec<u8>,
    /// How much it holds.
    pub limits: Limits,
    /// How long a relay may take.
    pub times: Times,
}

impl Default for Settings {
    fn default() -> Self {
        let times = Times {
            handshake: Duration::from_secs(5),
            ping_after: Duration::from_secs(10),
            dead_after: Duration::from_secs(30),
        };
        Self { secret: Vec::new(), limits: Limits::default(), times }
    }
}

/// How long a relay may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// It must have proved itself within this time.
    pub handshake: Duration,
    /// A `Ping` goes out after this time without a frame from it.
    pub ping_after: Duration,
    /// It is dead after this time without a sign of life: a frame, or that it took bytes which had waited for it.
    pub dead_after: Duration,
}
