//! A topic's acceptance by the business server: on which connection, until when, and for how many
//! pages.
//!
//! Owns the times that follow from an `Accept` (when a replay is over, when a topic without pages
//! is forgotten) and whether an `Audience` is due. Each event that changes them is a verb here.
//! Doesn't know the connection itself, nor which pages a topic has.

use super::time::Instant;

/// The shortest time between two `Audience` frames of one topic.
const AUDIENCE_MS: u64 = 1_000;

/// A topic's acceptance by the business server.
#[derive(Debug)]
pub struct Acceptance {
    connection: u64,
    at: Instant,
    settled_from: Instant,
    replay_from: u64,
    forget_at: Instant,
    for_preview: bool,
    /// The audience changed since it was last sent.
    audience_changed: bool,
    audience_at: Instant,
}

impl Acceptance {
    /// A topic that has just been accepted and has no pages yet. It is forgotten at `forget_at`
    /// unless a page subscribes before.
    #[must_use]
    pub const fn new(now: Instant, connection: u64, forget_at: Instant, for_preview: bool) -> Self {
        Self {
            connection,
            at: now,
            settled_from: now,
            replay_from: 0,
            forget_at,
            for_preview,
            audience_changed: true,
            audience_at: Instant(0),
        }
    }

    /// The topic was accepted again. If that was on another connection, the business server replays
    /// what the relay missed.
    pub fn renew(&mut self, now: Instant, connection: u64) {
        if self.connection != connection {
            self.connection = connection;
            self.at = now;
            self.settled_from = now;
            // On this connection the relay asked for its own next sequences, not for those of
            // pages.
            self.replay_from = 0;
        }
        self.audience_changed = true;
    }

    /// Whether the topic was accepted on this connection.
    #[must_use]
    pub const fn is_on(&self, connection: u64) -> bool {
        self.connection == connection
    }

    /// Milliseconds since the topic was first accepted on its connection; the replay follows that.
    #[must_use]
    pub const fn age_ms(&self, now: Instant) -> u64 {
        now.since(self.at)
    }

    /// Milliseconds since the topic was accepted, or got its last message or its last epoch.
    #[must_use]
    pub const fn settled_ms(&self, now: Instant) -> u64 {
        now.since(self.settled_from)
    }

    /// A message or a new epoch arrived.
    pub const fn moved(&mut self, now: Instant) {
        self.settled_from = now;
    }

    /// The sequence on `messages` from which the first `Subscribe` requested a replay; 0 if it
    /// requested none.
    #[must_use]
    pub const fn replay_from(&self) -> u64 {
        self.replay_from
    }

    /// Records the sequence from which the first `Subscribe` requested a replay.
    pub const fn set_replay_from(&mut self, sequence: u64) {
        self.replay_from = sequence;
    }

    /// The replay or another epoch has begun: forgets the requested sequence and returns it.
    pub const fn take_replay_from(&mut self) -> u64 {
        core::mem::replace(&mut self.replay_from, 0)
    }

    /// Whether only a preview has requested the topic: no page has subscribed yet, and no audience
    /// is sent.
    #[must_use]
    pub const fn is_for_preview(&self) -> bool {
        self.for_preview
    }

    /// When the topic is forgotten because it has no pages; never while it has some.
    #[must_use]
    pub const fn forget_at(&self) -> Instant {
        self.forget_at
    }

    /// The topic has no pages; it is forgotten at that time.
    pub const fn forget_from(&mut self, at: Instant) {
        self.forget_at = at;
    }

    /// A page subscribed.
    pub const fn joined(&mut self) {
        self.audience_changed = true;
        self.for_preview = false;
        self.forget_at = Instant::NEVER;
    }

    /// A page left. After the last one the topic is kept until `forget_at`.
    pub const fn left(&mut self, is_last: bool, forget_at: Instant) {
        self.audience_changed = true;
        if is_last {
            self.forget_at = forget_at;
        }
    }

    /// Whether an `Audience` is due.
    #[must_use]
    pub fn is_audience_due(&self, now: Instant) -> bool {
        let is_time = self.audience_at == Instant(0) || now.since(self.audience_at) >= AUDIENCE_MS;
        !self.for_preview && self.audience_changed && is_time
    }

    /// `Audience` was sent.
    pub const fn audience_sent(&mut self, now: Instant) {
        self.audience_changed = false;
        self.audience_at = now;
    }
}
