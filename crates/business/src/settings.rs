//! The settings of a business server: secrets, limits and timeouts.

use core::fmt;
use core::time::Duration;

/// The limits of a business server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connected relays; more are refused.
    pub relays_max: usize,
    /// Connections that have not authenticated yet; with more, the oldest is closed.
    pub strangers_max: usize,
    /// Open topics.
    pub topics_max: usize,
    /// Messages that a topic keeps for returning and late relays.
    pub messages_max: usize,
    /// The size of these messages in bytes: their frames, and 64 for each.
    pub messages_size_max: usize,
    /// The size of what a media track keeps, its current group and the one before, in bytes: their
    /// frames, and 64 for each. Not included are the init segment and the newest state, at most 1
    /// MiB each.
    pub media_size_max: usize,
    /// The size of queued frames other than `Publish` for one relay, in bytes. A relay that reads
    /// more slowly is cut off. A caller that ends thousands of topics must let relays read in
    /// between.
    pub answers_size_max: usize,
    /// Pages' messages of the last 10 minutes that are known if they come again; with more, the
    /// oldest are forgotten. 0: no receipts are offered to relays.
    pub receipts_max: usize,
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
            receipts_max: 0,
        }
    }
}

/// The settings of a business server. Printed, they don't show the secrets.
#[derive(Clone)]
pub struct Settings {
    /// The secrets shared with the relays: a relay that has any of them may connect, and with none
    /// nobody may. Two while relays change from one to the next. One may only be empty if nobody
    /// else can reach the listener. The default is a single, empty one.
    pub secrets: Vec<Vec<u8>>,
    /// The limits.
    pub limits: Limits,
    /// The timeouts.
    pub times: Times,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { secrets, limits, times } = self;
        let mut settings = f.debug_struct("Settings");
        settings.field("secrets", &secrets.len()).field("limits", limits).field("times", times).finish()
    }
}

impl Default for Settings {
    fn default() -> Self {
        let times = Times {
            handshake: Duration::from_secs(5),
            ping_after: Duration::from_secs(10),
            dead_after: Duration::from_secs(30),
        };
        Self { secrets: vec![Vec::new()], limits: Limits::default(), times }
    }
}

/// The timeouts of a business server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Timeout of the handshake.
    pub handshake: Duration,
    /// A `Ping` is sent after this idle time.
    pub ping_after: Duration,
    /// A relay is dead after this time without a sign of life: a frame from it, or progress of its
    /// full socket.
    pub dead_after: Duration,
}
