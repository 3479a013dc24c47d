//! How a topic stands with the business server: accepted on which connection, until when, and for how many pages.
//!
//! Owns the times that follow from an `Accept` (when a replay is over, when a topic without pages is forgotten) and the
//! `Audience` that is still to be sent. Each event that moves them is a verb here. Doesn't know the connection
//! itself, nor which pages a topic has.

use super::time::Instant;

/// An `Audience` of one topic goes out at most this often.
const AUDIENCE_MS: u64 = 1_000;

/// How a topic stands with the business server.
#[derive(Debug)]
pub struct Acceptance {
    connection: u64,
    at: Instant,
    settled_from: Instant,
    replay_from: u64,
    forget_at: Instant,
    for_preview: bool,
    /// The audience has changed since it was sent.
    audience_changed: bool,
    audience_at: Instant,
}

impl Acceptance {
    /// A topic that was accepted just now and has no pages yet. It is forgotten at `forget_at` unless one comes.
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

    /// It is accepted once more: perhaps on another connection, which replays what was missed.
    pub fn renew(&mut self, now: Instant, connection: u64) {
        if self.connection != connection {
            self.connection = connection;
            self.at = now;
            self.settled_from = now;
            // That connection was asked for the relay's own next, and not for what pages brought.
            self.replay_from = 0;
        }
        self.audience_changed = true;
    }

    /// Whether this connection has accepted it.
    #[must_use]
    pub const fn is_on(&self, connection: u64) -> bool {
        self.connection == connection
    }

    /// Milliseconds since that connection accepted it first: its replay follows.
    #[must_use]
    pub const fn age_ms(&self, now: Instant) -> u64 {
        now.since(self.at)
    }

    /// Milliseconds since it was accepted, or had its last message or its last epoch.
    #[must_use]
    pub const fn settled_ms(&self, now: Instant) -> u64 {
        now.since(self.settled_from)
    }

    /// A message came, or another epoch.
    pub const fn moved(&mut self, now: Instant) {
        self.settled_from = now;
    }

    /// The messages' sequence from which the first `Subscribe` asked for a replay; 0 without.
    #[must_use]
    pub const fn replay_from(&self) -> u64 {
        self.replay_from
    }

    /// The first `Subscribe` asked for a replay from this sequence.
    pub const fn set_replay_from(&mut self, sequence: u64) {
        self.replay_from = sequence;
    }

    /// The replay has begun, or another epoch: no more than that is expected.
    pub const fn take_replay_from(&mut self) -> u64 {
        core::mem::replace(&mut self.replay_from, 0)
    }

    /// Whether only a preview asked for it: no page has come yet, and no audience is sent.
    #[must_use]
    pub const fn is_for_preview(&self) -> bool {
        self.for_preview
    }

    /// When it is forgotten for want of pages; never while it has some.
    #[must_use]
    pub const fn forget_at(&self) -> Instant {
        self.forget_at
    }

    /// It has no pages, and is forgotten then.
    pub const fn forget_from(&mut self, at: Instant) {
        self.forget_at = at;
    }

    /// A page has come.
    pub const fn joined(&mut self) {
        self.audience_changed = true;
        self.for_preview = false;
        self.forget_at = Instant::NEVER;
    }

    /// A page has left. After the last one the topic is kept until `forget_at`.
    pub const fn left(&mut self, is_last: bool, forget_at: Instant) {
        self.audience_changed = true;
        if is_last {
            self.forget_at = forget_at;
        }
    }

    /// Whether `Audience` is to be sent now.
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
